"""The roofline's page as a person sees it: drawn by a browser without a network, filtered by a click."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ridgeline.lab.ledger.file import Ledger, read_ledger
from ridgeline.lab.roofline.roofline import PAGE, write
from tests.lab.ledgers import ledger
from tests.server.browser import browsing, chromium

RECORDS = Path(__file__).parent.parent.parent / "records"


def newest() -> Ledger:
    """A recorded run, so that the picture in docs/ shows a machine; the hand-made one until there is a record."""
    recorded = sorted(RECORDS.glob("*-cpu/roofline.json"))
    return read_ledger(recorded[-1]) if recorded else ledger()


@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_a_person_looks_at_a_roofline(tmp_path: Path, picture: Callable[[str], Path]) -> None:
    write(newest(), tmp_path)
    asyncio.run(_look(tmp_path / PAGE, picture("roofline.png")))
    assert picture("roofline.png").read_bytes().startswith(b"\x89PNG")


async def _look(path: Path, shot: Path) -> None:
    binary = chromium()
    assert binary is not None
    plot = "document.querySelector('.figure')"
    entry = "[...document.querySelectorAll('.legend button')].find(e => e.textContent === 'attention')"
    marks = f"{plot}.querySelectorAll('.scatterlayer .points path').length"
    async with browsing(binary) as page:
        await page.open(path.as_uri())
        await page.until(f"{plot}.querySelectorAll('.scatterlayer .points path').length > 8")
        points = f"{plot}.data.filter(t => t.mode !== 'lines').reduce((sum, t) => sum + t.x.length, 0)"
        assert await page.value(f"{marks} === {points}")
        await page.picture(shot, 1240, 900, "light")
        before = await page.value(marks)
        await page.value(f"{entry}.click()")
        await page.until(f"{marks} < {before}")
        hidden = await page.value(f"{plot}.data.filter(t => t.visible === false).map(t => t.name)")
        assert set(hidden) == {"attention"}
        assert await page.value(f"{entry}.getAttribute('aria-pressed')") == "false"
        await page.value("document.querySelector('#report summary').click()")
        rows = await page.value("document.querySelectorAll('#report tbody tr').length")
        assert rows == await page.value(f"{points} - {plot}.data.find(t => t.name === 'ridge points').x.length")
        assert [url for url in page.requested if not url.startswith(("file:", "data:", "blob:"))] == []
        assert page.problems == []
