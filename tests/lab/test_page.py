"""The page of a recorded run: whole, without a network, and with sentences that follow the numbers."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from ridgeline.lab.tradeoffs import figures
from ridgeline.lab.tradeoffs.page import render
from ridgeline.lab.tradeoffs.tradeoffs import print_views
from ridgeline.lab.tradeoffs.views import VIEWS
from tests.bench.hand import Screen
from tests.lab.recorded import document, latency, memory, padding


class Page(HTMLParser):
    """What a browser would fetch, the ids, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._inside = ""
        self.figures = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.fetched += [str(values[name]) for name in ("src", "href", "srcset", "data", "action") if name in values]
        self.ids += [str(values["id"])] if "id" in values else []
        self._inside = f"{tag} {values.get('id', '')}"

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script figures":
            self.figures += data
        elif not self._inside.startswith(("script", "style")):
            self.text += data


def test_it_needs_no_network_and_has_every_figure() -> None:
    text = render(document())
    page = Page(text)
    assert page.fetched == []
    assert "@import" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    figures = json.loads(page.figures)
    assert list(figures) == [view.key for view in VIEWS]
    assert set(figures) <= set(page.ids)
    for figure in figures.values():
        assert figure["data"]
        for axis in ("xaxis", "yaxis"):
            assert re.search(r"\((ms|MiB|tokens|%)|second|at once|ms\)", figure["layout"][axis]["title"]["text"])
    assert "Plotly" in text
    assert "prefers-color-scheme: dark" in text


def test_it_has_the_same_numbers_as_the_terminal() -> None:
    page, screen = Page(render(document())), Screen(width=200)
    print_views(screen.console, document())
    for view in VIEWS:
        rows = view.rows(document()["results"])
        assert view.reading(rows) in page.text
        assert view.reading(rows) in " ".join(screen.text.split())
        for row in rows:
            for column in view.columns:
                assert column.show(row) in page.text
                assert column.show(row) in screen.text.replace("\u00a0", " ")


def test_it_says_where_it_comes_from_and_hides_nothing_dangerous() -> None:
    text = render(document())
    page = Page(text)
    for word in ("a processor, 2 cores", "ridgeline tradeoffs <b>", "2026-01-01", "ridgeline 1"):
        assert word in page.text
    assert "<b>" not in text.split("</footer>")[0].split("<footer>")[1]
    hostile = document(latency=[latency("</script><script>x", None, None, 1.0, 1.0, 1.0)])
    page = Page(render(hostile))
    assert "</script><script>x" in json.dumps(json.loads(page.figures))


def test_what_was_not_measured_is_named() -> None:
    page = Page(render(document(padding=[], memory=[])))
    assert list(json.loads(page.figures)) == ["policies", "windows"]
    assert "Not measured in this run: Padding waste" in page.text


def test_a_busy_client_is_told() -> None:
    busy = [latency("one", None, None, 1.0, 1.0, 1.0) | {"client_bound": True}]
    assert "Client-bound" in Page(render(document(latency=busy))).text
    assert "Client-bound" not in Page(render(document())).text


def reading(key: str, **results: object) -> str:
    view = next(view for view in VIEWS if view.key == key)
    return view.reading(view.rows(document(**results)["results"]))


def test_readings_follow_the_numbers() -> None:
    assert "continuous, max 8 at 4.0 requests/s with 400 tokens/s" in reading("policies")
    assert "4.0 times the tokens for 2.0 times the latency" in reading("policies")
    turned = [latency("one", None, None, 1.0, 500.0, 10.0), latency("continuous", None, 8, 1.0, 400.0, 90.0)]
    assert reading("policies", latency=turned).startswith("Both the most tokens and the shortest wait: one")
    assert "100 ms has a median latency of 230 ms against 120 ms with 0 ms" in reading("windows")
    assert "waste 41" in reading("padding")
    assert "waste 7" in reading("padding", padding=[padding(64, 0.0, 0.02), padding(124, 35.0, 0.07)])
    assert "took 26.0 MiB" in reading("memory")
    assert "0.50 of the 52.0 MiB planned" in reading("memory")
    assert "grew by -13.0 MiB" in reading("memory", memory=[memory(1, 300, 333), memory(4, 300, 320)])


def test_a_plan_for_a_gpu_is_held_against_the_gpus_memory() -> None:
    gpu = {"on_gpu": True, "ready_gpu_bytes": 500 << 20, "gpu_bytes": 513 << 20}
    rows = [memory(1, 900, 990) | gpu, memory(32, 900, 999) | gpu]
    assert "took 13.0 MiB on top of the waiting server, 0.25 of the 52.0 MiB planned" in reading("memory", memory=rows)
    unknown = [row | {"ready_gpu_bytes": None, "gpu_bytes": None} for row in rows]
    assert "is not known" in reading("memory", memory=unknown)
    assert {line.name.split(":")[0] for line in figures.memory(unknown).data} == {"planned"}


def test_many_lines_can_be_told_apart() -> None:
    rows = [latency(f"policy {i}", None, None, 1.0, 1.0, 1.0) for i in range(20)]
    lines = figures.latency(rows, lambda r: str(r["setting"])).data
    assert len({(line.line.color, line.line.dash) for line in lines}) == 20
    assert len({line.marker.symbol for line in lines}) == 20


@pytest.mark.parametrize("key", [view.key for view in VIEWS])
def test_one_row_is_enough(key: str) -> None:
    rows = document()["results"]
    one = {name: value[:1] for name, value in rows.items() if isinstance(value, list)}
    one["latency"] = [latency("dynamic", 20, 8, 1.0, 95.0, 140.0)]
    assert reading(key, **one)
