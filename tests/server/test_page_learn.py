"""The page's Learn section: a guess first, then what this server, or a reference machine, says."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Sequence

import pytest
from starlette.responses import JSONResponse
from starlette.routing import Route

from ridgeline.lab.learn.chapter import judged
from ridgeline.server.limits import Limits
from ridgeline.server.manners import Manners
from tests.server.browser import Page, browsing, chromium
from tests.server.live import Live, Stage, serving
from tests.server.test_page import at, go, narrow, wide

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")

Use = Callable[[Page, Live], Awaitable[None]]
STATE, TOLD = f"{at('burst-state')}.textContent", f"{at('burst-told')}.innerText"
GUESSES = "[...document.querySelectorAll('#burst-guess input')].map(field => field.value)"


def learning(use: Use, stage: Stage | None = None, limits: Limits | None = None, routes: Sequence[Route] = ()) -> None:
    """Use the section; afterwards the page must have complained about nothing and asked nobody but its server."""

    async def browse(live: Live) -> None:
        binary = chromium()
        assert binary is not None
        async with browsing(binary) as page:
            await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
            await page.open(live.url)
            await page.until(f"!{at('generate')}.disabled")
            assert not any("course.json" in url for url in page.requested), "questions are loaded when they are wanted"
            await wide(page)
            await go(page, "learn")
            await page.until("document.querySelectorAll('#quiz article').length === 8")
            await use(page, live)
            elsewhere = [url for url in page.requested if not url.startswith((live.url, "data:", "blob:"))]
            assert (elsewhere, page.problems) == ([], [])

    with serving(stage, manners=Manners(limits=limits or Limits()), routes=routes) as live:
        asyncio.run(browse(live))


async def write(page: Page, many: int, times: str) -> None:
    field = f"document.querySelector('#burst-guess [aria-label^=\"Guess for {many} at once\"]')"
    await page.value(f"{field}.value = {json.dumps(times)}; {field}.dispatchEvent(new Event('input'))")


async def guess_and_run(page: Page) -> None:
    await write(page, 16, "8")
    await page.value(f"{at('burst-run')}.click()")


def test_a_guess_is_drawn_moved_by_keys_or_written() -> None:
    async def use(page: Page, live: Live) -> None:
        assert await page.value(f"{at('burst-run')}.disabled && {STATE} === 'Guess first.'")
        await write(page, 16, "8")  # those before it lie on the line to it
        assert await page.value(GUESSES) == ["1.7", "2.8", "4.8", "8"]
        assert await page.value(f"!{at('burst-run')}.disabled")
        await page.value("document.querySelectorAll('#curve [role=slider]')[1].focus()")
        await page.press("ArrowUp")
        await page.press("ArrowRight")
        await page.press("ArrowDown")
        assert await page.value(GUESSES) == ["1.8", "3.1", "4.6", "8"]
        assert await page.value("document.activeElement.getAttribute('aria-valuetext')") == "4.6 times"
        await page.value("document.activeElement.scrollIntoView({block: 'center'})")
        x, y, width = await page.value(
            "(box => [box.x, box.y, box.width])(document.querySelector('#curve svg').getBoundingClientRect())"
        )
        across = [x + 84 + (width - 84) * (index + 0.5) / 5 for index in (1, 4)]
        for kind, where in (("mousePressed", across[0]), ("mouseMoved", across[1]), ("mouseReleased", across[1])):
            mouse = {"x": where, "y": y + 20, "button": "left", "buttons": 1, "clickCount": 1}
            await page.call("Input.dispatchMouseEvent", type=kind, **mouse)
        drawn = [float(one) for one in await page.value(GUESSES)]
        assert drawn == [drawn[0], 3.1, 4.6, drawn[0]]
        assert 16 < drawn[0] <= 24
        await write(page, 4, "many")
        assert await page.value("document.querySelectorAll('#burst-guess [aria-invalid=true]').length") == 1
        await page.value(f"{at('burst-afresh')}.click()")
        assert await page.value(GUESSES) == [""] * 4
        assert await page.value(f"{at('burst-run')}.disabled")
        await narrow(page)

    learning(use)


def test_a_server_whose_steps_take_as_long_for_all_gives_as_many_times_the_tokens() -> None:
    stage = Stage()
    stage.runner.step_s = 0.004

    async def use(page: Page, live: Live) -> None:
        await guess_and_run(page)
        await page.until(f"{STATE}.startsWith('Done')")
        told = await page.value(TOLD)
        found = re.search(r"you guessed 8x, this server says ([\d.]+)x: .*too low", told)
        assert found, told
        assert 8 < float(found[1]) < 24
        assert "every weight is read once" in told
        assert max(stage.runner.rows) == 16
        assert all(one.temperature == 0 for one in stage.runner.samplings)
        assert await page.value("document.querySelectorAll('#curve .dot').length") == 5
        await write(page, 16, "2")  # it stands once the answer is known
        assert await page.value(f"{TOLD}.includes('you guessed 8x')")
        await narrow(page)

    learning(use, stage)


@pytest.mark.parametrize("leave", [f"{at('burst-stop')}.click()", "location.hash = 'live'"])
def test_an_experiment_ends_when_it_is_stopped_or_left(leave: str) -> None:
    stage = Stage()

    async def use(page: Page, live: Live) -> None:
        stage.runner.hold()
        await guess_and_run(page)
        await asyncio.to_thread(stage.runner.collecting.wait, 10)
        assert await page.value(f"{at('seats-run')}.disabled"), "one at a time"
        await page.value(leave)
        await page.until(f"{STATE}.startsWith('Stopped') && {at('burst-stop')}.disabled")
        for _ in range(2):  # the two that warm up
            assert await asyncio.to_thread(stage.aborted.get, timeout=10)
        stage.runner.open()

    learning(use, stage)


def test_what_was_measured_before_a_refusal_stands() -> None:
    async def use(page: Page, live: Live) -> None:
        await guess_and_run(page)
        await page.until(f"{STATE}.includes('stands')")
        refused = "The server refused it: prompt: 16 generations; this server lets at most 8 wait."
        assert await page.value(STATE) == f"{refused} What was measured stands."
        assert (await page.value(TOLD)).startswith("8 requests at once: you guessed 4.8x, this server says")

    learning(use, limits=Limits(queued_requests=8))


@pytest.mark.parametrize(
    ("status", "kind", "message", "words"),
    [
        (429, "requests", "8 requests are waiting", "The server takes no more now: 8 requests are waiting."),
        (503, "service_unavailable", "the server is stopping", "the server is stopping."),
    ],
)
def test_a_server_that_is_full_or_stops_says_so(status: int, kind: str, message: str, words: str) -> None:
    refusal = JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
    full = Route("/v1/completions", lambda _: refusal, methods=["POST"])

    async def use(page: Page, live: Live) -> None:
        await guess_and_run(page)
        await page.until(f"{STATE} === {json.dumps(words)}")
        assert await page.value(f"!{at('burst-run')}.disabled")

    learning(use, routes=[full])


def test_empty_seats_are_counted_and_shown_in_the_recording() -> None:
    stage = Stage()
    stage.runner.step_s = 0.01  # so that they come within a few steps of one another

    async def use(page: Page, live: Live) -> None:
        await page.value(f"{at('seats-guess')}.value = 'none'; {at('seats-run')}.click()")
        assert await page.value(f"{at('seats-state')}.textContent") == "Guess first: a number above 0."
        await page.value(f"{at('seats-guess')}.value = '53'; {at('seats-run')}.click()")
        await page.until(f"!{at('seats-look')}.hidden")
        told = await page.value(f"{at('seats-told')}.innerText")
        assert re.search(r"You guessed 53 %, the recording says [56]\d(\.\d)? %: well reckoned", told), told
        assert "240 tokens in " in told
        await page.value(f"{at('seats-look')}.click()")
        await page.until(f"{at('tape-title')}.textContent.includes('8 requests')")
        assert await page.value("location.hash") == "#recording"
        assert await page.value(f"{at('follow')}.getAttribute('aria-pressed')") == "false"

    learning(use, stage)


def test_a_question_is_answered_after_a_guess() -> None:
    card = "document.querySelectorAll('#quiz article')[0]"

    async def use(page: Page, live: Live) -> None:
        course = await page.value("fetch('/assets/course.json').then(response => response.json())")
        assert not await page.value(f"{card}.innerText.includes('H100')")
        await page.value(f"{at('guess-1')}.focus()")
        await page.value(f"{at('guess-1')}.form.requestSubmit()")
        assert "a number above 0" in await page.value(f"{card}.innerText")
        await page.value(f"{at('guess-1')}.value = '9,5'")
        await page.press("Enter")
        shown = await page.value(f"{card}.innerText")
        for one in course[0]["answers"]:
            assert judged(9.5, one["answer"], "x").replace("this machine", one["machine"]) in shown
        assert (await page.value(f"{at('quiz-score')}.textContent")).startswith("1 of 8 guessed")
        await page.value(
            "navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); };"
            f"{card}.querySelector('.command button').click()"
        )
        await page.until("window.copied")
        assert await page.value("window.copied") == "ridgeline learn 1 --guess 9.5"
        await page.value(f"{at('theme')}.click(); {at('theme')}.click()")
        await narrow(page)

    learning(use)


def test_a_guess_is_judged_as_the_command_judges_it() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    # In the middle between two roundings, at the bounds of the words, and far from 1.
    pairs = [
        (12.25, 9.8),
        (1.125, 0.5),
        (1225.0, 100.0),
        (9.0, 4.0),
        (1.25, 1.0),
        (2.0, 1.0),
        (999.6, 1e-5),
        (8.0, 0.0),
    ]
    pairs += [(10 ** chance.uniform(-6, 6), 10 ** chance.uniform(-6, 6)) for _ in range(300)]
    near = [(a * chance.uniform(0.4, 2.5), a) for a, _ in pairs if a]
    pairs += [(round(guess, 2) or 1.0, answer) for guess, answer in near]
    expected = [judged(guess, answer, "x") for guess, answer in pairs]

    async def use(page: Page, live: Live) -> None:
        said = await page.value(
            f"import('/assets/guess.js').then(({{judged}}) => {json.dumps(pairs)}.map(one => judged(...one, 'x')))"
        )
        assert said == expected

    learning(use)
