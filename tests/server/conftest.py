from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.server.live import Live, Stage, serving


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server for the tests that only ask. Tests that hold or break the engine start their own with serving()."""
    with serving(Stage(profiles=tmp_path_factory.mktemp("profiles"))) as live:
        yield live


@pytest.fixture
def client(live: Live) -> OpenAI:
    return live.openai
