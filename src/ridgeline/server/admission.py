"""Admission: who may wait. Counts requests and tokens that have no first token yet; knows no HTTP and no engine.

A place is taken before any work is done for a request, so that a refusal costs nothing; its tokens are added once they
are known. Both bounds hold at every moment.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from ridgeline.core.errors import BadRequest, Overloaded
from ridgeline.server.limits import Limits

RATE_WINDOW_S = 30.0
MIN_RETRY_S, MAX_RETRY_S = 1, 60

Clock = Callable[[], float]


class Rate:
    """Things a second, lately: each counts less by a factor e for every RATE_WINDOW_S since.

    Its seconds are those in which somebody waited: an idle hour says nothing about how fast the next one goes.
    """

    def __init__(self) -> None:
        self._at_s = self._sum = 0.0

    def add(self, amount: int, at_s: float) -> None:
        self._sum = self._faded(at_s) + amount
        self._at_s = at_s

    def per_s(self, at_s: float) -> float:
        # What was seen of the window: otherwise a server that has just started would look slow.
        seen_s = RATE_WINDOW_S * -math.expm1(-at_s / RATE_WINDOW_S)
        return self._faded(at_s) / seen_s if seen_s > 0 else 0.0

    def _faded(self, at_s: float) -> float:
        return self._sum * math.exp((self._at_s - at_s) / RATE_WINDOW_S)


class Admission:
    """clock: seconds. One event loop's thread owns it."""

    def __init__(self, limits: Limits, clock: Clock = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self.queued_requests = self.queued_tokens = 0
        self._by_key: Counter[str] = Counter()
        self._left_requests, self._left_tokens = Rate(), Rate()
        self._busy_s = 0.0  # in which somebody waited, up to the last time that nobody did
        self._waiting_since_s = 0.0

    def enter(self, requests: int, key: str | None = None, field: str = "n") -> Place:
        """Take places before the tokens are known. Raises Overloaded, or BadRequest for more than there ever are.

        requests: generations. field: of the client's request, that made them so many.
        """
        limits = self._limits
        if requests > limits.queued_requests:
            message = f"{field}: {requests} generations; this server lets at most {limits.queued_requests} wait"
            raise BadRequest(message, param=field)
        if key is not None and limits.concurrent_per_key is not None:
            self._check_key(key, requests, limits.concurrent_per_key, field)
        self.check(requests)
        if not self.queued_requests:
            self._waiting_since_s = self._clock()
        self.queued_requests += requests
        if key is not None:
            self._by_key[key] += requests
        return Place(self, requests, key)

    def check(self, requests: int = 1) -> None:
        """Raises Overloaded if that many could not enter now."""
        over = self.queued_requests + requests - self._limits.queued_requests
        if over > 0:
            raise self._overloaded("requests", self.queued_requests, over, self._left_requests)
        if self.queued_tokens >= self._limits.queued_tokens:
            raise self._overloaded("tokens", self.queued_tokens, 1, self._left_tokens)

    def _check_key(self, key: str, requests: int, most: int, field: str) -> None:
        if requests > most:
            raise BadRequest(f"{field}: {requests} generations; an API key may have {most} under way", param=field)
        if self._by_key[key] + requests > most:
            message = f"this API key has {self._by_key[key]} requests under way, and may have {most}"
            raise Overloaded(message, "requests", "key", MIN_RETRY_S)

    def _weigh(self, tokens: int, field: str) -> None:
        if tokens > self._limits.queued_tokens:
            message = f"{field}: {tokens} tokens; this server lets at most {self._limits.queued_tokens} wait"
            raise BadRequest(message, param=field)
        over = self.queued_tokens + tokens - self._limits.queued_tokens
        if over > 0:
            raise self._overloaded("tokens", self.queued_tokens, over, self._left_tokens)
        self.queued_tokens += tokens

    def _overloaded(self, kind: str, queued: int, over: int, rate: Rate) -> Overloaded:
        per_s = rate.per_s(self._busy())
        # Nobody has left yet: it will take as long again as it took so far, the best guess without a rate.
        wait_s = over / per_s if per_s > 1e-9 else self._busy()
        retry_s = min(MAX_RETRY_S, max(MIN_RETRY_S, math.ceil(wait_s)))
        message = f"{queued} {kind} are waiting, as many as this server takes; try again in {retry_s} s"
        return Overloaded(message, kind, f"queued_{kind}", retry_s)

    def _left(self, requests: int, tokens: int) -> None:
        at_s = self._busy()
        self._left_requests.add(requests, at_s)
        self._left_tokens.add(tokens, at_s)
        self.queued_tokens -= tokens
        self._forget(requests)

    def _forget(self, requests: int) -> None:
        at_s = self._busy()
        self.queued_requests -= requests
        if not self.queued_requests:
            self._busy_s = at_s

    def _busy(self) -> float:
        """Seconds in which somebody waited, so far."""
        return self._busy_s + (self._clock() - self._waiting_since_s if self.queued_requests else 0.0)

    def _gone(self, requests: int, key: str | None) -> None:
        if key is not None:
            self._by_key[key] -= requests
            if not self._by_key[key]:
                del self._by_key[key]


class Place:
    """What one HTTP request holds of the queue: a place for each generation. leave() may be called at any time."""

    def __init__(self, admission: Admission, requests: int, key: str | None) -> None:
        self._admission, self._requests, self._key = admission, requests, key
        self._waiting = dict.fromkeys(range(requests), 0)  # sequence -> its prompt's tokens
        self._weighed = self._over = False

    def weigh(self, tokens: Sequence[int], field: str = "prompt") -> None:
        """tokens: of the prompt of each generation. field: of the client's request, that holds them.

        Raises Overloaded or BadRequest; then leave() is still due.
        """
        assert len(tokens) == self._requests
        self._admission._weigh(sum(tokens), field)
        self._waiting = dict(enumerate(tokens))
        self._weighed = True

    def began(self, index: int) -> None:
        """This sequence has its first token, or will get none."""
        tokens = self._waiting.pop(index, None)
        if tokens is not None:
            self._admission._left(1, tokens)

    def leave(self) -> None:
        """The request is over; harmless when called again."""
        if self._over:
            return
        self._over = True
        if self._weighed:
            for index in list(self._waiting):
                self.began(index)
        else:  # it never waited for the engine, so its going tells nothing about how fast others go
            self._admission._forget(len(self._waiting))
        self._admission._gone(self._requests, self._key)
