"""From logits to tokens, a row at a time: what a row gives does not depend on the rows beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline.ops.lines import whole_lines

_FIRST_LOOK = 256
_PIECE = 256
_TINY = 1e-30
_ONE = 2.0**50
"""Of a share of the distribution in whole numbers: sums over a row stay below 2^53, so float64 holds them too."""


def greedy(logits: Tensor) -> Tensor:
    """logits: [rows, vocab]. The likeliest token of each row [rows]; of equal ones the lowest id."""
    return torch.argmax(logits, -1)


def greedy_in_pieces(logits: Tensor) -> Tensor:
    """As greedy. torch looks for a maximum in whole vectors and for its place value by value, so the place is looked
    for in one piece of each row only."""
    vocab = logits.shape[-1]
    if vocab <= _PIECE:
        return greedy(logits)
    pieces = vocab // _PIECE
    whole = pieces * _PIECE
    most = logits[:, :whole].view(len(logits), pieces, _PIECE).amax(-1)  # [rows, pieces], and one more if any is left
    if whole < vocab:
        most = torch.cat((most, logits[:, whole:].amax(-1, keepdim=True)), -1)
    first = greedy(most) * _PIECE
    places = (first[:, None] + torch.arange(_PIECE, device=logits.device)).clamp_(max=vocab - 1)
    return (first + greedy(logits.gather(-1, places))).clamp_(max=vocab - 1)


def likeliest(logits: Tensor) -> Tensor:
    """As greedy, in the way that is quick on its device."""
    return greedy_in_pieces(logits) if logits.device.type == "cpu" else greedy(logits)


def sample(
    logits: Tensor, temperature: Tensor, uniforms: Tensor, top_k: Tensor | None = None, top_p: Tensor | None = None,
    min_p: Tensor | None = None, widest: int | None = None,
) -> Tensor:  # fmt: skip
    """logits: [rows, vocab]; the rest [rows], temperature above 0, uniforms in (0, 1) and float64. Tokens [rows].

    top_k cuts first (0 is off), then top_p among what is left (1 is off), then min_p: what has less than that share of
    the likeliest one's weight (0 is off; Nguyen et al. 2024). What ties with the last one kept is kept. None: off for
    all rows. widest: the greatest top_k that is below the vocabulary; None asks the device, and waits for it; nothing
    else here waits for one that is not a CPU. Then by inverse distribution function in the order of token ids. Weights
    are added as whole numbers, in steps of 1e-15 of the distribution: their sums are exact, so they do not depend on
    the order in which a device adds them, nor on how many rows there are.
    """
    weights = _weights(logits, temperature)
    if top_k is not None:
        cuts = torch.where(top_k < logits.shape[-1], top_k, 0)
        weights = _keep_top_k(weights, cuts, int(cuts.max()) if widest is None else widest)
    if top_p is not None:
        weights = _keep_top_p(weights, top_p)
    if min_p is not None:
        floor = weights.amax(-1, keepdim=True) * min_p.to(weights.dtype)[:, None]
        weights = torch.where(weights >= floor, weights, 0.0)
    return _reached(weights, uniforms).clamp(max=logits.shape[-1] - 1)


def sample_cut(
    logits: Tensor, temperature: Tensor, uniforms: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """As sample, and waits for no device: every row is sorted once, whatever it cuts. So it can be captured."""
    weights = _weights(logits, temperature)
    best = weights.sort(-1, descending=True).values
    last = best.gather(-1, (top_k.clamp(1, best.shape[-1]) - 1)[:, None])
    floor = torch.where(((top_k > 0) & (top_k < logits.shape[-1]))[:, None], last, 0.0)
    best = torch.where(best >= floor, best, 0.0)
    counted = _counted(best)
    sums = counted.cumsum(-1)
    kept = (sums - counted < top_p.to(torch.float64)[:, None] * sums[:, -1:]).sum(-1, keepdim=True).clamp(min=1)
    floor = torch.maximum(floor, torch.where((top_p < 1)[:, None], best.gather(-1, kept - 1), 0.0))
    floor = torch.maximum(floor, best[:, :1] * min_p.to(best.dtype)[:, None])
    return _reached(torch.where(weights >= floor, weights, 0.0), uniforms).clamp(max=logits.shape[-1] - 1)


def _weights(logits: Tensor, temperature: Tensor) -> Tensor:
    wide = whole_lines(logits.to(torch.float32))
    wide = wide - wide.amax(-1, keepdim=True)  # before the division, which could overflow
    return torch.softmax(wide / temperature.to(torch.float32).clamp(min=_TINY)[:, None], -1)


def _reached(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The first token at which the distribution function is beyond the uniform; only logits that are not numbers get
    beyond the last."""
    reached = _counted(weights).cumsum(-1)
    target = (uniforms[:, None] * reached[:, -1:]).to(torch.int64)
    return torch.searchsorted(reached, target, right=True)[:, 0]


def forbid(logits: Tensor, ids: Tensor) -> Tensor:
    """logits: [rows, vocab]; ids: [rows, n], valid ids first, then any number of -1. Those become -inf; where there is
    no valid id, the first token."""
    every = torch.where(ids < 0, ids[:, :1].clamp(min=0), ids).to(torch.int64)
    return logits.scatter(-1, every, float("-inf"))


def _counted(weights: Tensor) -> Tensor:
    """In whole numbers; scaling by a power of two is exact."""
    return (weights * _ONE).to(torch.int64)


def _keep_top_k(weights: Tensor, top_k: Tensor, widest: int) -> Tensor:
    if widest == 0:
        return weights
    best = weights.topk(widest, -1).values  # [rows, widest], descending
    floor = best.gather(-1, (top_k.clamp(1, widest) - 1)[:, None])
    floor = torch.where((top_k > 0)[:, None], floor, 0.0)
    return torch.where(weights >= floor, weights, 0.0)


def _keep_top_p(weights: Tensor, top_p: Tensor) -> Tensor:
    """Keep the likeliest whose sum first reaches top_p of the row's total."""
    limited = top_p < 1
    target = top_p.to(torch.float64)[:, None] * _counted(weights).sum(-1, keepdim=True)
    # A nucleus is mostly small: looking at few first costs a CPU a tenth of sorting a vocabulary of 50 thousand. Any
    # other device would have to be asked whether few were enough, and waited for: it sorts.
    width = min(_FIRST_LOOK, weights.shape[-1]) if weights.device.type == "cpu" else weights.shape[-1]
    while True:
        whole = width == weights.shape[-1]
        best = weights.sort(-1, descending=True).values if whole else weights.topk(width, -1).values
        counted = _counted(best)
        before = counted.cumsum(-1) - counted
        kept = (before < target).sum(-1, keepdim=True).clamp(min=1)
        if whole or bool(((kept < width) | ~limited[:, None]).all()):
            break
        width = min(16 * width, weights.shape[-1])
    floor = best.gather(-1, kept - 1)
    floor = torch.where(limited[:, None], floor, 0.0)
    return torch.where(weights >= floor, weights, 0.0)
