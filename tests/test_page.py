"""The page of `ridgeline serve` before the bundled model: what a person sees is what the engine did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.browser import Page, browsing, chromium
from tests.test_online import served

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")]

WIDE, TALL = 1240, 900
# Forty-eight blocks of 128 KiB for eight seats: too few, so that somebody is preempted.
SCARCE = ("--model", "demo", "--max-num-seqs", "8", "--max-num-batched-tokens", "64", "--max-model-len", "512")
# A browser opens six connections, of which one is the live stream's: two generations each, to take all seats.
LOAD = """(() => { for (let i = 0; i < 12; i += 1) fetch('/v1/completions', {method: 'POST',
    headers: {'Content-Type': 'application/json'}, body: JSON.stringify(
        {prompt: 'The little dog ran '.repeat(3 + i * 2), max_tokens: 30 + 13 * i, seed: i, n: 2, temperature: 1})});
})()"""


def at(name: str) -> str:
    return f"document.getElementById('{name}')"


def test_a_person_sees_why_a_request_was_slow(picture: Callable[[str], Path]) -> None:
    with served(*SCARCE, "--kv-memory", "6MiB") as server:
        asyncio.run(_see(server.url, picture))


def test_a_person_guesses_what_batching_gains(picture: Callable[[str], Path]) -> None:
    with served("--model", "demo", "--kv-memory", "256MiB") as server:
        asyncio.run(_learn(server.url, picture))


async def _learn(url: str, picture: Callable[[str], Path]) -> None:
    binary = chromium()
    assert binary is not None
    async with browsing(binary) as page:
        await page.open(url + "/#learn")
        await page.until(f"document.querySelectorAll('#quiz article').length === 8 && !{at('seats-run')}.disabled")
        for i, times in enumerate(("1.9", "3.5", "6", "9")):
            field = f"document.querySelectorAll('#burst-guess input')[{i}]"
            await page.value(f"{field}.value = '{times}'; {field}.dispatchEvent(new Event('input'))")
        await page.value(f"{at('burst-run')}.click()")
        async with asyncio.timeout(90):  # it ends by itself before that, however busy the machine is
            while not await page.value(f"{at('burst-run')}.textContent === 'Run again'"):
                await asyncio.sleep(0.1)
        rates = await page.value("[...document.getElementById('burst-rate').cells].map(cell => cell.textContent)")
        assert all(int("".join(rate.split())) > 0 for rate in rates[1:])
        assert "you guessed 9x, this server says" in await page.value(f"{at('burst-told')}.textContent")
        await page.value(f"{at('seats-guess')}.value = '40'; {at('seats-run')}.click()")
        await page.until(f"!{at('seats-look')}.hidden")
        assert "240 tokens in " in await page.value(f"{at('seats-told')}.textContent")
        for number, guess in ((1, "8"), (2, "2")):
            await page.value(f"{at(f'guess-{number}')}.value = '{guess}'; {at(f'guess-{number}')}.form.requestSubmit()")
        await page.value("document.activeElement.blur()")
        await page.picture(picture("page-learn.png"), WIDE, TALL, "light")
        assert [one for one in page.requested if not one.startswith((url, "data:", "blob:"))] == []
        assert page.problems == []


async def _see(url: str, picture: Callable[[str], Path]) -> None:
    binary = chromium()
    assert binary is not None
    async with browsing(binary) as page:
        await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        await page.call(
            "Emulation.setDeviceMetricsOverride", width=WIDE, height=TALL, deviceScaleFactor=1, mobile=False
        )
        await page.open(url)
        await page.until(f"!{at('generate')}.disabled")
        await _ask(page, picture)
        await _watch(page, picture)
        await _replay(page, picture)
        assert [one for one in page.requested if not one.startswith((url, "data:", "blob:"))] == []
        assert page.problems == []


async def _ask(page: Page, picture: Callable[[str], Path]) -> None:
    await page.value(f"{at('seed')}.value = '5'; {at('max_tokens')}.value = '90'; {at('generate')}.click()")
    await page.until(f"{at('finish')}.textContent === 'max tokens' && !{at('why')}.hidden")
    wall, parts = await page.value(
        "fetch('/v1/requests').then(r => r.json()).then(r => fetch('/v1/requests/' + r.data[0].id)).then(r => r.json())"
        ".then(r => [r.generations[0].wall_ms, r.generations[0].parts.map(part => part.ms)])"
    )
    assert sum(parts) == pytest.approx(wall, abs=0.01)
    await page.value("document.querySelectorAll('#output .token')[24].focus()")
    await page.picture(picture("page-playground.png"), WIDE, TALL, "light")


async def _watch(page: Page, picture: Callable[[str], Path]) -> None:
    await page.value("location.hash = 'live'")
    await page.until(f"{at('live-state')}.dataset.state === 'open'")
    await page.value(LOAD)
    done = "[...document.querySelectorAll('#requests tbody tr')].filter(row => row.cells[1].textContent === 'done')"
    for most in range(2, 14):  # the answer before, and twelve more
        await page.until(f"{done}.length >= {most}")
    assert await page.value("Math.max(...document.querySelector('.plot').data[0].y)") > 0
    await page.picture(picture("page-live.png"), WIDE, TALL, "light")


async def _replay(page: Page, picture: Callable[[str], Path]) -> None:
    await page.value("location.hash = 'recording'")
    await page.until(f"{at('tape-title')}.textContent.includes('160 steps')")
    await page.value(  # all of it, as a file
        "fetch('/v1/recording?steps=4096').then(r => r.blob()).then(tape => { const files = new DataTransfer();"
        " files.items.add(new File([tape], 'run.json')); const field = document.getElementById('file');"
        " field.files = files.files; field.dispatchEvent(new Event('change')); })"
    )
    await page.until(f"{at('scrub')}.value === '0'")
    column = await page.value(
        "fetch('/v1/recording?steps=4096').then(r => r.json()).then(tape => tape.steps.serial.indexOf("
        "tape.lives.serial[tape.lives.what.indexOf(tape.whats.indexOf('preempted'))]))"
    )
    assert column > 0, "somebody was preempted"
    to = json.dumps(str(column + 30))
    await page.value(f"{at('scrub')}.value = {to}; {at('scrub')}.dispatchEvent(new Event('input'))")
    assert await page.value(f"{at('follow')}.getAttribute('aria-pressed')") == "false"
    await page.value(f"{at('pipeline')}.focus()")
    await page.press("ArrowLeft")
    assert "step" in await page.value(f"{at('cell')}.textContent")
    await page.picture(picture("page-recording.png"), WIDE, TALL, "light")
    await page.value(f"{at('theme')}.click(); {at('theme')}.click()")
    await page.picture(picture("page-dark.png"), WIDE, TALL, "light")
    await page.picture(picture("page-phone.png"), 390, 844, "light")
