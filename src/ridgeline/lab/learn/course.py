"""The course: its chapters in order. Knows where each experiment is."""

from __future__ import annotations

from ridgeline.core.errors import ConfigError
from ridgeline.lab.learn import batching, memory, scores, serving, waiting, widths
from ridgeline.lab.learn.chapter import Chapter

CHAPTERS = (
    Chapter(
        1,
        "1-batching.md",
        "Why batching helps",
        f"A decode step gives one sequence one token. How many times as many tokens a second do {batching.MANY} "
        "sequences in one step give?",
        "x",
        "A step reads every weight once and starts the same operations, whoever is in it. What grows with the batch?",
        batching.amortised,
    ),
    Chapter(
        2,
        "2-roofline.md",
        "Arithmetic intensity and the roofline",
        "How many floating-point operations does a decode step of one sequence do for each byte that it reads?",
        " FLOP a byte",
        "A weight is used in one multiplication and one addition for each sequence. How many bytes has it?",
        batching.intensity,
    ),
    Chapter(
        3,
        "3-pipeline.md",
        "Batching as superscalar issue",
        f"{serving.REQUESTS} requests want {serving.SHORTEST} to {serving.LONGEST} tokens each and there are "
        f"{serving.SEATS} seats. How many times the steps of continuous batching do static batches take?",
        "x",
        "A static batch lasts as long as its longest member; what is the mean length, what the longest of eight?",
        serving.issued,
    ),
    Chapter(
        4,
        "4-memory.md",
        "The memory hierarchy",
        "How many times as fast as memory does the nearest level feed all cores?",
        "x",
        "Two loads of the widest vector a cycle from the nearest cache; what does a memory channel bring?",
        memory.levels,
    ),
    Chapter(
        5,
        "5-kv-cache.md",
        "KV cache, padding and when to wait",
        f"{serving.CACHED_REQUESTS} requests, prompts of {serving.CACHED_PROMPT} tokens, {serving.CACHED_NEW} new ones "
        "each. How many times as many positions are computed without a KV cache?",
        "x",
        "Without a cache the n-th new token computes the prompt and all tokens before it again.",
        serving.cached,
    ),
    Chapter(
        6,
        "6-attention.md",
        "Attention that never writes its scores",
        f"A prompt of {scores.LENGTHS[-1]:,} tokens. How many times as fast is attention that keeps its scores on the "
        "chip as one that writes the matrix to memory?",
        "x",
        f"Scores of {scores.HEADS} heads: {scores.LENGTHS[-1]:,} x {scores.LENGTHS[-1]:,} numbers each, written and "
        "read several times. The operands are small beside them.",
        scores.written,
    ),
    Chapter(
        7,
        "7-quantisation.md",
        "Fewer bits",
        "Weights of 8 bits. How many times as fast is a decode step of one sequence?",
        "x",
        "If nothing but reading weights took time, the answer would be the ratio of the widths.",
        widths.narrowed,
    ),
    Chapter(
        8,
        "8-profilers.md",
        "Profilers, counters and occupancy",
        "What share of a decode step of one sequence do reading and arithmetic explain, in per cent?",
        " %",
        "Reckon the bytes of the weights over the bandwidth of the level that holds them; then how many operations a "
        "layer starts, and what one start costs.",
        waiting.accounted,
    ),
)


def chapter(number: int) -> Chapter:
    """Raises ConfigError."""
    for one in CHAPTERS:
        if one.number == number:
            return one
    raise ConfigError(f"there is no chapter {number}; `ridgeline learn` lists the {len(CHAPTERS)} that there are")
