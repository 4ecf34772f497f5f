"""Visit: one HTTP request in the books, from its arrival to its last byte. Knows no route and no token.

Whoever answers tells it what happens (entered, weighed, began, ended, failed); the queue, the counters and the log
follow from that, also when the client leaves half way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from ridgeline.core.errors import Overloaded, RidgelineError, TimedOut
from ridgeline.core.types import End
from ridgeline.engine.course import Course
from ridgeline.server.admission import Admission, Place
from ridgeline.server.ledger import Ledger
from ridgeline.server.logs import tell
from ridgeline.server.metrics import Metrics
from ridgeline.server.recent import Recent
from ridgeline.server.requests import Record, Requests, Run

CLIENT_LEFT = 499  # as nginx logs it: the client was gone before an answer began


@dataclass(frozen=True, slots=True)
class Books:
    """What all requests of one application are written down in."""

    admission: Admission
    metrics: Metrics
    requests: Requests
    recent: Recent
    log_prompts: bool = False
    request_timeout_s: float | None = None


@dataclass(slots=True)
class Visit:
    """arrived_ns: perf_counter, the engine's clock. key: the name of the API key. operator: may see what is others'.

    error: OpenAI's code, or the type. record: what is kept of a request that generates.
    """

    books: Books
    request_id: str
    method: str
    path: str
    key: str | None = None
    operator: bool = False
    arrived_ns: int = field(default_factory=time.perf_counter_ns)
    error: str | None = None
    prompts: tuple[Any, ...] | None = None
    prompt_tokens: list[int] = field(default_factory=list)
    completion_tokens: int = 0
    finish: list[str] = field(default_factory=list)
    record: Record | None = None
    _each: int = 1
    _place: Place | None = None
    _deadline_ns: int | None = None
    _closed: bool = False

    def __post_init__(self) -> None:
        self.limit(self.books.request_timeout_s)

    def limit(self, timeout_s: float | None) -> None:
        """The request may take that long from its arrival; the shortest limit counts."""
        if timeout_s is not None:
            deadline_ns = self.arrived_ns + int(timeout_s * 1e9)
            self._deadline_ns = min(deadline_ns, self._deadline_ns or deadline_ns)

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None: there is none."""
        if self._deadline_ns is None:
            return None
        return max(0.0, (self._deadline_ns - time.perf_counter_ns()) / 1e9)

    def timed_out(self) -> TimedOut:
        passed_s = (time.perf_counter_ns() - self.arrived_ns) / 1e9
        return TimedOut(f"the request was ended after {passed_s:.1f} s, the time it was allowed", "deadline_exceeded")

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """What is awaited inside is ended at the deadline. Raises TimedOut."""
        try:
            async with asyncio.timeout(self.left_s):
                yield
        except TimeoutError:
            raise self.timed_out() from None

    def opened(self, model: str) -> None:
        """It asks for a generation: what becomes of it is kept."""
        new = Record(self.request_id, self.key, model, int(time.time()), self.arrived_ns)
        self.record = self.books.requests.open(new)

    def parsed(self) -> None:
        """Its body is read and understood."""
        assert self.record is not None, "opened() comes first"
        self.record.parsed_ns = time.perf_counter_ns()

    def named(self, answer_id: str) -> None:
        """The answer has an id of its own."""
        assert self.record is not None, "opened() comes first"
        self.record.answer_id = answer_id

    def asked(self, course: Course, ids: Sequence[int]) -> None:
        """The engine was asked for one more generation. ids: its tokens, as they will come."""
        assert self.record is not None, "opened() comes first"
        index = len(self.record.runs)
        self.books.requests.begun(self.record, Run(index, course, self.prompt_tokens[index // self._each], ids))

    def ledger(self, course: Course) -> Ledger:
        """As far as it is."""
        assert self.record is not None, "opened() comes first"
        return self.record.ledger(course)

    def sees(self, record: Record) -> bool:
        """Whether this request may be told of that one."""
        return self.operator or (self.key is not None and self.key == record.key)

    def enter(self, prompts: tuple[Any, ...], generations: int, field: str) -> None:
        """Before any work is done for it; field: what made them so many. Raises Overloaded and BadRequest."""
        if self.books.log_prompts:
            self.prompts = prompts
        self._place = self.books.admission.enter(generations, self.key, field)

    def weigh(self, prompt_tokens: Sequence[int], each: int, field: str) -> None:
        """prompt_tokens: of each prompt, of which each is computed that many times. field: where they stand.

        Raises Overloaded and BadRequest.
        """
        assert self._place is not None, "enter() comes first"
        self.prompt_tokens, self._each = list(prompt_tokens), each
        if self.record is not None:
            self.record.prompt_tokens = sum(prompt_tokens)
        self._place.weigh([tokens for tokens in prompt_tokens for _ in range(each)], field)

    def began(self, index: int) -> None:
        """This generation has its first token."""
        if self._place is not None:
            self._place.began(index)
        self.books.metrics.began(self.prompt_tokens[index // self._each])
        self.books.recent.first_token(time.perf_counter_ns() - self.arrived_ns)

    def ended(self, index: int, completion_tokens: int, reason: str, end: End | None) -> None:
        """A generation is over; end is None where nobody waited for it, as when the client left."""
        self.completion_tokens += completion_tokens
        self.finish.append(reason)
        self.books.metrics.ended(reason, completion_tokens)
        if self.record is not None:
            self.record.runs[index].settle(completion_tokens, reason)
        if end is not None:
            self.books.metrics.timed(end.timings, self.arrived_ns, completion_tokens)
            self.books.recent.ended(end.timings, self.arrived_ns, completion_tokens)

    def failed(self, error: RidgelineError) -> None:
        """What the client is told went wrong."""
        self.error = getattr(error, "code", None) or type(error).__name__
        if isinstance(error, Overloaded):
            self.error = "rate_limit_exceeded"
            self.books.metrics.refused(error.reason)

    def close(self, status: int) -> None:
        """The last byte is handed over, or nobody takes it; harmless when called again. status 0: no answer began."""
        if self._closed:
            return
        self._closed = True
        if self._place is not None:
            self._place.leave()
        status = status or CLIENT_LEFT
        if self.record is not None:
            self.record.status, self.record.error = status, self.error
        self.books.metrics.answered(status)
        tell("request", self._line(status), logging.ERROR if status == 500 else logging.INFO)

    def over(self) -> None:
        """The last byte is with the socket, or nobody takes it; harmless when called again."""
        if self.record is not None and not self.record.ended_ns:
            self.record.close(time.perf_counter_ns())

    def _line(self, status: int) -> dict[str, Any]:
        return {
            "method": self.method,
            "path": self.path,  # a field and not in the message: the client chose it
            "status": status,
            "ms": round((time.perf_counter_ns() - self.arrived_ns) / 1e6, 1),
            "id": self.request_id,
            "key": self.key,
            "prompt_tokens": sum(self.prompt_tokens) or None,
            "completion_tokens": self.completion_tokens if self.finish else None,
            "finish": self.finish or None,
            "error": self.error,
            "prompts": self.prompts,
        }


def visit_of(scope: Scope) -> Visit:
    """The visit that the gate opened for this request."""
    visit = scope["state"]["visit"]
    assert isinstance(visit, Visit)
    return visit
