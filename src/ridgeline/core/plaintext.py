"""Plain text: what others wrote, fit for a terminal. Knows no terminal."""

from __future__ import annotations

# What a model or a server writes must not drive the terminal that it is shown on.
CONTROLS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def harmless(text: str) -> str:
    """Control characters but line ends and tabs become the replacement character."""
    return text.translate(CONTROLS)
