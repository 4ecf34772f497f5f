"""Look: the stylesheet, the switch of light and dark, and the header that all our pages share. Knows no page's content.

The server hands the files out at /assets; a saved report has them in itself.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

LOOK = Path(__file__).parent.parent / "assets" / "look"


def head(title: str) -> str:
    """What stands in <head> of a page that is one file."""
    return (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_text('look.css')}</style><script>{_text('theme.js')}</script>"
    )


def masthead(about: str) -> str:
    """The header as the server's page has it. about: beside the name."""
    return (
        '<header class="masthead"><span class="logo" aria-hidden="true"></span><p class="brand">Ridgeline</p>'
        f'<span class="dim">{escape(about)}</span>'
        '<nav aria-label="Page"><button id="theme" class="small" type="button">◐</button></nav></header>'
    )


def _text(name: str) -> str:
    return (LOOK / name).read_text("utf-8")
