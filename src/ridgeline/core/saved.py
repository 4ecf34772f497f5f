"""Saved: the server's page with a recording or a run file in it, as one file that needs no server. Knows the page's
files only.

The page's modules become functions that run in the order in which they need each other, because a browser loads no
module from a file. So they keep to three forms: `import {a, b} from`, `import * as a from`, and `export` before a
declaration.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

_ROOT = Path(__file__).parent.parent
WEB, LOOK = _ROOT / "server" / "web", _ROOT / "assets" / "look"
_IMPORT = re.compile(r'^import (?:\{([^}]*)\}|\* as (\w+)) from "\./([\w.]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|class|const)) (\w+)", re.MULTILINE)
_TITLE = re.compile(r"^<title>.*</title>$", re.MULTILINE)
_REFERENCE = re.compile(r"^<(?:link|script)\b.*\n", re.MULTILINE)


def saved_page(data: str, title: str, library: str = "") -> str:
    """data: JSON, whoever wrote it. library: a script that the page would fetch, for what is in data."""
    page = _REFERENCE.sub("", _text(WEB / "index.html"))
    page = _TITLE.sub(lambda _: f"<title>{escape(title)}</title>", page)
    link = (
        f'<link rel="icon" href="data:image/svg+xml,{escape(_text(WEB / "favicon.svg").strip().replace("#", "%23"))}">'
    )
    style = f"<style>{_text(LOOK / 'look.css')}{_text(WEB / 'style.css')}</style>"
    before = f"{link}{style}<script>{_text(LOOK / 'theme.js')}</script>\n</head>"
    # JSON has this sign only inside strings, where a tag or a comment would change what the browser takes for script.
    inert = data.replace("<", "\\u003c")
    after = (
        f'<script type="application/json" id="saved">{inert}</script>\n'
        f"{f'<script>{library}</script>' if library else ''}<script>{joined('page.js')}</script>\n</body>"
    )
    return page.replace("</head>", before, 1).replace("</body>", after, 1)


def joined(entry: str) -> str:
    """The module and all that it needs as one script."""
    modules: dict[str, str] = {}
    _join(entry, modules)
    return "\n".join(['"use strict";', "const modules = {};", *modules.values()])


def _join(name: str, modules: dict[str, str]) -> None:
    """Adds the module after those that it imports."""
    if name in modules:
        return
    text = _text(WEB / name)
    for found in _IMPORT.finditer(text):
        _join(found[3], modules)
    exported = ", ".join(found[2] for found in _EXPORT.finditer(text))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(_bound, text))
    modules[name] = f'modules["{name}"] = (() => {{\n{body}return {{{exported}}};\n}})();'


def _bound(found: re.Match[str]) -> str:
    names = found[2] or "{" + found[1].replace(" as ", ": ") + "}"
    return f'const {names} = modules["{found[3]}"];'


def _text(path: Path) -> str:
    return path.read_text("utf-8")
