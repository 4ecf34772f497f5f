"""The page as a person uses it: asking, watching, replaying; by mouse and by keyboard, on a desk and on a phone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ridgeline.core.flightfile import read_recording
from ridgeline.core.report import reported
from ridgeline.core.saved import saved_page
from ridgeline.lab.ladder.page import told
from ridgeline.lab.pipeline.cells import KINDS, Pipeline
from ridgeline.lab.report import page as report_page
from ridgeline.server.manners import Manners
from tests.lab.ladders import document as ladder
from tests.lab.test_pipeline import RECORDING
from tests.server.browser import Page, browsing, chromium
from tests.server.live import TEXT, Live, Stage, serving
from tests.server.sights import Sights, event, recording

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")

Use = Callable[[Page, Live], Awaitable[None]]
WIDE, TALL = 1240, 960


def at(name: str) -> str:
    return f"document.getElementById('{name}')"


def using(sights: Sights, use: Use) -> None:
    """Use the page; afterwards it must have complained about nothing and asked nobody but its server."""

    async def browse(live: Live) -> None:
        binary = chromium()
        assert binary is not None
        async with browsing(binary) as page:
            await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
            await page.open(live.url)
            await page.until(f"!{at('generate')}.disabled")
            await use(page, live)
            elsewhere = [url for url in page.requested if not url.startswith((live.url, "data:", "blob:"))]
            assert (elsewhere, page.problems) == ([], [])

    with serving(Stage(), routes=sights.routes(), manners=Manners()) as live:
        asyncio.run(browse(live))


async def go(page: Page, section: str) -> None:
    await page.value(f"document.querySelector('#tabs [href=\"#{section}\"]').click()")
    await page.until(f"!document.querySelector('[data-section={section}]').hidden")


async def narrow(page: Page) -> None:
    """To a phone's width, where nothing may stand out to the side."""
    await page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    await page.until("innerWidth === 390 && document.documentElement.scrollWidth <= 390")


async def wide(page: Page) -> None:
    await page.call("Emulation.setDeviceMetricsOverride", width=WIDE, height=TALL, deviceScaleFactor=1, mobile=False)
    await page.until(f"innerWidth === {WIDE}")


async def ask(page: Page, prompt: str) -> None:
    for field, value in (("prompt", prompt), ("temperature", "0"), ("max_tokens", "60")):
        await page.value(f"{at(field)}.value = {json.dumps(prompt if field == 'prompt' else value)}")
    await page.value(f"{at('generate')}.click()")
    await page.until(f"{at('finish')}.textContent === 'max tokens' && !{at('why')}.hidden")


def test_an_answer_explains_its_tokens_and_its_time() -> None:
    async def use(page: Page, live: Live) -> None:
        await wide(page)
        await ask(page, "Tell: ")
        made = "document.querySelector('#output .made')"
        whole = TEXT.encode()[:60].decode(errors="ignore")
        assert await page.value(f"{made}.textContent") == whole
        await page.value(f"{made}.querySelectorAll('.token')[12].focus()")
        await page.press("ArrowRight")
        shown = await page.value(f"!{at('token-card')}.hidden && {at('token-card')}.innerText")
        assert "%" in shown
        assert await page.value(f"document.activeElement === {made}.querySelectorAll('.token')[13]")
        assert "went into" in await page.value("document.querySelector('#why .verdict').textContent")
        rows = await page.value("[...document.querySelectorAll('#why [role=rowheader]')].map(e => e.textContent)")
        assert {"queued", "prefill", "decode"} <= set(rows)
        await narrow(page)

    using(Sights(), use)


def test_a_conversation_goes_on_and_can_be_copied_as_code() -> None:
    async def use(page: Page, live: Live) -> None:
        await page.value("document.querySelector('[value=chat]').click()")
        await ask(page, "Who are you?")
        await ask(page, "And then?")
        assert await page.value("document.querySelectorAll('#output .turn.user').length") == 2
        await page.value(
            "navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); };"
            f"{at('prompt')}.value = 'It\\'s \"me\"'; {at('top_k')}.value = '7'; {at('seed')}.value = '{2**60 + 1}'"
        )
        await page.value(f"{at('copy-curl')}.click()")
        await page.until("window.copied")
        body = json.loads((await page.value("window.copied")).split("-d '")[1][:-1].replace("'\\''", "'"))
        assert [one["role"] for one in body["messages"]] == ["user", "assistant", "user", "assistant", "user"]
        assert (body["messages"][-1]["content"], body["seed"]) == ('It\'s "me"', 2**60 + 1)
        await page.value(f"window.copied = ''; {at('copy-python')}.click()")
        await page.until("window.copied")
        code = await page.value("window.copied")
        compile(code, "copied", "exec")
        assert 'extra_body={"top_k":7}' in code
        assert "client.chat.completions.create(" in code

    using(Sights(), use)


