"""What a recorded run says, and the page that has it inside: whole, without a network, with words from the numbers."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import pytest

from ridgeline.core.report import Lines, Report, reported
from ridgeline.lab.report import page
from ridgeline.lab.tradeoffs import figures
from ridgeline.lab.tradeoffs.page import told
from ridgeline.lab.tradeoffs.tradeoffs import print_views
from ridgeline.lab.tradeoffs.views import VIEWS
from tests.bench.hand import Screen
from tests.lab.recorded import document, latency, memory, padding


def words(report: Report) -> str:
    """All that the page shows of it."""

    def of(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        return [text for one in inner for text in of(one)]

    return "\n".join(of(asdict(report)))


class Page(HTMLParser):
    """What a browser would fetch, and the run file that is inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self._inside = ""
        self._saved = ""
        self.feed(text)

    @property
    def run(self) -> Any:
        return json.loads(self._saved)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in ("a", "code"):  # a link is followed by whoever clicks it
            found = (str(values[name]) for name in ("src", "href", "srcset", "data", "action") if name in values)
            self.fetched += [url for url in found if not url.startswith("data:")]
        self._inside = f"{tag} {values.get('id', '')}"

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script saved":
            self._saved += data


def test_it_needs_no_network_and_has_every_figure() -> None:
    run = reported(document(), told(document()))
    text = page(run)
    assert Page(text).fetched == []
    assert "@import" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert Page(text).run == json.loads(json.dumps(run))
    assert [section.title for section in told(document()).sections] == [view.title for view in VIEWS]
    for section in told(document()).sections:
        assert isinstance(section.figure, Lines)
        assert all(series.marks for series in section.figure.series)
        for title in (section.figure.across, section.figure.up):
            assert re.search(r"\((ms|MiB|tokens|%)|second|at once|ms\)", title)
    assert "Plotly" in text
    assert "color-scheme" in text


def test_it_has_the_same_numbers_as_the_terminal() -> None:
    shown, screen = words(told(document())), Screen(width=200)
    print_views(screen.console, document())
    for view in VIEWS:
        rows = view.rows(document()["results"])
        assert view.reading(rows) in shown
        assert view.reading(rows) in " ".join(screen.text.split())
        for row in rows:
            for column in view.columns:
                assert column.show(row) in shown
                assert column.show(row) in screen.text.replace("\u00a0", " ")


def test_what_a_run_file_says_stays_text() -> None:
    hostile = "</script><!--<script>x"
    run = document(latency=[latency(hostile, None, None, 1.0, 1.0, 1.0)])
    text = page(reported(run, told(run)))
    assert hostile not in text
    assert Page(text).run["results"]["latency"][0]["setting"] == hostile
    assert hostile in json.dumps(Page(text).run["report"])


def test_what_was_not_measured_is_named() -> None:
    few = told(document(padding=[], memory=[]))
    assert len(few.sections) == 2
    assert "Not measured in this run: Padding waste" in words(few)


def test_a_busy_client_is_told() -> None:
    busy = [latency("one", None, None, 1.0, 1.0, 1.0) | {"client_bound": True}]
    assert "Client-bound" in words(told(document(latency=busy)))
    assert "Client-bound" not in words(told(document()))


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
    assert {line.name.split(":")[0] for line in figures.memory(unknown).series} == {"planned"}


@pytest.mark.parametrize("key", [view.key for view in VIEWS])
def test_one_row_is_enough(key: str) -> None:
    rows = document()["results"]
    one = {name: value[:1] for name, value in rows.items() if isinstance(value, list)}
    one["latency"] = [latency("dynamic", 20, 8, 1.0, 95.0, 140.0)]
    assert reading(key, **one)
