"""Black box: one engine's recording as the process that started it has it, also when the engine is dead.

And where it goes then: crash reports, the newest of which are kept. Knows what kind of engine it was; knows no HTTP.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ridgeline.core.flight import Reason, Recording
from ridgeline.engine.messages import EngineInfo
from ridgeline.engine.recorder import Recorder

KEPT = 10
_OURS = re.compile(r"crash-\d{8}T\d{6}Z-\d+-\d+\.json")
EVERY_STEP = 2**62


class BlackBox:
    """names: ids of requests by key, from whoever knows them; nobody does at first."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.names: Callable[[], Mapping[int, str]] = dict

    def recording(
        self,
        info: EngineInfo,
        model: str,
        steps: int = EVERY_STEP,
        reason: Reason = "asked",
        message: str | None = None,
    ) -> Recording | None:
        """The newest steps; None where nothing is recorded. Takes milliseconds for all of them.

        model: what clients call it. message: why the engine died, where that is the reason.
        """
        found = self._recorder.newest(steps)
        if found is None:
            return None
        recording = Recording(
            model=model,
            device=info.device,
            batching=info.batching,
            block_size=info.block_size,
            num_blocks=info.num_blocks,
            made_unix_s=time.time(),
            steps=found[0],
            rows=found[1],
            lives=found[2],
            reason=reason,
            message=message,
        ).newest(steps)
        return recording.named(self.names())


class CrashReports:
    """folder: where they go; the newest KEPT of them stay."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._serials = folder, itertools.count(1)

    def write(self, recording: Recording | None) -> str:
        """What is left of an engine that died. Says where it is, or why it is not, in a sentence for the log."""
        if recording is None:
            return "nothing was recorded of the engine that died (--recorder off)"
        now = datetime.datetime.now(datetime.UTC)
        path = self._folder / f"crash-{now:%Y%m%dT%H%M%SZ}-{os.getpid()}-{next(self._serials)}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(recording.encoded())
        except OSError as error:
            return f"the recording of the engine that died could not be written: {error}"
        with contextlib.suppress(OSError):  # it is there; that an old one stays is no reason to say it is not
            self._forget()
        return (
            f"the last {len(recording.steps)} steps of the engine that died are in {path}; "
            f"see them with `ridgeline pipeline {path}`"
        )

    def _forget(self) -> None:
        """Delete our own reports but the newest."""
        ours = [path for path in self._folder.iterdir() if _OURS.fullmatch(path.name)]
        for old in sorted(ours, key=lambda path: (path.stat().st_mtime_ns, path.name))[:-KEPT]:
            old.unlink(missing_ok=True)