def test_charts_move_only_while_somebody_looks() -> None:
    sights = Sights()
    drawn = "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.lines path'))"
    newest = "document.querySelector('.plot').data[0].y.at(-1)"

    async def use(page: Page, live: Live) -> None:
        await wide(page)
        assert not any("plotly" in url for url in page.requested), "charts are loaded when they are wanted"
        await go(page, "live")
        await page.until(drawn)
        assert await page.value(f"{at('live-state')}.textContent") == "Live"
        before = await page.value(newest)
        await page.until(f"{newest} !== {before}")
        assert "measured 24.1 GB/s" in await page.value(f"{at('charts')}.textContent")
        await page.value("document.querySelector('#requests tbody button').focus()")
        await page.press("Enter")
        await page.until("document.querySelector('#details[open] .waterfall')")
        await page.press("Escape")
        await page.until("!document.querySelector('#details[open]')")
        await narrow(page)
        await go(page, "playground")
        await page.until(f"{at('live-state')}.dataset.state === 'closed'")
        await _until(lambda: sights.streams == 0)
        await go(page, "live")
        await page.until(f"{at('live-state')}.dataset.state === 'open'")
        sights.end_streams()
        await page.until(f"{at('live-state')}.textContent.startsWith('Reconnecting in 1 s')")
        await page.until(f"{at('live-state')}.dataset.state === 'open'")
        assert sights.opened == 3

    using(sights, use)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def test_an_hour_of_live_numbers_takes_no_more_memory_than_ten_minutes() -> None:
    async def use(page: Page, live: Live) -> None:
        events = json.dumps([event(index, 0) for index in range(240)])
        await page.value(f"window.told = {events}")
        feed = (
            "import('/assets/live.js').then(live => {{ for (let i = {0}; i < {1}; i += 1)"
            " live.take({{...told[i % 240], at_s: i / 2}}); return live.history.length; }})"
        )
        assert await page.value(feed.format(0, 1500)) <= 1300
        ten_minutes = await page.heap_bytes()
        assert await page.value(feed.format(1500, 7200)) <= 1300
        assert await page.heap_bytes() - ten_minutes < 2**20
        assert await page.value("document.querySelectorAll('#requests tbody tr').length") == 20

    using(Sights(), use)


PUT = (
    "(text => {{ const files = new DataTransfer(); files.items.add(new File([text], 'run.json'));"
    " document.getElementById('file').files = files.files;"
    " document.getElementById('file').dispatchEvent(new Event('change')); }})({0})"
)


def test_a_recording_is_followed_and_replayed() -> None:
    sights = Sights()

    async def use(page: Page, live: Live) -> None:
        await wide(page)
        await go(page, "recording")
        await page.until(f"{at('tape-title')}.textContent.includes('160 steps')")
        asked = sights.asked
        await _until(lambda: sights.asked > asked)  # followed
        await page.value(PUT.format(json.dumps("[]")))
        await page.until(f"!{at('tape-error')}.hidden")
        assert "not a recording" in await page.value(f"{at('tape-error')}.textContent")
        await page.value(PUT.format(json.dumps(json.dumps(recording(90, seed=3)))))
        await page.until(f"{at('tape-title')}.textContent.includes('90 steps') && {at('tape-error')}.hidden")
        assert await page.value(f"{at('follow')}.getAttribute('aria-pressed')") == "false"

        await page.value(f"{at('forth')}.click()")
        assert await page.value(f"{at('scrub')}.value") == "1"
        await page.value(f"{at('speed')}.value = '120'; {at('speed')}.dispatchEvent(new Event('change'))")
        await page.value(f"{at('play')}.click()")
        await page.until(f"{at('scrub')}.value === '89' && {at('play')}.ariaLabel === 'Play'")
        await page.value(f"{at('pipeline')}.focus()")
        await page.press("ArrowDown")
        assert "step 89: decode, positions" in await page.value(f"{at('cell')}.textContent")
        await page.press("ArrowRight")
        await page.press("ArrowLeft")
        assert "step 88: " in await page.value(f"{at('cell')}.textContent")
        await page.value(f"{at('theme')}.click(); {at('theme')}.click()")
        assert await page.value("document.documentElement.dataset.theme") == "dark"
        assert await page.value("getComputedStyle(document.body).backgroundColor") == "rgb(13, 18, 23)"
        await narrow(page)

    using(sights, use)


