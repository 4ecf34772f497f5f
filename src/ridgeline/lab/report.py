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

from ridgeline.core.look import head, masthead

SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
function paint() {
  for (const [key, figure] of Object.entries(figures)) {
    const axis = {gridcolor: colour("grid"), linecolor: colour("line"), zerolinecolor: colour("line"),
      tickcolor: colour("line")};
    const layout = {...figure.layout, font: {...figure.layout.font, color: colour("ink")},
      xaxis: {...figure.layout.xaxis, ...axis}, yaxis: {...figure.layout.yaxis, ...axis}};
    Plotly.react(key, figure.data, layout, {responsive: true, displayModeBar: false});
  }
}
paint();
document.addEventListener("themechange", paint);
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
        f'<!doctype html>\n<html lang="en"><head>{head(f"Ridgeline: {title[:1].lower() + title[1:]}")}'
        f"<script>{get_plotlyjs()}</script></head><body>{masthead('saved report')}<main>"
        f'<h1 class="title">{escape(title)}</h1><p class="dim">{escape(subtitle)}</p>'
        f"{''.join(f'<p>{escape(note)}</p>' for note in notes)}"
        f"{''.join(map(_section, sections))}</main>{_footer(provenance, remarks)}"
        f'<script type="application/json" id="figures">{data}</script><script>{SCRIPT}</script></body></html>\n'
    )


def _section(section: Section) -> str:
    drawing = ""
    if section.figure is not None:
        drawing = f'<div id="{section.key}" role="img" aria-label="{escape(section.title)}"></div>'
    readings = "".join(f'<p class="reading">{escape(reading)}</p>' for reading in section.readings)
    return (
        f'<section class="report"><h2>{escape(section.title)}</h2><p>{escape(section.question)}</p>{drawing}{readings}'
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
    return f"<footer>{''.join(f'<p>{escape(remark)}</p>' for remark in remarks)}<dl class='facts'>{rows}</dl></footer>"
