"""Errors, named by who must act. Knows no HTTP, no process and no tensor."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RidgelineError(Exception):
    """Every error that Ridgeline raises on purpose."""


class ConfigError(RidgelineError):
    """The operator must act: a setting, a file or this machine does not allow what was asked for."""


class ModelError(ConfigError):
    """The operator must act: this model folder or checkpoint cannot be served; the message says why."""


class BadRequest(RidgelineError):
    """The client must act: the request is wrong, or asks for something that is not implemented."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotFound(BadRequest):
    """The client must act: no such model or route."""


class Unavailable(RidgelineError):
    """The client may try again later: the server is starting, stopping, or has lost its engine."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Stopping(Unavailable):
    """The server ends: a later try should come on another connection, perhaps to another server."""


class Overloaded(Unavailable):
    """The client may try again in retry_after_s seconds: as much as the server takes is waiting already.

    kind: what there is too much of, "requests" or "tokens". reason: which bound it was, for the operator's counters.
    """

    def __init__(self, message: str, kind: str, reason: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.retry_after_s = retry_after_s


class TimedOut(RidgelineError):
    """The client's time is over: it allowed the request that long, or did not send it in time."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class EngineDied(Unavailable):
    """The engine ended while the request was in flight; what had been generated so far was delivered."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
