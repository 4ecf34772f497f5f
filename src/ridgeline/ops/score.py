"""Log-probabilities of tokens, and the likeliest tokens beside them. A row does not depend on the rows beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline.ops.lines import whole_lines


def score(logits: Tensor, tokens: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """logits: [rows, vocab]; tokens: [rows]. Returns the tokens' log-probabilities [rows] float32, and the `most`
    likeliest tokens of each row [rows, most] int64 with theirs, the likeliest first; of equal ones the lowest id.

    Log-softmax in float32. All values come from one table, so a token has the same number in both results.
    """
    table = torch.log_softmax(whole_lines(logits.to(torch.float32)), -1)
    ids = _likeliest(table, min(most, logits.shape[-1]))
    return table.gather(-1, tokens[:, None])[:, 0], ids, table.gather(-1, ids)


def score_by_hand(logits: Tensor, tokens: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The definition: sorts everything."""
    table = torch.log_softmax(logits.to(torch.float32), -1)
    values, ids = table.sort(dim=-1, descending=True, stable=True)
    return table.gather(-1, tokens[:, None])[:, 0], ids[:, :most], values[:, :most]


def _likeliest(table: Tensor, most: int) -> Tensor:
    """Equal values are common where logits have 16 bits, and topk says nothing of their order. So it is given integers
    that are all different: the float's bits, which order as the numbers do once those of negative ones are turned
    round, and below them the id, the lowest as the greatest."""
    if most == 0:
        return torch.empty((table.shape[0], 0), dtype=torch.int64, device=table.device)
    bits = table.view(torch.int32)
    keys = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    keys <<= 32
    keys |= torch.arange(table.shape[-1] - 1, -1, -1, device=table.device)
    return table.shape[-1] - 1 - (keys.topk(most, -1).values & 0xFFFFFFFF)
