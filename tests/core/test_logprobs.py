"""Log-probabilities by token, whatever the pieces they came in."""

from __future__ import annotations

import numpy as np

from ridgeline.core.logprobs import LogprobCollector, TokenLogprob
from ridgeline.core.types import Scores


def scores(first: int, tokens: list[int], *, prompt: bool = False, k: int = 3, shift: float = 0.0) -> Scores:
    """Each token is the second likeliest; the values are its own."""
    ids = np.array([[t + 100, t, *range(200, 198 + k)][:k] for t in tokens], np.int32).reshape(len(tokens), k)
    values = np.array([[-t / 4 + shift, -t / 2 + shift, *range(-90, -92 + k, 1)][:k] for t in tokens], np.float32)
    own = np.array([-t / 2 + shift for t in tokens], np.float32)
    return Scores(7, prompt, first, np.array(tokens, np.int32), own, ids, values.reshape(len(tokens), k))


def test_output_comes_in_order_and_cut_to_what_was_asked() -> None:
    collector = LogprobCollector(2, None)
    collector.add(scores(9, [4]))
    collector.add(scores(10, [6, 8]))
    assert collector.output == [TokenLogprob(t, -t / 2, ((t + 100, -t / 4), (t, -t / 2))) for t in (4, 6, 8)]
    assert collector.prompt == []
    alone = LogprobCollector(0, None)
    alone.add(scores(9, [4], k=0))
    alone.add(scores(10, [6]))
    assert alone.output == [TokenLogprob(4, -2.0, ()), TokenLogprob(6, -3.0, ())]


def test_a_prompt_scored_again_changes_nothing() -> None:
    collector = LogprobCollector(None, 1)
    collector.add(scores(1, [4, 6], prompt=True))
    collector.add(scores(1, [4], prompt=True, shift=0.5))  # preempted here, and computed again in other chunks
    collector.add(scores(2, [6, 8, 2], prompt=True, shift=0.5))
    assert [token.token_id for token in collector.prompt] == [4, 6, 8, 2]
    assert [token.logprob for token in collector.prompt] == [-2.0, -3.0, -3.5, -0.5]
    assert [len(token.top) for token in collector.prompt] == [1] * 4
