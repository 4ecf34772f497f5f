"""The dashboard names metrics that exist, and stands in nobody's way."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.server.test_metrics import DOCS

PATH = Path(__file__).parents[2] / "docs" / "grafana" / "ridgeline.json"
DASHBOARD: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OF_THE_FRONT = "ridgeline_queued", "ridgeline_refused", "ridgeline_http", "ridgeline_engine_restarts"
NAME = re.compile(r"\b(?:vllm:|ridgeline_)[a-z0-9_]+")


def known() -> set[str]:
    """The table in docs/metrics.md, which test_metrics.py holds to what is exported, with a histogram's series."""
    names = set[str]()
    for name, kind in re.findall(r"^\| `([^`]+)` \| (\w+)", DOCS.read_text(), re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def test_every_metric_that_it_names_exists() -> None:
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    expressions += [one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    named = {name for text in expressions for name in NAME.findall(text)}
    assert len(named) > 20
    assert named <= known(), named - known()


def test_labels_are_those_that_the_metrics_have() -> None:
    expressions = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    labelled = re.findall(r"((?:vllm:|ridgeline_)[a-z0-9_]+)\{([^}]*)\}", expressions)
    assert len(labelled) > 20
    for name, labels in labelled:
        assert ("model_name" in labels) is not name.startswith(OF_THE_FRONT), f"{name} {labels}"


def test_panels_do_not_overlap_and_have_one_id_each() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    for panel in PANELS:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
