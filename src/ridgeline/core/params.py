"""SamplingParams: what a client may ask of a generation, checked. Knows no model and no HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.core.errors import BadRequest
from ridgeline.core.types import MAX_LOGIT_BIAS, MAX_LOGPROBS, MAX_STOP_IDS, Sampling

MAX_SEED = 2**64 - 1
MAX_STOPS = 16
MAX_TOP_K = 2**31 - 1
MAX_ID = 2**31 - 1


def derive_seed(base: int, index: int) -> int:
    """The index-th seed of those that follow from base: splitmix64 (Steele, Lea, Flood 2014) of both.

    So a server gets those of requests that bring none, and a request with a seed those of its further generations.
    """
    z = (base + (index + 1) * 0x9E3779B97F4A7C15) & MAX_SEED
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MAX_SEED
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MAX_SEED
    return z ^ (z >> 31)


_RANGES = (
    ("temperature", 0.0, 2.0),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("repetition_penalty", 0.0, 10.0),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to generate. Raises BadRequest, naming the parameter, for a value that makes no sense.

    max_tokens: new tokens at most. min_tokens: no end before that many. temperature: 0 is greedy. top_k: choose among
    the k likeliest, 0 is off. top_p: choose among the likeliest that together have this probability, 1 is off. min_p:
    drop tokens below that share of the likeliest one's probability, 0 is off. repetition_penalty: divides positive and
    multiplies negative logits of tokens that stand in prompt or output (Keskar et al. 2019), 1 is off.
    presence_penalty, frequency_penalty: taken from the logits of tokens in the output, once or for each time, 0 is off.
    logit_bias: (token, addend) pairs, or a mapping. seed: same seed, same tokens, whatever else the server does; None
    takes a fresh one. stop: strings that end the text and are not part of it. stop_token_ids: tokens that do the same.
    ignore_eos: go on past the model's own end. logprobs, prompt_logprobs: report the log-probability of each token of
    the output or the prompt, and that many of the likeliest beside it; None: do not.
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        # One string is what many people write; taken as a sequence it would stop at each of its letters.
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        bias = self.logit_bias.items() if isinstance(self.logit_bias, Mapping) else self.logit_bias
        object.__setattr__(self, "logit_bias", tuple((token, value) for token, value in bias))
        self._check_lengths()
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadRequest(f"{name}: {value} is not from {low} to {high}", param=name)
        for name in ("top_p", "repetition_penalty"):
            if getattr(self, name) == 0:
                raise BadRequest(f"{name}: must be above 0", param=name)
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_LOGPROBS:
                raise BadRequest(f"{name}: {value} is not from 0 to {MAX_LOGPROBS}", param=name)
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise BadRequest(f"seed: {self.seed} is not between 0 and {MAX_SEED}", param="seed")
        self._check_lists()

    def _check_lengths(self) -> None:
        for name, low in (("max_tokens", 1), ("min_tokens", 0), ("top_k", 0)):
            value = getattr(self, name)
            if value < low:
                raise BadRequest(f"{name}: {value} is too small; it must be at least {low}", param=name)
        if self.top_k > MAX_TOP_K:
            raise BadRequest(f"top_k: {self.top_k} is too large; it must be at most {MAX_TOP_K}", param="top_k")
        if self.min_tokens > self.max_tokens:
            raise BadRequest(f"min_tokens: {self.min_tokens} exceeds max_tokens {self.max_tokens}", param="min_tokens")

    def _check_lists(self) -> None:
        if len(self.stop) > MAX_STOPS or any(not s for s in self.stop):
            raise BadRequest(f"stop: at most {MAX_STOPS} strings, none of them empty", param="stop")
        if len(self.stop_token_ids) > MAX_STOP_IDS or not all(0 <= i <= MAX_ID for i in self.stop_token_ids):
            message = f"stop_token_ids: at most {MAX_STOP_IDS} token ids, none of them negative"
            raise BadRequest(message, param="stop_token_ids")
        if len(self.logit_bias) > MAX_LOGIT_BIAS or not all(0 <= i <= MAX_ID for i, _ in self.logit_bias):
            message = f"logit_bias: at most {MAX_LOGIT_BIAS} token ids, none of them negative"
            raise BadRequest(message, param="logit_bias")
        if len({i for i, _ in self.logit_bias}) < len(self.logit_bias):
            raise BadRequest("logit_bias: a token stands in it twice", param="logit_bias")
        if not all(-100 <= value <= 100 for _, value in self.logit_bias):
            raise BadRequest("logit_bias: a value is not from -100 to 100", param="logit_bias")

    def check_ids(self, vocab: int) -> None:
        """Raises BadRequest for token ids that a model with this vocabulary does not have."""
        for name, ids in (("stop_token_ids", self.stop_token_ids), ("logit_bias", [i for i, _ in self.logit_bias])):
            if any(i >= vocab for i in ids):
                raise BadRequest(f"{name}: a token id is out of range; ids are 0 to {vocab - 1}", param=name)

    @staticmethod
    def from_generation_config(values: Mapping[str, Any]) -> SamplingParams:
        """The defaults that a model's generation_config.json asks for: max_new_tokens, and temperature, top_k and top_p
        where it samples."""
        names = ("temperature", "top_k", "top_p") if values.get("do_sample", False) else ()
        known = {name: values[name] for name in names if values.get(name) is not None}
        return SamplingParams(max_tokens=values.get("max_new_tokens") or 16, **known)

    def for_device(self, seed: int, eos_ids: tuple[int, ...]) -> Sampling:
        """The part that the device needs. seed: used if the params bring none."""
        own = () if self.ignore_eos else eos_ids
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
            min_tokens=self.min_tokens,
            seed=seed if self.seed is None else self.seed,
            stop_ids=tuple(dict.fromkeys((*own, *self.stop_token_ids))),
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
        )
