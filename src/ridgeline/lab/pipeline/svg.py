"""The pipeline diagram as an SVG, light and dark as its reader's screen. Knows cells; knows no file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from xml.sax.saxutils import escape

from ridgeline.lab.pipeline.cells import KINDS, NONE, Pipeline, Summary, printable

STEPS, MOST_REQUESTS = 200, 1000
_CELL, _ROW, _LABEL, _HEAD, _LINE = 8, 14, 190, 66, 18
_LIGHT = {
    "page": "#ffffff", "text": "#1b1f24", "faint": "#d0d7de",
    "prefill": "#1f77b4", "decode": "#2a9d5c", "recomputed": "#b455b6", "queued": "#f0c75e", "stalled": "#d1495b",
    "preempted": "#6e2c3a", "retired": "#12522f",
}  # fmt: skip
_DARK = _LIGHT | {
    "page": "#0d1117", "text": "#e6edf3", "faint": "#30363d",
    "prefill": "#58a6ff", "decode": "#3fb950", "recomputed": "#d2a8ff", "queued": "#9e7b1f", "stalled": "#f85149",
    "preempted": "#ffa198", "retired": "#aff5b4",
}  # fmt: skip


def draw(pipeline: Pipeline) -> str:
    """A rectangle a run of equal cells, with its words as a tooltip."""
    recording, keys = pipeline.recording, pipeline.keys[:MOST_REQUESTS]
    facts = [*Summary.of(pipeline).lines(), *_more(pipeline)]
    width = _LABEL + max(_CELL * len(recording.steps), 620) + 20
    bottom = _HEAD + _ROW * len(keys) + 10
    height = bottom + _ROW + _LINE * (len(facts) + 2)
    title = printable(f"{recording.model} on {recording.device}, {recording.batching}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_css(_LIGHT)}@media (prefers-color-scheme: dark) {{{_css(_DARK)}}}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="head" x="10" y="22">{escape(title)}</text>',
        *_axis(recording.steps.serial.tolist(), bottom),
    ]
    for i, key in enumerate(keys):
        parts += _row(pipeline.name(key), pipeline.cells[i].tolist(), recording.steps.serial.tolist(), _HEAD + i * _ROW)
    parts += _stalls(recording.stalls(), bottom)
    parts += _legend(bottom + _ROW + _LINE)
    for i, fact in enumerate(facts):
        parts.append(f'<text x="10" y="{bottom + _ROW + _LINE * (i + 2)}">{escape(fact)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _css(colours: dict[str, str]) -> str:
    rules = [f".{name}{{fill:{colour}}}" for name, colour in colours.items() if name not in ("text", "faint")]
    text = f"text{{fill:{colours['text']};font:11px system-ui,sans-serif}}.head{{font-size:14px;font-weight:600}}"
    return text + f".tick{{stroke:{colours['faint']}}}" + "".join(rules)


def _axis(serials: list[int], bottom: int) -> Iterator[str]:
    for i in range(0, len(serials), 10):
        x = _LABEL + i * _CELL
        yield f'<line class="tick" x1="{x}" y1="{_HEAD - 8}" x2="{x}" y2="{bottom}"/>'
        yield f'<text x="{x + 2}" y="{_HEAD - 12}">{serials[i]}</text>'
    yield f'<text x="10" y="{_HEAD - 12}">step</text>'


def _row(name: str, cells: list[int], serials: list[int], y: int) -> Iterator[str]:
    shown = name if len(name) <= 26 else "…" + name[-25:]
    yield f'<text x="10" y="{y + _ROW - 4}">{escape(shown)}<title>{escape(name)}</title></text>'
    at = 0
    for kind, run in groupby(cells):
        count = len(list(run))
        if kind != NONE:
            until = f" to {serials[at + count - 1]}" if count > 1 else ""
            words = f"{name}: {KINDS[kind].meaning}, step {serials[at]}{until}"
            box = f'x="{_LABEL + at * _CELL}" y="{y + 1}" width="{count * _CELL - 1}" height="{_ROW - 2}"'
            yield f'<rect class="{KINDS[kind].name}" {box}><title>{escape(words)}</title></rect>'
        at += count


def _stalls(names: list[str], y: int) -> Iterator[str]:
    """Why somebody was kept out of a step, below it."""
    yield f'<text x="10" y="{y + _ROW - 4}">kept out for want of</text>'
    at = 0
    for name, run in groupby(names):
        count = len(list(run))
        if name:
            x, width = _LABEL + at * _CELL, count * _CELL - 1
            yield f'<rect class="stalled" x="{x}" y="{y}" width="{width}" height="4"><title>{name}</title></rect>'
            if width > 7 * len(name):
                yield f'<text x="{x}" y="{y + _ROW}">{name}</text>'
        at += count


def _legend(y: int) -> Iterator[str]:
    x = 10
    for kind in KINDS[1:]:
        yield f'<rect class="{kind.name}" x="{x}" y="{y - 9}" width="10" height="10"/>'
        yield f'<text x="{x + 14}" y="{y}">{kind.meaning}</text>'
        x += 30 + 7 * len(kind.meaning)


def _more(pipeline: Pipeline) -> list[str]:
    left = len(pipeline.keys) - MOST_REQUESTS
    return [f"{left} more requests are not drawn"] if left > 0 else []
