"""The ladder's page as a person sees it: a bar for each rung, a table, no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ridgeline.core.report import reported
from ridgeline.lab.ladder.file import read
from ridgeline.lab.ladder.page import told
from ridgeline.lab.ladder.verdict import lines
from ridgeline.lab.report import page
from tests.lab.ladders import Row, document
from tests.server.browser import browsing, chromium

RECORDS = Path(__file__).parent.parent.parent / "records"


def newest() -> Row:
    """A recorded climb, so that the picture in docs/ shows a machine; a hand-made one until there is a record."""
    recorded = sorted(RECORDS.glob("*-cpu/ladder.json"))
    if recorded:
        return read(recorded[-1])
    return document({"name": "low", "rates": [1.0] * 5}, {"name": "high", "rates": [2.0] * 5})


@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_a_person_looks_at_a_ladder(tmp_path: Path, picture: Callable[[str], Path]) -> None:
    shown = newest()
    (tmp_path / "index.html").write_text(page(reported(shown, told(shown))), encoding="utf-8")
    climbed = [line.title for line in lines(shown["results"]) if line.verdict != "skipped"]
    asyncio.run(_look(tmp_path / "index.html", picture("ladder.png"), climbed))
    assert picture("ladder.png").read_bytes().startswith(b"\x89PNG")


async def _look(path: Path, shot: Path, climbed: list[str]) -> None:
    binary = chromium()
    assert binary is not None
    async with browsing(binary) as tab:
        await tab.open(path.as_uri())
        await tab.until(f"document.querySelectorAll('.barlayer .point').length === {len(climbed)}")
        await tab.picture(shot, 1240, 900, "light")
        rows = (
            "[...document.querySelectorAll('#report tbody')[0].querySelectorAll('tr')].map(r => r.cells[0].textContent)"
        )
        assert await tab.value(rows) == climbed
        assert [url for url in tab.requested if not url.startswith(("file:", "data:", "blob:"))] == []
        assert tab.problems == []
