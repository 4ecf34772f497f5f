"""The example in docs/policies.md is code that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ridgeline.core.options import BatchingOptions
from ridgeline.core.types import Sampling
from tests.scheduler.stage import Stage
from tests.scripted import naive

PAGE = Path(__file__).parent.parent.parent / "docs" / "policies.md"


def test_the_documented_policy_seats_the_shortest_prompt_first() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102
    policy = found["ShortestPromptFirst"].of(BatchingOptions())
    stage = Stage(policy, slots=1)
    running = stage.submit(prompt=4)
    stage.step()
    long, short, middle = (stage.submit(prompt=length) for length in (9, 2, 5))
    stage.run()
    order = sorted(stage.ends, key=lambda key: stage.ends[key].timings.admitted_ns)
    assert order == [running, short, middle, long]
    assert stage.tokens[long] == naive(range(9), 3, Sampling())
