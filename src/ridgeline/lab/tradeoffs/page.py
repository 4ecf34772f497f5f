"""Page: what a run of trade-offs says, as the page draws it. Knows the run file; measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ridgeline.core.report import Report, Section
from ridgeline.lab.tradeoffs.views import VIEWS, View

Row = dict[str, Any]


def told(document: Row) -> Report:
    """document: what tradeoffs.json has; a trade-off without rows is left out and named."""
    shown = [(view, rows) for view in VIEWS if (rows := view.rows(document["results"]))]
    missing = [view.title for view in VIEWS if view not in [view for view, _ in shown]]
    notes = [f"Not measured in this run: {'; '.join(missing)}."] if missing else []
    if any(row["client_bound"] for row in document["results"]["latency"]):
        notes.append(
            "Client-bound: in some loads the client used more than 0.8 of a core; it is part of their latency."
        )
    remarks = ["The run was interrupted."] if document["interrupted"] else []
    if document["error"] is not None:
        remarks.append(f"The run failed before its end: {document['error']}")
    sections = [_section(view, rows) for view, rows in shown]
    return Report("The trade-offs of batching", _model(document), sections, notes, remarks)


def _section(view: View, rows: Sequence[Row]) -> Section:
    return Section(
        title=view.title,
        question=view.question,
        figure=view.figure(rows),
        readings=(view.reading(rows),),
        headings=tuple(column.heading for column in view.columns),
        rows=tuple(tuple(column.show(row) for column in view.columns) for row in rows),
    )


def _model(document: Row) -> str:
    model = document["results"]["model"]
    facts = model.get("ridgeline")
    where = f" ({facts.get('dtype')} on {facts.get('device')})" if isinstance(facts, dict) else ""
    return (
        f"Model: {model.get('id', 'unknown')}{where}. One run, each point measured once: small differences are noise."
    )
