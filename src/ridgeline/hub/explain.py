"""What went wrong with the hub, in words that say what to do. Knows the library's errors and the system's."""

from __future__ import annotations

import errno
from pathlib import Path

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ridgeline.core.errors import did_you_mean
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.hub.access import HubError

LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
BY_HAND = "check the network, or give a directory with a downloaded model, or use --model demo"


def explain(error: BaseException, repo: str, endpoint: str, cache_dir: Path) -> HubError:
    """Sort an error of the library by its meaning."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        # The library's summary of a failed look-up; what happened is behind it.
        return explain(error.__cause__, repo, endpoint, cache_dir)
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(f"{repo} is not cached and HF_HUB_OFFLINE is set", "unset it once, or use --model demo")
    if isinstance(error, HfHubHTTPError):
        return _refused(error, repo, endpoint)
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return HubError(f"the disk of {cache_dir} is full", "make room there, or choose another cache directory")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        advice = "make it a directory that you may write, or choose another cache directory"
        return HubError(f"the cache directory {cache_dir} cannot be written ({error})", advice)
    return _unreachable(error, repo, endpoint)


def _refused(error: HfHubHTTPError, repo: str, endpoint: str) -> HubError:
    status = error.response.status_code
    if isinstance(error, GatedRepoError) or status == 403:
        return HubError(
            f"{endpoint} does not let you have {repo}", f"ask for access at {endpoint}/{repo}, then {LOG_IN}"
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        near = did_you_mean(repo, ["demo", *GPT2_SHAPES])
        reason = f"{endpoint} has no model '{repo}', or it is private"
        return HubError(reason, f"check the name{near}; for a private model {LOG_IN}")
    if status == 401:
        return HubError(f"{endpoint} refuses {repo} without a valid token (401)", LOG_IN)
    if status == 429:
        return HubError(f"{endpoint} limits how often you may ask (429)", f"wait some minutes, or {LOG_IN}")
    return HubError(f"{endpoint} answered {status} for {repo}", "try again later, or use --model demo")


def _unreachable(error: BaseException, repo: str, endpoint: str) -> HubError:
    kind = type(error).__name__
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return HubError(f"{repo} is not cached and {endpoint} does not answer ({error or kind})", BY_HAND)
    return HubError(f"{repo} is not cached and could not be had from {endpoint} ({kind}: {error})", BY_HAND)


def size(num_bytes: int) -> str:
    """For people: 548 MB."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes} bytes"
