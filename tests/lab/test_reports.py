"""Run files of this tree as reports: the server's page with the file inside, as a person sees it, without a server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ridgeline.core.errors import ConfigError
from ridgeline.core.report import bare
from ridgeline.lab.reporting import TELLERS, read_reported, write_page
from tests.lab.recorded import document as tradeoffs
from tests.server.browser import browsing, chromium

RECORDS = Path(__file__).parent.parent.parent / "records"
H100, CPU = RECORDS / "2026-11-26-mixed-h100", RECORDS / "2026-11-26-laboratory-cpu"


@dataclass(frozen=True)
class Shown:
    """What a report shows. said: text on the page. traces: a name in its first figure."""

    kind: str
    path: Path | None
    title: str
    said: tuple[str, ...]
    trace: str


SHOWN = (
    Shown("ladder", CPU / "ladder.json", "The ladder", ("10.85 (8.97 to 12.06) times", "122.5", "2026-11-26"), "pays"),
    Shown("ledger", CPU / "roofline.json", "Roofline", ("2.9 times below the ridge of 42", "timed us"), "attention"),
    Shown(
        "tradeoffs", None, "The trade-offs of batching", ("4.0 times the tokens for 2.0 times",), "continuous, max 8"
    ),
    Shown("bench serve", H100 / "http.json", "Serving under load", ("98550.4 output tokens/s", "1762.7"), "TTFT"),
    Shown("bench offline", H100 / "offline.json", "A load all at once", ("105625.7 out", "222.3 rows"), "out"),
    Shown("bench step", H100 / "step.json", "Steps of an engine", ("2,947.2", "decode, batch 256"), "decode"),
)


def source(shown: Shown, folder: Path) -> Path:
    """There is no recorded run of trade-offs; one made by hand stands for it."""
    if shown.path is not None:
        return shown.path
    (folder / "run.json").write_text(json.dumps(tradeoffs()), "utf-8")
    return folder / "run.json"


def test_every_kind_is_shown_here() -> None:
    assert [shown.kind for shown in SHOWN] == list(TELLERS)


@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_a_person_opens_reports(tmp_path: Path) -> None:
    asyncio.run(_open_all(tmp_path))


async def _open_all(folder: Path) -> None:
    binary = chromium()
    assert binary is not None
    text, plots = "document.getElementById('report').textContent", "[...document.querySelectorAll('.figure')]"
    async with browsing(binary) as page:
        for shown in SHOWN:
            out = folder / f"{shown.kind}.html"
            write_page(source(shown, folder), out)
            size = {"width": 1240, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            await page.call("Emulation.setDeviceMetricsOverride", **size)
            await page.open(out.as_uri())
            await page.until(f"{plots}.length && {plots}.every(plot => plot.querySelector('.main-svg'))")
            assert await page.value("document.querySelector('#report .title').textContent") == shown.title
            assert shown.title.lower() in (await page.value("document.title")).lower()
            for part in shown.said:
                assert part in await page.value(text)
            assert shown.trace in await page.value(f"{plots}[0].data.map(trace => trace.name)")
            assert await page.value(f"{plots}.every(p => p.layout.xaxis.title.text && p.layout.yaxis)")
            assert not await page.value("document.getElementById('tabs').checkVisibility()")
            ink = f"{plots}[0].layout.font.color"
            for theme, colour in (("light", "rgb(22, 32, 44)"), ("dark", "rgb(230, 237, 243)")):
                while await page.value("document.documentElement.dataset.theme") != theme:
                    await page.value("document.getElementById('theme').click()")
                await page.until(f"{ink} === '{colour}'")
            await page.call("Emulation.setDeviceMetricsOverride", **size | {"width": 390, "mobile": True})
            await page.until(f"innerWidth === 390 && {plots}.every(p => p.layout.width <= 362)")
            assert await page.value("document.documentElement.scrollWidth") <= 390
            assert [url for url in page.requested if not url.startswith(("file:", "data:", "blob:"))] == []
            assert page.problems == []


@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_a_hostile_run_file_is_text_and_nothing_else(tmp_path: Path) -> None:
    run = tradeoffs()
    evil = "</script><script>evil = 1</script><!--<script><img src=x onerror='evil = 1'> &lt;b&gt;"
    run["results"]["model"]["id"] = run["provenance"]["cpu"] = evil
    for i, row in enumerate(run["results"]["latency"]):
        row["setting"] = f"{evil} {i}"
    (tmp_path / "run.json").write_text(json.dumps(run), "utf-8")
    write_page(tmp_path / "run.json", tmp_path / "run.html")

    async def look() -> None:
        binary = chromium()
        assert binary is not None
        async with browsing(binary) as page:
            await page.open((tmp_path / "run.html").as_uri())
            await page.until("document.querySelector('.figure .main-svg')")
            assert await page.value("typeof evil") == "undefined"
            assert await page.value("document.querySelectorAll('#report img').length") == 0
            assert evil in await page.value("document.querySelector('#report .legend').textContent")
            assert evil in await page.value("document.querySelector('#report .facts').textContent")
            assert page.problems == []

    asyncio.run(look())


def test_words_are_made_anew_and_a_reports_own_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(tradeoffs() | {"report": {"version": 1, "title": "mine"}}), "utf-8")
    found = read_reported(path)
    assert found["report"]["title"] == "The trade-offs of batching"
    assert bare(found) == tradeoffs()


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: str(shown.kind))
def test_a_damaged_run_file_is_a_sentence(tmp_path: Path, shown: Shown) -> None:
    whole: dict[str, Any] = json.loads(source(shown, tmp_path).read_text("utf-8"))
    path = tmp_path / "damaged.json"
    damages: tuple[dict[str, Any], ...] = ({"results": {}}, {"results": [{}]}, {"config": None}, {"results": None})
    for damage in damages:
        kept = {"kind": shown.kind} | whole | damage
        path.write_text(json.dumps(kept), "utf-8")
        if shown.kind == "tradeoffs" and "config" in damage:
            continue  # it says nothing of how it was asked for
        with pytest.raises(ConfigError, match=r"damaged\.json|nothing to draw"):
            read_reported(path)


def test_numbers_that_json_does_not_have_make_no_page(tmp_path: Path) -> None:
    run = tradeoffs()
    run["results"]["latency"][0]["e2e_p95_ms"] = float("nan")
    (tmp_path / "run.json").write_text(json.dumps(run), "utf-8")
    with pytest.raises(ConfigError, match="not finite"):
        write_page(tmp_path / "run.json", tmp_path / "run.html")


def test_the_command_writes_a_page_and_refuses_what_has_no_report(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ridgeline", "report", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)

    done = run(str(H100 / "http.json"), "--output", str(tmp_path / "out.html"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Serving under load: ")
    assert '"ttft_ms"' in (tmp_path / "out.html").read_text("utf-8")
    for words, said in (
        ((str(H100 / "start.json"), "--output", str(tmp_path / "out.html")), "there are reports of: ladder"),
        ((str(tmp_path / "none.json"),), "cannot be read"),
        ((str(H100 / "http.json"), "--output", str(tmp_path / "no" / "out.html")), "cannot be written"),
    ):
        refused = run(*words)
        assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
        assert said in refused.stderr
