"""Changes of logits before a token is chosen: penalties for what stands there already, and biases. Row by row."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor


def penalize(
    logits: Tensor, tokens: Tensor, lengths: Tensor, prompts: Tensor, repetition: Tensor, presence: Tensor,
    frequency: Tensor,
) -> Tensor:  # fmt: skip
    """logits: [rows, vocab] float32. tokens: [rows, n], prompt and output, valid below `lengths`; the output starts at
    `prompts`. The rest [rows]. Returns new logits.

    Tokens of prompt or output: a positive logit is divided by the repetition penalty, a negative one multiplied (Keskar
    et al. 2019). Tokens of the output, as OpenAI's API has it: minus presence, minus frequency for each time.
    Counts are sums of ones, exact in whatever order a device adds them.
    """
    at, ids = torch.arange(tokens.shape[-1], device=tokens.device), tokens.to(torch.int64)
    known = at < lengths[:, None]
    made = known & (at >= prompts[:, None])
    seen = torch.zeros_like(logits).scatter_add_(-1, ids, known.to(logits.dtype))
    times = torch.zeros_like(logits).scatter_add_(-1, ids, made.to(logits.dtype))
    factor = repetition.to(logits.dtype)[:, None]
    logits = torch.where(seen > 0, torch.where(logits > 0, logits / factor, logits * factor), logits)
    logits = logits - presence.to(logits.dtype)[:, None] * (times > 0)
    return logits - frequency.to(logits.dtype)[:, None] * times


def penalize_by_hand(
    logits: Tensor, tokens: Tensor, lengths: Tensor, prompts: Tensor, repetition: Tensor, presence: Tensor,
    frequency: Tensor,
) -> Tensor:  # fmt: skip
    """The definition, a row at a time."""
    changed = logits.clone()
    for row, (length, prompt) in enumerate(zip(lengths.tolist(), prompts.tolist(), strict=True)):
        seen, made = (Counter(tokens[row, begin:length].tolist()) for begin in (0, prompt))
        for token in seen:
            value, factor = logits[row, token], repetition[row].to(logits.dtype)
            changed[row, token] = value / factor if value > 0 else value * factor
        for token, times in made.items():
            changed[row, token] -= presence[row].to(logits.dtype)
            changed[row, token] -= frequency[row].to(logits.dtype) * times
    return changed


def add_bias(logits: Tensor, ids: Tensor, values: Tensor) -> Tensor:
    """logits: [rows, vocab] float32; ids, values: [rows, n], each id of a row once. Returns new logits. Unused places
    hold any id and the value 0, which changes nothing."""
    return logits.scatter_add(-1, ids.to(torch.int64), values.to(logits.dtype))


def add_bias_by_hand(logits: Tensor, ids: Tensor, values: Tensor) -> Tensor:
    """The definition, a value at a time."""
    changed = logits.clone()
    for row, column in torch.nonzero(values).tolist():
        changed[row, int(ids[row, column])] += values[row, column].to(logits.dtype)
    return changed
