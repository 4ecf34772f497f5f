"""FlashAttention's forward pass, plainly, for reading (Dao et al. 2022; the loop order of its second version).

Nothing here serves: ops/paged_prefill_triton.py does, and is this kernel plus pages, ragged rows, windows and 8 bits.

Causal attention of one head, N tokens of D values of B bytes each. Written down as it is defined, it goes through
memory with the scores S = Q K^T and the weights P = softmax(S), N x N both:

    read Q, K; write S        2 N D B + N^2 B
    read S; write P                   2 N^2 B
    read P, V; write O        2 N D B + N^2 B
    together                  4 N D B + 4 N^2 B

The kernel keeps a tile of M queries on the chip and lets keys and values pass by it. It never has more than M x K
scores, and none of them leaves the chip, because the softmax can be mended as it goes: with m the largest score so far,
l the sum of exp(s - m) and o the mix of values, a larger m' multiplies l and o by exp(m - m'). The tile that begins at
query i M reads the keys and values of (i + 1) M positions; there are N / M tiles:

    read Q; write O           2 N D B
    read K, V                 2 D B M (1 + 2 + ... + N / M) = N D B (N / M + 1)
    together                  N D B (N / M + 3)

For N = 1024, D = 64, B = 2 and M = 64 that is 8.9 MB against 2.5: a factor of 3.6, and at N = 8192 of 3.9. The limit is
4 M / D, so a larger tile saves more; besides, keys and values that are read again come from the L2 cache, where the
scores would not fit. The arithmetic is the same: 4 N^2 D operations, or half of them by whoever leaves out the half of
the square that nobody sees.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _flash(q, k, v, out, length, scale, DIM: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr):
    """A program: QUERIES queries of one head. q, k, v, out: [heads, length, DIM]. scale is in powers of two."""
    tile, head = tl.program_id(0), tl.program_id(1)
    queries, keys, columns = tile * QUERIES + tl.arange(0, QUERIES), tl.arange(0, KEYS), tl.arange(0, DIM)
    base = head.to(tl.int64) * length * DIM
    at = base + queries[:, None] * DIM + columns[None, :]
    mine = (queries < length)[:, None]
    query = tl.load(q + at, mask=mine, other=0.0)
    most = tl.full([QUERIES], -1e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, DIM], tl.float32)
    for start in range(0, tl.minimum((tile + 1) * QUERIES, length), KEYS):
        positions = start + keys
        there = base + positions[:, None] * DIM + columns[None, :]
        known = (positions < length)[:, None]
        key = tl.load(k + there, mask=known, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        seen = positions[None, :] <= queries[:, None]
        scores = tl.where(seen, scores, -1e30)
        higher = tl.maximum(most, tl.max(scores, 1))
        shrink = tl.exp2(most - higher)
        weights = tl.where(seen, tl.exp2(scores - higher[:, None]), 0.0)
        total = total * shrink + tl.sum(weights, 1)
        value = tl.load(v + there, mask=known, other=0.0)
        mixed = tl.dot(weights.to(value.dtype), value, mixed * shrink[:, None], input_precision="ieee")
        most = higher
    tl.store(out + at, (mixed / total[:, None]).to(out.dtype.element_ty), mask=mine)


def flash_attention(q: Tensor, k: Tensor, v: Tensor, *, queries: int = 64, keys: int = 64) -> Tensor:
    """Causal attention of whole sequences. q, k, v: [heads, tokens, head_dim], contiguous, head_dim a power of two from
    16 up. queries, keys: of a tile."""
    heads, length, head_dim = q.shape
    assert all(x.is_contiguous() and x.shape == q.shape for x in (q, k, v))
    out = torch.empty_like(q)
    _flash[(triton.cdiv(length, queries), heads)](
        q, k, v, out, length, head_dim**-0.5 * math.log2(math.e), DIM=head_dim, QUERIES=queries, KEYS=keys
    )
    return out


def attention_with_scores(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition, which writes the scores."""
    length = q.shape[1]
    scores = torch.matmul(q, k.transpose(1, 2)).to(torch.float32) * q.shape[2] ** -0.5
    later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    return torch.matmul(scores.masked_fill(later, float("-inf")).softmax(-1).to(v.dtype), v)


def bytes_moved(tokens: int, head_dim: int, value_bytes: int, *, queries: int = 64) -> tuple[int, int]:
    """Of one head, by the formulas above: flash_attention's, and those of attention that writes its scores.

    tokens: a multiple of queries."""
    once = tokens * head_dim * value_bytes
    return once * (tokens // queries + 3), 4 * once + 4 * tokens * tokens * value_bytes
