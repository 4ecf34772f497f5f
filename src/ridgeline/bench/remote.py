"""Remote: the server at the other end of the wire. Knows routes and JSON; knows nothing of what the load is for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from ridgeline.bench.clock import Clock
from ridgeline.bench.events import Events, NoCompletion, StreamError
from ridgeline.bench.records import Reply, ServerTimings, Shape
from ridgeline.core.errors import ConfigError, RidgelineError, Unavailable
from ridgeline.core.plaintext import harmless

# The server's own probe of its engine may take 5 s; a request for facts has no reason to take longer than this.
FACTS_TIMEOUT_S = 15.0
MESSAGE_LENGTH = 200
MOST = 1e300

REFUSED = "refused"
TIMEOUT = "timeout"
CONNECTION = "connection"
BROKEN = "broken stream"
NOT_A_COMPLETION = "no completion"


# What reading a body of another form comes to.
_NO_COMPLETION = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)


class Unreachable(Unavailable):
    """Nothing listens at the address, or what listens hangs up."""


class RequestFailed(RidgelineError):
    """A request brought no completion; the text is equal for failures of the same cause.

    kind: `refused` (429: the server has enough to do, which is no fault), `timeout`, `connection`, `broken stream`,
    `no completion`, or the server's own word: `HTTP 400 context_length_exceeded`, `error event server_error`.
    """

    def __init__(self, kind: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Ready:
    """The server takes requests. ridgeline: it said so in Ridgeline's words, so it reports timings too."""

    ridgeline: bool


@dataclass(frozen=True, slots=True)
class Starting:
    """Not yet. percent: of the phase, None where nobody knows. Two equal values mean that nothing has moved."""

    phase: str
    percent: float | None
    done: float | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """The server answers, but will never take a request."""

    message: str


State = Ready | Starting | Broken