def test_a_report_is_opened_from_a_file() -> None:
    run = ladder({"name": "low", "rates": [10.0] * 5}, {"name": "high", "rates": [30.0] * 5})
    whole = reported(run, told(run))

    async def use(page: Page, live: Live) -> None:
        await wide(page)
        await go(page, "report")
        assert await page.value(f"{at('download-run')}.disabled")
        for content, said in (
            ("[]", "not a recording"),
            ("{", "is not JSON"),
            (json.dumps(run), "has no report in it"),
            (json.dumps(whole | {"report": {"version": 9}}), "version 9"),
            (json.dumps(whole | {"report": whole["report"] | {"sections": [{}]}}), "damaged"),
        ):
            await page.value(PUT.format(json.dumps(content)))
            await page.until(f"{at('report-error')}.textContent.includes({json.dumps(said)})")
        for content in (json.dumps(whole), report_page(whole)):  # a run file, and a saved page with one in it
            await page.value(PUT.format(json.dumps(content)))
            await page.until(f"document.querySelectorAll('#report .point').length === 2 && {at('report-error')}.hidden")
            assert "3.00 (3.00 to 3.00)" in await page.value(f"{at('report')}.textContent")
            await page.value(
                PUT.format(json.dumps(json.dumps(recording(90, seed=3))))
            )  # what it is says where it opens
            await page.until("location.hash === '#recording'")
            assert "90 steps" in await page.value(f"{at('tape-title')}.textContent")
        await go(page, "report")
        await page.value(f"{at('theme')}.click(); {at('theme')}.click()")
        await narrow(page)

    using(Sights(), use)


def test_many_lines_can_be_told_apart() -> None:
    told = """import('/assets/figures.js').then(({FIGURES}) => {
        const mark = y => ({x: 1, y, hint: '', label: ''});
        const series = [...Array(20).keys()].map(i => ({name: `<b>${i}`, marks: [mark(i + 1)], dash: ''}));
        const {traces} = FIGURES.lines({across: 'a', up: 'b', log: true, series}, {}, 800);
        return traces.map(({name, line, marker}) => [name, line.color + line.dash, marker.symbol]);
    })"""

    async def use(page: Page, live: Live) -> None:
        drawn = await page.value(told)
        assert len({line for _, line, _ in drawn}) == len({symbol for _, _, symbol in drawn}) == 20
        assert drawn[0][0] == "&lt;b&gt;0", "a name is text to the chart library, too"

    using(Sights(), use)


def test_cells_are_those_of_the_command_that_draws_a_recording(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(recording(120, seed=5)), "utf-8")
    run = read_recording(tmp_path / "run.json")
    told = """import('/assets/tape.js').then(({Tape}) => {
        const tape = new Tape(%s);
        return tape.lives.map(life => [life.key, [...Array(tape.length).keys()].map(column => {
            const here = tape.cell(life, column);
            return here ? (here.state === 'window' ? 'queued' : here.state) : 'none';
        })]);
    })"""

    async def use(page: Page, live: Live) -> None:
        for drawn in (RECORDING, RECORDING.between(2, 5), run, run.between(37, 93)):
            shown = await page.value(told % drawn.encoded().decode())
            pipeline = Pipeline.of(drawn)
            names = [[KINDS[cell].name for cell in cells] for cells in pipeline.cells.tolist()]
            assert dict(shown) == dict(zip(pipeline.keys, names, strict=True))

    using(Sights(), use)


def test_a_long_recording_is_drawn_only_where_it_is_seen() -> None:
    async def use(page: Page, live: Live) -> None:
        await page.value(PUT.format(json.dumps(json.dumps(recording(4000)))))
        drawn = """import('/assets/pipeline.js').then(({Pipeline}) => {
            const host = document.getElementById('pipeline').cloneNode();
            Object.assign(host.style, {width: '9000px', height: '3000px'});
            document.body.append(host);
            const diagram = new Pipeline(host, () => {});
            return import('/assets/tape.js').then(async ({Tape}) => {
                diagram.show(new Tape(JSON.parse(await document.getElementById('file').files[0].text())), 2000);
                diagram.draw();
                host.remove();
                return diagram.drawn;
            });
        })"""
        seen = await page.value(drawn)
        assert seen["rows"] == 64
        assert 150 < seen["columns"] <= 300

    using(Sights(), use)


def test_a_recording_is_saved_as_one_page_that_needs_nobody(tmp_path: Path) -> None:
    saved = tmp_path / "saved.html"
    tape = {**recording(50), "reason": "crash", "message": "the device </script><!--<script> fell off the bus"}
    saved.write_text(saved_page(json.dumps(tape), "A run"), "utf-8")

    async def look() -> None:
        binary = chromium()
        assert binary is not None
        async with browsing(binary) as page:
            await page.open(saved.as_uri())
            await page.until(f"{at('tape-title')}.textContent.includes('50 steps')")
            assert "fell off the bus" in await page.value(f"{at('crash')}.textContent")
            await page.value(f"{at('forth')}.click()")
            assert await page.value(f"{at('scrub')}.value") == "1"
            assert not await page.value(f"{at('tabs')}.checkVisibility()")
            assert [url for url in page.requested if not url.startswith(("file:", "data:"))] == []
            assert page.problems == []

    asyncio.run(look())
