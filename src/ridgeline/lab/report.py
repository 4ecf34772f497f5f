"""Report: a finished measurement as one HTML file that needs no network. Knows sections; knows no measurement.

A section is a question, a figure, a sentence that answers it, and the numbers as a table. Figures are plotly's, and the
library itself is inlined.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

STYLE = """
:root { color-scheme: light dark; --text: #1c2430; --dim: #5b6675; --back: #ffffff; --card: #f6f8fa; --line: #d8dee6;
  --grid: #e3e8ee; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e9f0; --dim: #9aa6b5; --back: #11151b; --card: #191f27;
  --line: #303a46; --grid: #2b343f; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto;
  max-width: 1040px; padding: 24px 16px 48px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 0 0 4px; }
p { margin: 4px 0 12px; } .dim, footer { color: var(--dim); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px; margin: 24px 0; }
.reading { font-weight: 600; margin-top: 12px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid var(--line); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; } th { color: var(--dim); font-weight: 600; }
summary { cursor: pointer; color: var(--dim); } code { overflow-wrap: anywhere; } dt { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; } dd { margin: 0; }
"""

SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function paint() {
  for (const [key, figure] of Object.entries(figures)) {
    const axis = {gridcolor: colour("--grid"), linecolor: colour("--line"), zerolinecolor: colour("--line"),
      tickcolor: colour("--line")};
    const layout = {...figure.layout, font: {...figure.layout.font, color: colour("--text")},
      xaxis: {...figure.layout.xaxis, ...axis}, yaxis: {...figure.layout.yaxis, ...axis}};
    Plotly.react(key, figure.data, layout, {responsive: true, displayModeBar: false});
  }
}
paint();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
"""


@dataclass(frozen=True, slots=True)
class Section:
    """key: the element's id, unique on the page. question, readings: plain sentences. headings and rows: the table, all
    text; its first column is set to the left. open_table: show it at once, for sections whose table is the answer."""

    key: str
    title: str
    question: str
    figure: go.Figure | None = None
    readings: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = field(default=())
    open_table: bool = False


def render(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> str:
    """The whole page. provenance: as core.records has it. notes: above the sections; remarks: beside the provenance."""
    figures = {s.key: json.loads(s.figure.to_json()) for s in sections if s.figure is not None}
    # A closing tag inside a string would end the script element.
    data = json.dumps(figures).replace("</", "<\\/")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Ridgeline: {escape(title[:1].lower() + title[1:])}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>"
        f'<h1>{escape(title)}</h1><p class="dim">{escape(subtitle)}</p>'
        f"{''.join(f'<p>{escape(note)}</p>' for note in notes)}"
        f"{''.join(map(_section, sections))}{_footer(provenance, remarks)}"
        f'<script type="application/json" id="figures">{data}</script><script>{SCRIPT}</script></body></html>\n'
    )


def _section(section: Section) -> str:
    drawing = ""
    if section.figure is not None:
        drawing = f'<div id="{section.key}" role="img" aria-label="{escape(section.title)}"></div>'
    readings = "".join(f'<p class="reading">{escape(reading)}</p>' for reading in section.readings)
    return (
        f"<section><h2>{escape(section.title)}</h2><p>{escape(section.question)}</p>{drawing}{readings}"
        f"{_table(section)}</section>"
    )


def _table(section: Section) -> str:
    if not section.rows:
        return ""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in section.headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in section.rows)
    return (
        f"<details{' open' if section.open_table else ''}><summary>The numbers</summary>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _footer(source: Mapping[str, Any], remarks: Sequence[str]) -> str:
    commit = source["commit"] or "unknown"
    facts = {
        "Machine": f"{source['cpu']}, {source['cores']} cores, {source['system']}",
        "GPUs": ", ".join(source["gpus"]) or "none",
        "Command": " ".join(source["command"] or []),
        "Date": source["started"],
        "Commit": commit + (" with changes" if source["dirty"] else ""),
        "Libraries": ", ".join(f"{name} {version}" for name, version in source["libraries"].items()),
    }
    rows = "".join(f"<dt>{name}</dt><dd><code>{escape(text)}</code></dd>" for name, text in facts.items())
    return f"<footer>{''.join(f'<p>{escape(remark)}</p>' for remark in remarks)}<dl>{rows}</dl></footer>"
