"""Queue: who waits, in which order. Knows no slot, no block and no policy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from ridgeline.scheduler.job import Job


class Queue(Protocol):
    def push(self, job: Job) -> None:
        """A new request."""
        ...

    def push_front(self, job: Job) -> None:
        """A preempted request: it goes before everybody who waits."""
        ...

    def ordered(self) -> Iterator[Job]:
        """Who should be admitted first, lazily: a step looks at few of them."""
        ...

    def remove(self, key: int) -> Job:
        """Take out the job with this key, however long the queue is."""
        ...

    def __len__(self) -> int: ...


class Fifo:
    """First come, first served."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[int, Job] = OrderedDict()

    def push(self, job: Job) -> None:
        self._jobs[job.key] = job

    def push_front(self, job: Job) -> None:
        self._jobs[job.key] = job
        self._jobs.move_to_end(job.key, last=False)

    def ordered(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def remove(self, key: int) -> Job:
        return self._jobs.pop(key)

    def __len__(self) -> int:
        return len(self._jobs)
