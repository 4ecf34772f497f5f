"""Log-probabilities of prompts and outputs are those of transformers' float32 logits, however the work was cut."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

from ridgeline import LLM, SamplingParams
from ridgeline.core.logprobs import TokenLogprob
from tests.oracle.oracle import Case, demo, random_prompts, switches_for, tiny_model
from tests.switches import Row

TOLERANCE = 1e-4
_PAGED: Row = {"kv_cache": "paged", "prefix_cache": False, "launches_in_flight": 1, "max_steps_per_visit": 1}
ROWS: tuple[Row, ...] = (
    _PAGED | {"batching": "continuous", "packing": "ragged", "chunked_prefill": False, "block_size": 16},
    _PAGED | {"batching": "dynamic", "packing": "padded", "chunked_prefill": False, "block_size": 16},
    _PAGED | {"batching": "continuous", "packing": "padded", "chunked_prefill": True, "block_size": 4},
    {
        "batching": "continuous", "packing": "ragged", "chunked_prefill": True, "block_size": 4, "kv_cache": "paged",
        "prefix_cache": True, "launches_in_flight": 2, "max_steps_per_visit": 4,
    },
    _PAGED | {"batching": "continuous", "packing": "ragged", "chunked_prefill": False, "kv_cache": "none",
              "block_size": 16},
)  # fmt: skip


def differs(found: list[TokenLogprob], table: torch.Tensor, tokens: list[int], most: int) -> float:
    """The largest difference to the table [tokens, vocab], in the tokens' values and in those of the likeliest."""
    assert [one.token_id for one in found] == tokens
    assert all(len(one.top) == most for one in found)
    own = torch.tensor([one.logprob for one in found]) - table[torch.arange(len(tokens)), torch.tensor(tokens)]
    ids = torch.tensor([[token for token, _ in one.top] for one in found])
    tops = torch.tensor([[value for _, value in one.top] for one in found])
    assert all(dict(one.top).get(one.token_id, one.logprob) == one.logprob for one in found)
    by_id, by_rank = tops - table.gather(-1, ids), tops - table.topk(most, -1).values
    return float(torch.cat((own, by_id.ravel(), by_rank.ravel())).abs().max())


@pytest.mark.parametrize("model", ["demo", "tiny"])
def test_log_probabilities(model: str, tmp_path: Path) -> None:
    reference, folder = demo() if model == "demo" else tiny_model(2, tmp_path / "model")
    case = Case(prompts=12, longest=40, new=10, seed=1)
    prompts = random_prompts(random.Random(case.seed), case.prompts, reference.config.vocab_size, case.longest)
    each = [
        SamplingParams(
            max_tokens=case.new, temperature=n % 3 / 2, ignore_eos=True, seed=n, logprobs=1 + n % 4,
            prompt_logprobs=1 + n % 3, frequency_penalty=n % 2 / 2, logit_bias=((7, 2.0),) if n % 4 else (),
        )
        for n in range(case.prompts)
    ]  # fmt: skip
    which = switches_for(reference, case, ROWS)
    made: list[list[int]] | None = None
    for switch in which:
        options: dict[str, Any] = {"max_model_len": case.longest + case.new} | switch.options
        llm = LLM(str(folder), dtype="float32", device="cpu", **options)
        found = llm.generate(prompts, each)
        assert bool(llm.counters.preemptions) == switch.preempts
        made = made or [one.token_ids for one in found]
        assert [one.token_ids for one in found] == made, "the same seeds, the same tokens, penalties or not"
        for params, one in zip(each, found, strict=True):
            table = _table(reference, one.prompt_ids + one.token_ids)
            ends = len(one.prompt_ids) - 1
            assert one.logprobs is not None
            assert one.prompt_logprobs is not None
            assert one.prompt_logprobs[0] is None
            scored = [token for token in one.prompt_logprobs if token is not None]
            assert differs(one.logprobs, table[ends:-1], one.token_ids, params.logprobs or 0) < TOLERANCE
            if ends:
                most = params.prompt_logprobs or 0
                assert differs(scored, table[:ends], one.prompt_ids[1:], most) < TOLERANCE


@torch.inference_mode()
def _table(reference: GPT2LMHeadModel, ids: list[int]) -> torch.Tensor:
    return torch.log_softmax(reference(torch.tensor([ids])).logits[0].float(), -1)
