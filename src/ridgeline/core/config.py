"""The configuration: options with values that are possible, alone and together. Reads no argv and no environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ridgeline.core.errors import ConfigError, did_you_mean
from ridgeline.core.options import (
    SECTIONS,
    BatchingOptions,
    ClientOptions,
    LimitOptions,
    ModelOptions,
    ServerOptions,
    flag_of,
    kind_of,
)

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(text: str) -> int:
    """`4GiB`, `512MB` or a plain number of bytes. Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS:
        raise ConfigError(f"'{text}' is not a size; write for example 4GiB, 512MB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


@dataclass(frozen=True, slots=True)
class Config:
    """All options. Make one with `Config.of(model="demo", port=0)`; unknown names and bad values raise ConfigError."""

    model: ModelOptions = field(default_factory=ModelOptions)
    batching: BatchingOptions = field(default_factory=BatchingOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    server: ServerOptions = field(default_factory=ServerOptions)
    clients: ClientOptions = field(default_factory=ClientOptions)

    @staticmethod
    def of(**values: Any) -> Config:
        return Config.from_mapping(values)

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Config:
        """Build from flat `name: value` pairs; `-` and `_` are the same. None means: the default."""
        given = {name.replace("-", "_"): value for name, value in values.items() if value is not None}
        known = {f.name for section in SECTIONS.values() for f in fields(section)}
        for name in given:
            if name not in known:
                raise ConfigError(f"{flag_of(name)}: unknown option{did_you_mean(name, known)}")
        parts = {
            part: section(
                **{f.name: _checked(section, f.name, given[f.name]) for f in fields(section) if f.name in given}
            )
            for part, section in SECTIONS.items()
        }
        config = Config(**parts)
        config._check_together()
        return config

    def _check_together(self) -> None:
        if self.model.model is not None and self.model.random_weights is not None:
            raise ConfigError("--model and --random-weights exclude each other: random weights stand in for a model")
        if self.limits.kv_memory is not None:
            parse_bytes(self.limits.kv_memory)
        batching = self.batching
        if batching.batching in ("static", "dynamic") and batching.max_batch_size > self.limits.max_num_seqs:
            raise ConfigError(
                f"--max-batch-size {batching.max_batch_size} can never be reached with "
                f"--max-num-seqs {self.limits.max_num_seqs}; raise the latter or lower the former"
            )
        if batching.chunked_prefill and batching.batching in WHOLE_PROMPTS:
            raise ConfigError(
                f"--chunked-prefill: --batching {batching.batching} computes prompts whole; take --batching continuous "
                "or prefill-first, or leave --chunked-prefill out"
            )
        if batching.kv_dtype in ("int8", "fp8") and batching.attention == "reference":
            raise ConfigError(
                f"--kv-dtype {batching.kv_dtype} needs scales, and --attention reference keeps none; leave one of the "
                "two out"
            )
        if self.model.determinism == "batch" and batching.attention in BATCH_DEPENDENT:
            raise ConfigError(
                f"--determinism batch: --attention {batching.attention} computes a request differently in another "
                "batch; take --attention auto, or leave one of the two out"
            )
        if batching.graphs == "recorded":
            _check_recorded(batching)
        if self.model.determinism != "off" and batching.graphs in REPLAYING:
            raise ConfigError(
                f"--determinism {self.model.determinism}: with --graphs {batching.graphs} chance decides which steps "
                "are replays; leave --graphs out"
            )
        if batching.kv_cache == "none":
            _check_without_cache(batching)


WHOLE_PROMPTS = ("one", "static", "dynamic")
"""Choices of --batching that cannot cut a prompt: as their policies say, known here before anything is loaded."""

REPLAYING = ("graph", "recorded")
"""Choices of --graphs that play steps again."""

BATCH_DEPENDENT = ("reference", "paged")
"""Choices of --attention that are not row-invariant: as their classes say, known here before anything is loaded."""


def _check_recorded(batching: BatchingOptions) -> None:
    """Refuse what no recording is made of."""
    if batching.attention not in ("auto", "native"):
        raise ConfigError(
            f"--graphs recorded plays native code, and --attention {batching.attention} is none; leave one of the two "
            "out"
        )
    if batching.packing != "ragged":
        raise ConfigError(
            f"--graphs recorded plays rows that lie end to end, and with --packing {batching.packing} they do not; "
            "leave one of the two out"
        )


def _check_without_cache(batching: BatchingOptions) -> None:
    """Refuse what lives from a KV cache."""
    for asked, flag, why in (
        (batching.chunked_prefill, "--chunked-prefill", "a part of a prompt would be lost before the next is computed"),
        (batching.graphs in REPLAYING, f"--graphs {batching.graphs}", "every step computes whole sequences"),
        (batching.prefix_cache, "--prefix-cache", "nothing is kept that a request could find"),
        (
            batching.max_steps_per_visit > 1,
            "--max-steps-per-visit above 1",
            "each token needs the whole sequence again",
        ),
    ):
        if asked:
            raise ConfigError(f"{flag} needs a KV cache: with --kv-cache none {why}; leave one of the two out")


def _checked(section: type[Any], name: str, value: Any) -> Any:
    kind, meta = kind_of(section, name), next(f for f in fields(section) if f.name == name).metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{flag_of(name)}: expected {kind.__name__}, got {value!r}")
    if meta["choices"] and value not in meta["choices"]:
        near = did_you_mean(value, meta["choices"])
        raise ConfigError(f"{flag_of(name)}: '{value}' is not one of {', '.join(meta['choices'])}{near}")
    low, high = meta["low"], meta["high"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bound = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{flag_of(name)}: {value} is out of range; it must be {bound}")
    return value
