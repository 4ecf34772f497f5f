"""Order: what `bench serve` is asked to measure, checked. Knows no argv and no HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ridgeline.bench.arrivals import ARRIVALS
from ridgeline.bench.measures import LIMITS
from ridgeline.bench.options import check_folder
from ridgeline.bench.remote import bearer
from ridgeline.bench.workload import Workload
from ridgeline.core.address import check_address
from ridgeline.core.errors import ConfigError, did_you_mean

LEAST_ROUNDS, ROUNDS = 5, 7
# Fields that the body has anyway, or that would make an answer other than the one that is measured.
OWN_FIELDS = {
    "prompt": "the workload sets it",
    "max_tokens": "the workload sets it",
    "stream": "every request is streamed",
    "stream_options": "--no-usage leaves it out",
    "model": "--model sets it",
    "n": "a request is one answer",
    "best_of": "a request is one answer",
}


@dataclass(frozen=True, slots=True)
class Order:
    """Raises ConfigError, naming the option, for a value that makes no sense.

    url: the server; against: a second one, the baseline that it is compared with, in `rounds` rounds of both in turn.
    concurrency: requests in flight of a closed loop; request_rate: requests a second of an open loop, which excludes
    the former. num_requests, duration_s: the load of one round ends with whichever comes first; requests under way
    still end. limits_ms: for goodput. extra_body: fields that every request carries besides ours. model: None takes
    the server's first. wait_s, stall_s, timeout_s: as for ClientOptions. rows: a row for every request in the file.
    """

    url: str = "http://localhost:8000"
    against: str | None = None
    rounds: int = ROUNDS
    workload: Workload = field(default_factory=Workload)
    concurrency: int | None = None
    request_rate: float | None = None
    arrivals: str = "poisson"
    num_requests: int | None = None
    duration_s: float | None = None
    warmup_requests: int = 4
    limits_ms: Mapping[str, float] = field(default_factory=dict)
    ignore_eos: bool = True
    greedy: bool = True
    include_usage: bool = True
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    seed: int = 0
    client_processes: int = 1
    timeout_s: float = 600.0
    wait_s: float = 0.0
    stall_s: float = 300.0
    json_path: Path | None = None
    rows: bool = False

    def __post_init__(self) -> None:
        check_address("--url", self.url)
        if self.against is not None:
            check_address("--against", self.against)
            if self.rounds < LEAST_ROUNDS:
                raise ConfigError(
                    f"--rounds: {self.rounds} is too few to tell a difference from chance; at least {LEAST_ROUNDS}"
                )
        check_folder(self.json_path)
        self._check_load()
        self._check_numbers()
        for name in self.extra_body:
            if name in OWN_FIELDS:
                raise ConfigError(f"--extra-body: {name!r} cannot be set here: {OWN_FIELDS[name]}")
        for name, limit in self.limits_ms.items():
            if name not in LIMITS:
                raise ConfigError(f"--goodput: {name!r} is not one of {', '.join(LIMITS)}{did_you_mean(name, LIMITS)}")
            if not limit > 0:
                raise ConfigError(f"--goodput: the limit of {name} is {limit}; it must be above 0 ms")

    def _check_load(self) -> None:
        if (self.concurrency is None) == (self.request_rate is None):
            raise ConfigError(
                "say either --concurrency (so many requests in flight) or --request-rate (so many a second)"
            )
        if self.num_requests is None and self.duration_s is None:
            raise ConfigError("say when to end: --num-requests, --duration-s, or both")
        if self.arrivals not in ARRIVALS:
            near = did_you_mean(self.arrivals, ARRIVALS)
            raise ConfigError(f"--arrivals: {self.arrivals!r} is not one of {', '.join(ARRIVALS)}{near}")
        if self.request_rate is not None and not 0 < self.request_rate < math.inf:
            raise ConfigError(f"--request-rate: {self.request_rate} must be above 0 requests a second")
        most = self.concurrency or self.num_requests or self.client_processes
        if self.client_processes > most:
            raise ConfigError(f"--client-processes: {self.client_processes} have nothing to do with a load of {most}")

    def _check_numbers(self) -> None:
        for name, value, low in (
            ("concurrency", self.concurrency, 1),
            ("num-requests", self.num_requests, 1),
            ("warmup-requests", self.warmup_requests, 0),
            ("client-processes", self.client_processes, 1),
            ("wait-s", self.wait_s, 0),
        ):
            if value is not None and not value >= low:
                raise ConfigError(f"--{name}: {value} is too small; it must be at least {low}")
        for name, seconds in (("duration-s", self.duration_s), ("timeout-s", self.timeout_s)):
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"--{name}: {seconds} must be above 0 seconds")

    @property
    def fields(self) -> dict[str, Any]:
        """What every request's body carries besides its prompt, its length and the model's name."""
        body: dict[str, Any] = {"stream": True}
        if self.include_usage:
            body["stream_options"] = {"include_usage": True}
        if self.ignore_eos:
            body["ignore_eos"] = True
        if self.greedy:
            body["temperature"] = 0
        return body | dict(self.extra_body)

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.api_key)


def parse_limits(texts: list[str]) -> dict[str, float]:
    """`ttft:200` and the like, in milliseconds. Raises ConfigError."""
    limits = {}
    for text in texts:
        name, _, number = text.partition(":")
        try:
            limits[name.strip()] = float(number)
        except ValueError:
            raise ConfigError(f"--goodput: {text!r} is not a limit; write for example ttft:200") from None
    return limits
