"""Log-probabilities through random traffic: each token's once, in order, whatever was cut, preempted or lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from ridgeline.core.logprobs import LogprobCollector
from ridgeline.core.types import Events, NewRequest
from tests.scheduler.cases import Case, cases
from tests.scheduler.traffic import Trial
from tests.scripted import naive_logprobs

# (logprobs, prompt_logprobs), by key
WANTED = [(0, 2), (None, None), (3, None), (1, 0), (None, 5), (20, 20)]


def curious(request: NewRequest) -> NewRequest:
    output, prompt = WANTED[request.key % len(WANTED)]
    return replace(request, sampling=replace(request.sampling, logprobs=output, prompt_logprobs=prompt))


class ScoredTrial(Trial):
    """A case whose requests ask for log-probabilities, and what came of them."""

    def __init__(self, case: Case) -> None:
        super().__init__(replace(case, requests=tuple(map(curious, case.requests))))
        self.collectors = {
            r.key: LogprobCollector(r.sampling.logprobs, r.sampling.prompt_logprobs) for r in self.case.requests
        }

    def _sink(self, events: Events) -> None:
        for scores in events.scores:
            assert scores.owner not in self.ends
            self.collectors[scores.owner].add(scores)
            self.seen["scored"] += 1
        super()._sink(events)
        for request in self.case.requests:
            scored = len(self.collectors[request.key].output)
            assert request.sampling.logprobs is None or scored == len(self.streams[request.key]), "with their tokens"

    def _verify(self) -> None:
        super()._verify()
        for request in self.case.requests:
            asked, collector = request.sampling, self.collectors[request.key]
            prompt, made = request.prompt_ids.tolist(), self.streams[request.key]
            if asked.logprobs is None:
                assert collector.output == []
            else:
                want = naive_logprobs(prompt + made, asked.logprobs, first=len(prompt))
                assert collector.output == want
            if asked.prompt_logprobs is None:
                assert collector.prompt == []
            else:
                want = naive_logprobs(prompt, asked.prompt_logprobs)
                whole = len(want) if made else len(collector.prompt)  # else it was aborted before its prompt was done
                assert collector.prompt == want[:whole]


@pytest.mark.parametrize(("kind", "runs"), [("continuous", 250), ("dynamic", 100)])
def test_scores_come_once_and_in_order(kind: str, runs: int) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=runs, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(cases(kind))
    def run(case: Case) -> None:
        # What the prefix cache has is not computed, and so not scored.
        seen.update(ScoredTrial(replace(case, shared=False)).run())

    run()
    for what in ("scored", "overlapped", "several iterations", "preempted", "crashed", "dropped"):
        assert seen[what], what
