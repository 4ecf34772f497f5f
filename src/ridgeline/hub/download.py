"""Download: a hub repository's needed files into the hub's own cache. Knows names and bytes; reads no weights.

huggingface_hub does the transfers (ranges, retries, locks, cache layout). This file adds what it leaves open: a bound
on every wait, bytes done of all files as one number, and errors that say what to do.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.utils import logging as library_logging
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from ridgeline.core.errors import ModelError
from ridgeline.core.folder import CONFIG, check_folder, wanted_files
from ridgeline.core.progress import Progress
from ridgeline.core.quantisation import saved_scheme
from ridgeline.hub.access import Access, HubError
from ridgeline.hub.explain import explain, size

T = TypeVar("T")

# The library reads 10 MiB at a time: on the slowest line worth waiting for that takes about so long.
STALL_S = 180.0
TICK_S = 0.1
# Names that the hub redirects: another program may have cached the model under the longer one.
RENAMED = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}


def cached_folder(repo: str, access: Access) -> Path | None:
    """The cached snapshot of a repository, if it is complete. Raises ModelError for a name that no hub can have."""
    _check_name(repo)
    for name in (repo, RENAMED.get(repo, repo)):
        config = try_to_load_from_cache(name, CONFIG, cache_dir=access.cache_dir)
        if isinstance(config, str):
            with contextlib.suppress(ModelError, OSError):  # Incomplete: a download goes on from there.
                check_folder(Path(config).parent)
                return Path(config).parent
    return None


def _check_name(repo: str) -> None:
    part = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
    if not re.fullmatch(f"({part}/)?{part}", repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise ModelError(
            f"'{repo}' is neither a directory here nor a name that a model on the hub can have (NAME or OWNER/NAME)"
        )


class Download:
    """One repository on its way to the cache. probe_s: how long the hub may take to say that it is there.

    stall_s: how long nothing at all may arrive. A finished file is kept whatever happens later, so a second try goes on
    from the first missing file.
    """

    def __init__(self, repo: str, access: Access, probe_s: float, stall_s: float = STALL_S) -> None:
        self.repo = repo
        self._access = access
        self._probe_s = probe_s
        self._stall_s = stall_s
        self._endpoint = (access.endpoint or constants.ENDPOINT).rstrip("/")
        self._meter = Meter()

    def run(self, progress: Callable[[Progress], None]) -> Path:
        """Fetch what is missing and return the complete folder. Raises ModelError."""
        try:
            with _quiet():
                files = self._look_up()
                return self._fetch(files, progress)
        except ModelError:
            raise
        except Exception as error:
            # The library's transport, and its errors, changed between its versions; explain() sorts them by meaning.
            raise explain(error, self.repo, self._endpoint, self._cache_dir) from error

    @property
    def _cache_dir(self) -> Path:
        return self._access.cache_dir or Path(constants.HF_HUB_CACHE)

    def _look_up(self) -> dict[str, int]:
        """The needed files and their sizes; 0 where the hub does not say."""
        api = HfApi(endpoint=self._endpoint, token=self._access.token)
        # The thread bounds what the library's timeout does not: name resolution and answers that trickle.
        info = watched(
            lambda: api.model_info(self.repo, files_metadata=True, timeout=self._probe_s), self._probe_s, lambda: 0
        )
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
        try:
            return {name: sizes[name] for name in wanted_files(sizes)}
        except ModelError as error:
            raise HubError(f"{self.repo} on {self._endpoint} cannot be served", str(error)) from error

    def _fetch(self, files: dict[str, int], progress: Callable[[Progress], None]) -> Path:
        self._check_space(sum(size for name, size in files.items() if not self._is_cached(name)))
        total, meter = sum(files.values()), self._meter

        def tick() -> int:
            progress(Progress(f"downloading {self.repo}", min(meter.done, total), total))
            return meter.events

        try:
            folder = watched(lambda: self._fetch_files(files), self._stall_s, tick)
        finally:
            meter.cancelled = True
        progress(Progress(f"downloading {self.repo}", total, total))
        try:
            check_folder(folder)
        except ModelError as error:
            raise HubError(f"{self.repo} on {self._endpoint} cannot be served", str(error)) from error
        return folder

    def _is_cached(self, name: str) -> bool:
        return isinstance(try_to_load_from_cache(self.repo, name, cache_dir=self._cache_dir), str)

    def _fetch_files(self, files: dict[str, int]) -> Path:
        # The config by the branch's name, which the library then remembers; the rest from the same commit.
        folder = Path(self._fetch_file(CONFIG, revision="main")).parent
        saved_scheme(folder)  # weights of a form that is refused are not worth the wait
        self._meter.finish(files.get(CONFIG, 0))
        for name, num_bytes in files.items():
            if name != CONFIG:
                self._fetch_file(name, revision=folder.name)
                self._meter.finish(num_bytes)
        return folder

    def _fetch_file(self, name: str, revision: str) -> str:
        return hf_hub_download(
            self.repo,
            name,
            revision=revision,
            endpoint=self._endpoint,
            cache_dir=self._cache_dir,
            token=self._access.token,
            etag_timeout=self._probe_s,
            tqdm_class=self._meter.bar_class(),
        )

    def _check_space(self, needed: int) -> None:
        place = self._cache_dir.absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if needed > free:
            reason = f"{self.repo} needs up to {size(needed)} and {self._cache_dir} has {size(free)} free"
            raise HubError(reason, "make room there, or choose another cache directory")


class Meter:
    """Bytes that have arrived, from the bars that the library thinks it draws. Written by the download's thread."""

    def __init__(self) -> None:
        self.events = 0
        self.cancelled = False
        self._finished = 0
        self._current = 0

    @property
    def done(self) -> int:
        return self._finished + self._current

    def start(self, initial: int) -> None:
        self._current = initial
        self.events += 1

    def add(self, num_bytes: int) -> None:
        if self.cancelled:
            raise InterruptedError("nobody waits for this download any more")
        self._current += num_bytes
        self.events += 1

    def finish(self, num_bytes: int) -> None:
        """A file is there; its true size replaces what its bars said."""
        self._finished += num_bytes
        self._current = 0
        self.events += 1

    def bar_class(self) -> Any:
        """A class with as much of tqdm's face as the library touches; it draws nothing."""
        meter = self

        class Bar:
            def __init__(self, *_: object, total: float | None = None, initial: float = 0, **__: object) -> None:
                self.n, self.total = initial, total
                meter.start(int(initial))

            def __enter__(self) -> Bar:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def update(self, n: float | None = 1) -> None:
                meter.add(int(n or 0))

            def update_transfer(self, _: float | None = 1) -> None:
                """Bytes on the wire before they are put together: a sign of life, counted when they are written."""
                meter.add(0)

            def ignore(self, *_: object, **__: object) -> None:
                pass

            close = refresh = reset = set_description = set_description_str = ignore
            set_postfix_str = set_transfer_postfix_str = ignore

        return Bar


def watched(work: Callable[[], T], patience_s: float, tick: Callable[[], int]) -> T:
    """Run work in a thread of its own. Raises TimeoutError when tick() has returned the same for patience_s.

    tick is called in this thread, about ten times a second. A thread that is given up on dies with the process.
    """
    result: list[T] = []
    failure: list[BaseException] = []
    finished = threading.Event()

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            finished.set()

    threading.Thread(target=run, name="hub", daemon=True).start()
    seen, since = tick(), time.monotonic()
    while not finished.wait(TICK_S):
        now = tick()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience_s:
            raise TimeoutError(f"waited {patience_s:g} s")
    if failure:
        raise failure[0]
    return result[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no warnings of the library's own: the caller shows progress and errors. Debug logging stays."""
    level, hidden = library_logging.get_verbosity(), are_progress_bars_disabled()
    if level >= logging.WARNING:
        library_logging.set_verbosity(logging.ERROR)
    if not hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        library_logging.set_verbosity(level)
        if not hidden:
            enable_progress_bars()
