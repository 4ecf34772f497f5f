"""Saved: the server's page with a recording in it, as one file that needs no server. Knows the page's files only.

The page's modules become functions that run in the order in which they need each other, because a browser loads no
module from a file. So they keep to three forms: `import {a, b} from`, `import * as a from`, and `export` before a
declaration.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from ridgeline.core.look import head

WEB = Path(__file__).parent / "web"
_IMPORT = re.compile(r'^import (?:\{([^}]*)\}|\* as (\w+)) from "\./([\w.]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|class|const)) (\w+)", re.MULTILINE)
_REFERENCE = re.compile(r"^<(?:meta|title|link|script)\b.*\n", re.MULTILINE)


def saved_page(recording: bytes, title: str) -> str:
    """recording: JSON as /v1/recording gives it."""
    page = _REFERENCE.sub("", (WEB / "index.html").read_text("utf-8"))
    style, icon = (WEB / "style.css").read_text("utf-8"), (WEB / "favicon.svg").read_text("utf-8")
    link = f'<link rel="icon" href="data:image/svg+xml,{escape(icon.strip().replace("#", "%23"))}">'
    # A closing tag inside a string would end the script element.
    data = recording.decode("utf-8").replace("</", "<\\/")
    inside = f"<head>\n{head(title)}{link}<style>{style}</style>\n"
    after = (
        f'<script type="application/json" id="saved-recording">{data}</script>\n<script>{joined("page.js")}</script>\n'
    )
    return page.replace("<head>\n", inside, 1).replace("</body>", after + "</body>", 1)


def joined(entry: str) -> str:
    """The module and all that it needs as one script."""
    modules: dict[str, str] = {}
    _join(entry, modules)
    return "\n".join(['"use strict";', "const modules = {};", *modules.values()])


def _join(name: str, modules: dict[str, str]) -> None:
    """Adds the module after those that it imports."""
    if name in modules:
        return
    text = (WEB / name).read_text("utf-8")
    for found in _IMPORT.finditer(text):
        _join(found[3], modules)
    exported = ", ".join(found[2] for found in _EXPORT.finditer(text))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(_bound, text))
    modules[name] = f'modules["{name}"] = (() => {{\n{body}return {{{exported}}};\n}})();'


def _bound(found: re.Match[str]) -> str:
    names = found[2] or "{" + found[1].replace(" as ", ": ") + "}"
    return f'const {names} = modules["{found[3]}"];'