def bearer(api_key: str | None) -> dict[str, str]:
    """The header by which clients of OpenAI's interface show a key; none without one."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


class Remote:
    def __init__(self, session: aiohttp.ClientSession, url: str, timeout_s: float, clock: Clock) -> None:
        self.url = url.rstrip("/")
        self._session = session
        self._clock = clock
        self._timeout_s = timeout_s
        self._fields: dict[str, Any] = {}

    async def state(self) -> State:
        """What /ready says. Raises Unreachable, and ConfigError where the server wants a key."""
        try:
            status, text = await self._call("GET", "/ready", FACTS_TIMEOUT_S)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable(str(error)) from error
        except TimeoutError:
            return Starting("not answering yet", None)
        except aiohttp.ClientError as error:
            raise Unreachable(str(error)) from error
        self._check_key(status, text)
        body = _json_object(text)
        word = body.get("status")
        if status != 503:
            return Ready(ridgeline=status == 200 and word == "ready")
        if word is None or word == "failed":
            return Broken(_shortened(str(body.get("message") or text)))
        return Starting(
            phase=_shortened(str(body.get("phase") or word)),
            percent=_finite(body.get("percent")),
            done=_finite(body.get("done")),
        )

    async def model(self) -> dict[str, Any]:
        """The first entry of /v1/models, empty where the server has no such route. Raises ConfigError as `state`."""
        try:
            status, text = await self._call("GET", "/v1/models", FACTS_TIMEOUT_S)
        except (aiohttp.ClientError, TimeoutError):
            return {}
        self._check_key(status, text)
        data = _json_object(text).get("data")
        return dict(data[0]) if isinstance(data, list) and data and isinstance(data[0], dict) else {}

    def always_send(self, fields: Mapping[str, Any]) -> None:
        """Fields that every completion's body carries from now on."""
        self._fields |= fields

    async def complete(self, shape: Shape, sent_s: float) -> Reply:
        """One completion, in one piece or as a stream, as the server answers it. Raises RequestFailed.

        sent_s: the clock's now, which the stamps of a stream's events count from.
        """
        body = json.dumps({"prompt": shape.prompt, "max_tokens": shape.max_tokens} | self._fields).encode()
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        url, kind = f"{self.url}/v1/completions", {"content-type": "application/json"}
        try:
            async with self._session.post(url, data=body, headers=kind, timeout=timeout) as response:
                if response.status != 200:
                    raise _refusal(response.status, await response.text("utf-8", "replace"), response.headers)
                if response.content_type != "text/event-stream":
                    return _reply(json.loads(await response.read()))
                return await self._stream(response.content, sent_s)
        except TimeoutError as error:
            raise RequestFailed(TIMEOUT, f"no answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise RequestFailed(CONNECTION, _why_not_connected(error)) from error
        except aiohttp.ClientPayloadError as error:
            raise RequestFailed(BROKEN, f"the answer broke off ({type(error).__name__})") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise RequestFailed(CONNECTION, f"connection lost ({type(error).__name__})") from error
        except _NO_COMPLETION as error:
            text = f"an answer that is no completion ({type(error).__name__}: {_shortened(str(error))})"
            raise RequestFailed(NOT_A_COMPLETION, text) from error

    async def _stream(self, content: aiohttp.StreamReader, sent_s: float) -> Reply:
        events = Events()
        try:
            async for data in content.iter_any():  # whatever came at once, so that a burst costs one turn of the loop
                events.feed(data, (self._clock.now() - sent_s) * 1e3)
            return events.reply()
        except StreamError as error:
            kind = f"error event {error.word}".rstrip()
            raise RequestFailed(kind, f"{kind}: {_shortened(str(error))}") from error
        except NoCompletion as error:
            raise RequestFailed(BROKEN, f"a broken stream ({_shortened(str(error))})") from error

    def _check_key(self, status: int, text: str) -> None:
        if status in (401, 403):
            raise ConfigError(
                f"the server at {self.url} wants a key (HTTP {status}: {_error_message(text)}); put one that it takes "
                "into OPENAI_API_KEY"
            )

    async def _call(self, method: str, path: str, timeout_s: float) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._session.request(method, self.url + path, timeout=timeout) as response:
            return response.status, (await response.read()).decode("utf-8", "replace")


def _refusal(status: int, text: str, headers: Mapping[str, str]) -> RequestFailed:
    error = _json_object(text).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    kind = REFUSED if status == 429 else f"HTTP {status}" + (f" {harmless(code)}" if isinstance(code, str) else "")
    return RequestFailed(kind, f"HTTP {status}: {_error_message(text)}", _seconds(headers.get("Retry-After")))


def _why_not_connected(error: aiohttp.ClientConnectorError) -> str:
    # aiohttp's error about a certificate is of this class too and has no os_error.
    cause: OSError | None = getattr(error, "os_error", None)
    if cause is None:
        return _shortened(f"no connection ({type(error).__name__}: {error})")
    why = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or str(cause)
    return _shortened(f"no connection: {why[:1].lower()}{why[1:]}")


def _finite(value: Any) -> float | None:
    """A number that can be shown; whatever else a server writes there is none."""
    return value if type(value) in (int, float) and abs(value) < MOST else None


def _seconds(text: str | None) -> float | None:
    """Retry-After as a number of seconds; its other form, a date, is not used by servers of models."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _reply(body: Mapping[str, Any]) -> Reply:
    timings = body["choices"][0].get("timings")
    return Reply(
        prompt_tokens=int(body["usage"]["prompt_tokens"]),
        tokens=int(body["usage"]["completion_tokens"]),
        timings=None if timings is None else ServerTimings.parse(timings),
    )


def _json_object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _error_message(text: str) -> str:
    error = _json_object(text).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return _shortened(str(message or text))


def _shortened(text: str) -> str:
    line = harmless(" ".join(text.split())) or "no message"
    return line if len(line) <= MESSAGE_LENGTH else line[:MESSAGE_LENGTH] + "..."
