"""Workload: which prompts with how many new tokens, without end, from a seed. Knows no HTTP and no clock."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline.bench.datasets import Example, read_prompts, read_sharegpt
from ridgeline.bench.lengths import Law, Lengths
from ridgeline.bench.records import Shape
from ridgeline.bench.stories import PROMPTS
from ridgeline.core.errors import ConfigError, did_you_mean

KINDS = ("fixed", "uniform", "lognormal", "file", "sharegpt", "shared-prefix")
PROMPT_KINDS = ("text", "ids")
FROM_FILE = ("file", "sharegpt")
INPUT_LEN, OUTPUT_LEN, ANSWER_LEN = Lengths(128, 128), Lengths(64, 64), Lengths(1, 2048)
WORDS = sorted({word.strip('.,:"').lower() for prompt in PROMPTS for word in prompt.split()})


@dataclass(frozen=True, slots=True)
class Workload:
    """Raises ConfigError, naming the flag, for what makes no sense together.

    input_len, output_len: tokens; fixed takes single numbers. shared-prefix: prefix_groups prefixes of prefix_len
    tokens, each request one of them and a tail of input_len. sharegpt: output_len, a range, bounds what the answers'
    lengths ask for. prompt_kind ids: token ids below vocab, otherwise words.
    """

    kind: str = "fixed"
    input_len: Lengths = INPUT_LEN
    output_len: Lengths = OUTPUT_LEN
    prompts: Path | None = None
    prompt_kind: str = "text"
    vocab: int = 50257
    prefix_groups: int = 4
    prefix_len: int = 256

    def __post_init__(self) -> None:
        for flag, value, known in (
            ("--workload", self.kind, KINDS),
            ("--prompt-kind", self.prompt_kind, PROMPT_KINDS),
        ):
            if value not in known:
                raise ConfigError(f"{flag}: {value!r} is not one of {', '.join(known)}{did_you_mean(value, known)}")
        if (self.kind in FROM_FILE) != (self.prompts is not None):
            raise ConfigError(f"--prompts: a file belongs to --workload {' and '.join(FROM_FILE)}, and only to them")
        if self.kind == "fixed" and (self.input_len.is_range or self.output_len.is_range):
            raise ConfigError("--workload fixed: lengths are single numbers; for a range take uniform or lognormal")
        if self.kind == "sharegpt" and not self.output_len.is_range:
            raise ConfigError(
                f"--output-len {self.output_len.low}: with --workload sharegpt the file gives the lengths; write "
                f"bounds for them, for example {ANSWER_LEN.low}:{ANSWER_LEN.high}"
            )
        for name, number in (
            ("vocab", self.vocab),
            ("prefix-groups", self.prefix_groups),
            ("prefix-len", self.prefix_len),
        ):
            if number < 1:
                raise ConfigError(f"--{name}: {number} is too small; it must be at least 1")

    @property
    def counts_words(self) -> bool:
        """Whether tokens have to be turned into words, or words (of a file's answers) into tokens."""
        return self.prompt_kind == "text" and self.kind != "file"

    def read(self) -> Sequence[Example]:
        """What the file has; nothing where there is none. Raises ConfigError for one that cannot be used."""
        if self.prompts is None:
            return ()
        return read_prompts(self.prompts) if self.kind == "file" else read_sharegpt(self.prompts)

    def shapes(self, seed: int, examples: Sequence[Example] = (), tokens_per_word: float = 1.0) -> Iterator[Shape]:
        """Without end; equal for equal seeds. examples: what `read` gave."""
        rng = random.Random(seed)
        if self.kind in FROM_FILE:
            return self._of(examples, rng, tokens_per_word)
        return self._made(rng, tokens_per_word)

    def _made(self, rng: random.Random, tokens_per_word: float) -> Iterator[Shape]:
        law: Law = "lognormal" if self.kind == "lognormal" else "uniform"
        groups = self.prefix_groups if self.kind == "shared-prefix" else 0
        prefixes = [self._prompt(rng, self.prefix_len, tokens_per_word) for _ in range(groups)]
        while True:
            prompt = self._prompt(rng, self.input_len.draw(rng, law), tokens_per_word)
            if prefixes:
                prompt = _joined(rng.choice(prefixes), prompt)
            yield Shape(prompt, self.output_len.draw(rng, law))

    def _prompt(self, rng: random.Random, tokens: int, tokens_per_word: float) -> str | tuple[int, ...]:
        if self.prompt_kind == "ids":
            return tuple(rng.choices(range(self.vocab), k=tokens))
        return words(rng, max(1, round(tokens / tokens_per_word)))

    def _of(self, examples: Sequence[Example], rng: random.Random, tokens_per_word: float) -> Iterator[Shape]:
        """Each once in a shuffled order, then again in another."""
        while True:
            for example in rng.sample(examples, len(examples)):
                yield Shape(example.prompt, self._max_tokens(example, rng, tokens_per_word))

    def _max_tokens(self, example: Example, rng: random.Random, tokens_per_word: float) -> int:
        if example.answer is not None:
            asked = round(len(example.answer.split()) * tokens_per_word)
            return min(self.output_len.high, max(self.output_len.low, asked))
        return example.max_tokens or self.output_len.draw(rng)


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def _joined(prefix: str | tuple[int, ...], tail: str | tuple[int, ...]) -> str | tuple[int, ...]:
    if isinstance(prefix, str):
        return f"{prefix} {tail}"
    assert isinstance(tail, tuple)
    return prefix + tail
