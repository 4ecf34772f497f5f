"""Philox against the vectors its authors publish with Random123 (kat_vectors), and what we make of it."""

from __future__ import annotations

import torch

from ridgeline.ops.philox import philox, seed_bits, uniforms

ONES = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)


def test_published_vectors() -> None:
    counters = torch.tensor([[0] * 4, [ONES] * 4, PI])
    keys = [(0, 0), (ONES, ONES), (0xA4093822, 0x299F31D0)]
    expected = [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]
    for row, key in enumerate(keys):
        words = torch.tensor([key[0]]), torch.tensor([key[1]])
        assert philox(counters[row : row + 1], words)[0].tolist() == expected[row]
    together = torch.tensor(keys).unbind(-1)
    assert philox(counters, (together[0], together[1])).tolist() == expected


def test_a_position_has_its_uniform_whoever_asks() -> None:
    seed = torch.tensor([seed_bits(2**64 - 3)])
    many = uniforms(seed, torch.arange(1000))
    alone = torch.cat([uniforms(seed, torch.tensor([at])) for at in (0, 17, 999)])
    assert torch.equal(many[[0, 17, 999]], alone)
    assert uniforms(seed, torch.tensor([2**40])) != uniforms(seed, torch.tensor([2**40 % 2**32]))


def test_seeds_together_give_what_each_gives_alone() -> None:
    seeds, positions = [0, 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1], torch.arange(40)
    alone = [uniforms(torch.tensor([seed_bits(seed)]), positions) for seed in seeds]
    signed = torch.tensor([seed_bits(seed) for seed in seeds])
    together = uniforms(signed.repeat_interleave(40), positions.repeat(len(seeds)))
    assert torch.equal(together, torch.cat(alone))
    assert len(set(together.tolist())) == len(together)


def test_uniforms_are_uniform() -> None:
    drawn = uniforms(torch.tensor([7]), torch.arange(100_000))
    assert drawn.min() > 0
    assert drawn.max() < 1
    counts = torch.histc(drawn.to(torch.float32), bins=50, min=0, max=1)
    chi_square = float(((counts - 2000) ** 2 / 2000).sum())
    assert chi_square < 85.4  # 49 degrees of freedom: exceeded once in 1000 seeds, and this seed is fixed
    assert not torch.equal(drawn, uniforms(torch.tensor([8]), torch.arange(100_000)))
