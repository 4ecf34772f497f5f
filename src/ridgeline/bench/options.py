"""ClientOptions: what the client is asked to do, checked. Knows no argv and no HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.core.address import check_address
from ridgeline.core.errors import ConfigError, did_you_mean

MODES = ("concurrent", "benchmark")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Raises ConfigError, naming the option, for a value that makes no sense.

    mode: `concurrent` draws num_requests requests started delay_ms apart; `benchmark` measures each of `levels`
    (requests in flight). max_tokens: new tokens a request; `concurrent` varies it around this number. prompt: used for
    every request instead of the built-in ones. json_path: where the run file goes. wait_s: how long to go on trying
    while nothing listens at url. timeout_s: a request that takes longer has failed. stall_s: a starting server that
    shows no progress for so long is given up.
    """

    mode: str = "concurrent"
    url: str = "http://localhost:8000"
    num_requests: int = 16
    delay_ms: float = 10.0
    max_tokens: int = 32
    prompt: str | None = None
    api_key: str | None = field(default=None, repr=False)
    seed: int = 0
    no_color: bool = False
    json_path: Path | None = None
    wait_s: float = 0.0
    timeout_s: float = 300.0
    stall_s: float = 300.0
    levels: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"--mode: {self.mode!r} is not one of {', '.join(MODES)}{did_you_mean(self.mode, MODES)}")
        check_address("--url", self.url)
        for name, value, low in (
            ("num-requests", self.num_requests, 1),
            ("max-tokens", self.max_tokens, 1),
            ("delay-ms", self.delay_ms, 0),
            ("wait-s", self.wait_s, 0),
        ):
            if not value >= low:
                raise ConfigError(f"--{name}: {value} is too small; it must be at least {low}")
        if not (self.timeout_s > 0 and self.stall_s > 0):
            raise ConfigError("the time limits of the client must be above 0 seconds")
        if not self.levels or min(self.levels) < 1:
            raise ConfigError(f"levels: {self.levels} must be numbers of requests in flight, each at least 1")
        if self.prompt == "":
            raise ConfigError("--prompt: it is empty")
        check_folder(self.json_path)


def check_folder(json_path: Path | None) -> None:
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise ConfigError(f"--json: there is no folder {json_path.absolute().parent}")
