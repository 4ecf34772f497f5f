"""Write docs/options.md from the configuration's fields and MENU, so that it says what the program does.

python scripts/option_reference.py            # writes the page
python scripts/option_reference.py --check    # says whether it is current
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from ridgeline.core.options import SECTIONS, kind_of
from ridgeline.menu import MENU

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
HEAD = """# Options

Every option of `ridgeline serve` and, but for the server's own, of `ridgeline generate` and `LLM(...)`. A TOML file
given with `--config` has the same names. Written by scripts/option_reference.py from core/options.py and menu.py; do
not edit it by hand.
"""
NAMES = {"int": "integer", "float": "number", "str": "text", "bool": "flag"}


def choice_line(path: str) -> str:
    """The first line of the docstring of the object that MENU names."""
    module, _, attribute = path.partition(":")
    made = getattr(importlib.import_module(module), attribute)
    return (inspect.getdoc(made) or "").partition("\n\n")[0].replace("\n", " ")


def bounds(f: Field[Any]) -> str:
    low, high = f.metadata["low"], f.metadata["high"]
    if low is None:
        return ""
    return f", at least {low}" if high is None else f", {low} to {high}"


def entry(section: type[Any], f: Field[Any]) -> Iterator[str]:
    flag = "--" + f.name.replace("_", "-")
    kind = kind_of(section, f.name)
    shown = f"`{flag}` / `--no-{flag[2:]}`" if kind is bool else f"`{flag}`"
    default = "see below" if f.default is None else f"`{str(f.default).lower() if kind is bool else f.default}`"
    kind_name = "choice" if f.metadata["choices"] else NAMES[kind.__name__]
    yield f"### {shown}\n\n{kind_name}{bounds(f)}; default: {default}\n\n{f.metadata['help']}\n"
    menu = MENU.get(f.name)
    if menu is not None:
        yield "\n".join(f"- `{name}`: {choice_line(path)}" for name, path in menu.items()) + "\n"
    elif f.metadata["choices"]:
        yield "Choices: " + ", ".join(f"`{name}`" for name in f.metadata["choices"]) + ".\n"


def page() -> str:
    parts = [HEAD]
    for name, section in SECTIONS.items():
        parts.append(f"## {name.capitalize()}\n")
        for f in fields(section):
            parts += entry(section, f)
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        current = PAGE.exists() and PAGE.read_text() == page()
        sys.exit(0 if current else "docs/options.md is not what the code says; run scripts/option_reference.py")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
