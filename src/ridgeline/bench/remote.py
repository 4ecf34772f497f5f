"""Remote: the server at the other end of the wire. Knows routes and JSON; knows nothing of what the load is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from ridgeline.bench.records import Reply, ServerTimings, Shape
from ridgeline.core.errors import RidgelineError, Unavailable

# The server's own probe of its engine may take 5 s; a request for facts has no reason to take longer than this.
FACTS_TIMEOUT_S = 15.0
MESSAGE_LENGTH = 200


class Unreachable(Unavailable):
    """Nothing listens at the address, or what listens hangs up."""


class RequestFailed(RidgelineError):
    """A request brought no completion; the text is its kind, equal for failures of the same cause."""


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


class Remote:
    def __init__(self, session: aiohttp.ClientSession, url: str, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._session = session
        self._timeout_s = timeout_s
        self._fields: dict[str, Any] = {}

    async def state(self) -> State:
        """What /ready says. Raises Unreachable."""
        try:
            status, text = await self._call("GET", "/ready", FACTS_TIMEOUT_S)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable(str(error)) from error
        except TimeoutError:
            return Starting("not answering yet", None)
        except aiohttp.ClientError as error:
            raise Unreachable(str(error)) from error
        body = _json_object(text)
        word = body.get("status")
        if status != 503:
            return Ready(ridgeline=status == 200 and word == "ready")
        if word is None or word == "failed":
            return Broken(str(body.get("message") or _shortened(text)))
        percent = body.get("percent")
        return Starting(
            phase=str(body.get("phase") or word),
            percent=None if percent is None else float(percent),
            done=body.get("done"),
        )

    async def model(self) -> dict[str, Any]:
        """The first entry of /v1/models, empty where the server has no such route."""
        try:
            _, text = await self._call("GET", "/v1/models", FACTS_TIMEOUT_S)
        except (aiohttp.ClientError, TimeoutError):
            return {}
        data = _json_object(text).get("data")
        return dict(data[0]) if isinstance(data, list) and data and isinstance(data[0], dict) else {}

    def always_send(self, fields: Mapping[str, Any]) -> None:
        """Fields that every completion's body carries from now on."""
        self._fields |= fields

    async def complete(self, shape: Shape) -> Reply:
        """One greedy completion that ends at max_tokens. Raises RequestFailed."""
        body = {"prompt": shape.prompt, "max_tokens": shape.max_tokens, "temperature": 0, "ignore_eos": True}
        try:
            status, text = await self._call("POST", "/v1/completions", self._timeout_s, body | self._fields)
        except TimeoutError as error:
            raise RequestFailed(f"no answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise RequestFailed("connection refused") from error
        except aiohttp.ClientError as error:
            raise RequestFailed(f"connection lost ({type(error).__name__})") from error
        if status != 200:
            raise RequestFailed(f"HTTP {status}: {_error_message(text)}")
        try:
            return _reply(json.loads(text))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise RequestFailed(f"an answer that is no completion ({type(error).__name__}: {error})") from error

    async def _call(self, method: str, path: str, timeout_s: float, body: Any = None) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._session.request(method, self.url + path, json=body, timeout=timeout) as response:
            return response.status, (await response.read()).decode("utf-8", "replace")


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
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _error_message(text: str) -> str:
    error = _json_object(text).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return _shortened(str(message or text))


def _shortened(text: str) -> str:
    line = " ".join(text.split()) or "no message"
    return line if len(line) <= MESSAGE_LENGTH else line[:MESSAGE_LENGTH] + "..."
