"""Limits: every bound of the server as one value, made once from the configuration. Knows no request and no socket."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ridgeline.core.config import Config

BURSTS = 4  # times the batch may be filled by those who wait
QUEUED_TOKENS_PER_REQUEST = 1024
MAX_HEAD_BYTES = 32 * 2**10
_SPARE_FILES = 64  # for the engine's pipe, the model's files, logs
_FEW_FILES, _MANY_FILES = 1024, 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """queued_requests, queued_tokens: of requests that have no token yet. concurrent_per_key: under way at once.

    request_timeout_s: of every request, whatever it asks for. body_timeout_s: for the head of a request, and again for
    its body. slow_reader_timeout_s: without a byte taken. None: no bound.
    """

    queued_requests: int = BURSTS * 256
    queued_tokens: int = BURSTS * 256 * QUEUED_TOKENS_PER_REQUEST
    concurrent_per_key: int | None = None
    request_timeout_s: float | None = None
    body_timeout_s: float = 30.0
    slow_reader_timeout_s: float = 60.0
    connections: int = _FEW_FILES
    head_bytes: int = MAX_HEAD_BYTES

    @staticmethod
    def of(config: Config) -> Limits:
        options = config.clients
        requests = options.max_queued_requests or BURSTS * config.limits.max_num_seqs
        return Limits(
            queued_requests=requests,
            queued_tokens=options.max_queued_tokens or requests * QUEUED_TOKENS_PER_REQUEST,
            concurrent_per_key=options.max_concurrent_per_key,
            request_timeout_s=options.request_timeout_s,
            body_timeout_s=options.body_timeout_s,
            slow_reader_timeout_s=options.slow_reader_timeout_s,
            connections=options.max_connections or max(1, allow_files() - _SPARE_FILES),
        )


def allow_files() -> int:
    """Files that this process may have open, after it has allowed itself what the system lets it."""
    if sys.platform == "win32":
        return _FEW_FILES
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return _MANY_FILES if soft == resource.RLIM_INFINITY else soft
    # The usual soft limit of 1024 exists for programs that use select(); it is less than the default queue.
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        return soft
    return most
