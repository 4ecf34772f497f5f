"""Rungs: the switches that lead from the naive loop to the full engine, in order. Data; runs and measures nothing.

Each rung adds its change to those below it. What MENU offers and no rung names becomes a rung by itself, unless it is a
promise: exact choices before the first lossy rung, lossy ones before speculation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError, did_you_mean
from ridgeline.core.options import SECTIONS
from ridgeline.menu import MENU, chosen

SEATS = 8
"""Requests at once, on every rung that batches: a rung may differ from the one below in its own switch alone."""

BASE: dict[str, Any] = {
    "batching": "one",
    "packing": "padded",
    "kv_cache": "none",
    "prefix_cache": False,
    "chunked_prefill": False,
    "launches_in_flight": 1,
    "max_steps_per_visit": 1,
    "max_batch_size": SEATS,
    "max_num_seqs": SEATS,
}
"""Where the ladder begins."""

PROMISES = frozenset(
    {("determinism", "run"), ("determinism", "batch"), ("attention", "paged-rows"), ("attention", "by-row")}
)
"""Choices that buy certainty with speed: no rungs, because all above them would pay too."""

LATER = "not in this version"
# What a choice is called that stands for doing without; the first that an option has is where the ladder begins.
_SIMPLEST = ("none", "off", "reference", "dense", "eager")


@dataclass(frozen=True, slots=True)
class Rung:
    """name: for the command line. change: configuration fields that it sets. lossy: it may change tokens. alone: one
    request at a time, so a part of the load tells as much. family: the option of MENU whose choices take this rung's
    place once there is one. skipped: why it cannot be climbed, where that is known without trying."""

    name: str
    title: str
    change: Mapping[str, Any] = field(default_factory=dict)
    lossy: bool = False
    alone: bool = False
    family: str | None = None
    skipped: str | None = None


PEER = "transformers"
KV_CACHE = "kv-cache"
SIXTEEN_BITS = "16-bit"
SPECULATION = "speculation"

KNOWN = (
    Rung(PEER, "transformers' generate", alone=True),
    Rung("no-cache", "One at a time, no KV cache", alone=True),
    Rung(KV_CACHE, "KV cache", {"kv_cache": "paged"}, alone=True),
    Rung("static", "Static padded batch", {"batching": "static"}),
    Rung("dynamic", "Dynamic window", {"batching": "dynamic"}),
    Rung("ragged", "Ragged packing", {"packing": "ragged"}),
    Rung("prefill-first", "Prefill first", {"batching": "prefill-first"}),
    Rung("continuous", "Continuous batching", {"batching": "continuous"}),
    Rung("chunked-prefill", "Chunked prefill", {"chunked_prefill": True}),
    Rung("prefix-cache", "Prefix cache", {"prefix_cache": True}),
    Rung("fused-attention", "Fused attention", family="attention"),
    Rung("graph", "Compile or graph", family="graphs"),
    Rung("overlapped", "Overlapped loop", {"launches_in_flight": 2}),
    Rung("several-steps", "Several steps a visit", {"max_steps_per_visit": 4}),
    Rung(SIXTEEN_BITS, "16-bit weights", {"dtype": "bfloat16"}, lossy=True),
    Rung("low-bit-weights", "int8, int4 or fp8 weights", lossy=True, family="quantize"),
    Rung("low-bit-kv", "8-bit KV cache", lossy=True, family="kv_dtype"),
    Rung(SPECULATION, "Speculation", family="speculation"),
)


def ladder(known: Sequence[Rung] = KNOWN) -> list[Rung]:
    """All rungs of this version, from the lowest: the known ones, and one for every choice that they do not name."""
    named = _named([*known, Rung("base", "", BASE)])
    families = {rung.family: rung for rung in known if rung.family is not None}
    found: dict[str, list[Rung]] = {name: [] for name in families}
    exact: list[Rung] = []
    lossy: list[Rung] = []
    for option, choices in MENU.items():
        own = [c for c in choices if (option, c) not in named | PROMISES]
        if option in families or not any(option == o for o, _ in named):
            own = [c for c in own if c != simplest(option)]
        made = [_by_itself(option, choice) for choice in own]
        if option in found:
            found[option] += made
            continue
        exact += [rung for rung in made if not rung.lossy]
        lossy += [rung for rung in made if rung.lossy]
    rungs: list[Rung] = []
    for rung in known:
        # Where there is no such rung, at the end.
        if rung.name == SIXTEEN_BITS:
            rungs, exact = rungs + exact, []
        if rung.name == SPECULATION:
            rungs, lossy = rungs + lossy, []
        if rung.family is None:
            rungs.append(rung)
        else:
            rungs += found[rung.family] or [dataclasses.replace(rung, skipped=LATER)]
    return rungs + exact + lossy


def simplest(option: str) -> str:
    """The choice of an option that the ladder begins with, where BASE does not say."""
    choices = MENU[option]
    return next((word for word in _SIMPLEST if word in choices), next(iter(choices)))


def selected(rungs: Sequence[Rung], names: Iterable[str]) -> list[str]:
    """The names, checked, in the ladder's order; all of them if none is named. Raises ConfigError."""
    asked, known = list(names), [rung.name for rung in rungs]
    for name in asked:
        if name not in known:
            near = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise ConfigError(f"--rungs: there is no rung '{name}'{near}")
    return [name for name in known if name in asked or not asked]


def base(config: Config) -> Config:
    """The configuration of the lowest rung, in float32 where no number format was asked for."""
    others = {
        option: simplest(option)
        for option in MENU
        if option not in BASE and any(option in _fields(section) for section in SECTIONS.values())
    }
    dtype = "float32" if config.model.dtype == "auto" else config.model.dtype
    return changed(config, BASE | others | {"dtype": dtype})


def changed(config: Config, change: Mapping[str, Any]) -> Config:
    """The configuration with some fields set, whatever their section. Raises ConfigError for a field that is none."""
    for name, value in change.items():
        part = next((part for part, section in SECTIONS.items() if name in _fields(section)), None)
        if part is None:
            raise ConfigError(f"this version has no option --{name.replace('_', '-')}")
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{name: value})})
    return config


def _fields(section: type[Any]) -> set[str]:
    return {f.name for f in dataclasses.fields(section)}


def _named(rungs: Sequence[Rung]) -> set[tuple[str, str]]:
    """Options and choices of MENU that rungs set; `on` and `off` are flags in the configuration."""
    words = {True: "on", False: "off"}
    return {
        (name, words[value] if isinstance(value, bool) else value)
        for rung in rungs
        for name, value in rung.change.items()
        if name in MENU
    }


def _by_itself(option: str, choice: str) -> Rung:
    """A rung for a choice that nobody described. Its object says whether it is exact (`exact`; True if it has none)."""
    words = option.replace("_", " ")
    rung = Rung(f"{option.replace('_', '-')}-{choice}", f"{words[:1].upper() + words[1:]}: {choice}", {option: choice})
    try:
        is_exact = getattr(chosen(option, choice), "exact", True)
    except (ImportError, AttributeError) as error:
        return dataclasses.replace(rung, skipped=f"it cannot be loaded here ({error})")
    return dataclasses.replace(rung, lossy=not is_exact)
