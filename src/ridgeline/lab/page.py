"""Page: a run of trade-offs as one HTML file that needs no network. Knows the run file; measures nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs

from ridgeline.lab.views import VIEWS, View

Row = dict[str, Any]

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


def render(document: Row) -> str:
    """The whole page. document: what tradeoffs.json has; a trade-off without rows is left out and named."""
    shown = [(view, rows) for view in VIEWS if (rows := view.rows(document["results"]))]
    figures = {view.key: json.loads(view.figure(rows).to_json()) for view, rows in shown}
    missing = [view.title for view in VIEWS if view.key not in figures]
    note = f"<p>Not measured in this run: {escape('; '.join(missing))}.</p>" if missing else ""
    if any(row["client_bound"] for row in document["results"]["latency"]):
        note += (
            "<p>Client-bound: in some loads the client used more than 0.8 of a core; it is part of their latency.</p>"
        )
    # A closing tag inside a string would end the script element.
    data = json.dumps(figures).replace("</", "<\\/")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Ridgeline: the trade-offs of batching</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>"
        "<h1>The trade-offs of batching</h1>"
        f'<p class="dim">{escape(_model(document))}</p>{note}'
        f"{''.join(_section(view, rows) for view, rows in shown)}{_footer(document)}"
        f'<script type="application/json" id="figures">{data}</script><script>{SCRIPT}</script></body></html>\n'
    )


def _section(view: View, rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(column.heading)}</th>" for column in view.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(column.show(row))}</td>' for column in view.columns)}</tr>" for row in rows
    )
    return (
        f"<section><h2>{escape(view.title)}</h2><p>{escape(view.question)}</p>"
        f'<div id="{view.key}" role="img" aria-label="{escape(view.title)}"></div>'
        f'<p class="reading">{escape(view.reading(rows))}</p>'
        f'<details><summary>The numbers</summary><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details></section>"
    )


def _model(document: Row) -> str:
    model = document["results"]["model"]
    facts = model.get("ridgeline")
    where = f" ({facts.get('dtype')} on {facts.get('device')})" if isinstance(facts, dict) else ""
    return (
        f"Model: {model.get('id', 'unknown')}{where}. One run, each point measured once: small differences are noise."
    )


def _footer(document: Row) -> str:
    source = document["provenance"]
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
    ended = "<p>The run was interrupted.</p>" if document["interrupted"] else ""
    if document["error"] is not None:
        ended += f"<p>The run failed before its end: {escape(document['error'])}</p>"
    return f"<footer>{ended}<dl>{rows}</dl></footer>"
