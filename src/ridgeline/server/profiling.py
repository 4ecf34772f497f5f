"""The route that profiles the engine: who asked, and what is answered. Knows no profiler; never takes a path."""

from __future__ import annotations

from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from ridgeline.core.errors import BadRequest, EngineDied, Unavailable
from ridgeline.core.profile import shares
from ridgeline.engine.client import EngineClient
from ridgeline.engine.messages import Profiled, ProfileMade
from ridgeline.server.body import json_object, read_body
from ridgeline.server.errors import Conflict, json_response
from ridgeline.server.fields import PROFILE, PROFILE_S, PROFILE_STEPS, read_fields
from ridgeline.server.front import Front
from ridgeline.server.visit import visit_of

Json = dict[str, Any]
_LOST = "the engine was started again since, and the profile that ran was lost with the one before"


class Profiles:
    """GET: how it stands. POST: begin, or end and see. The gate lets only admins in."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._begun_with: EngineClient | None = None  # whose profile was not seen to end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        engine = self._front.service().engine
        try:
            async with visit_of(scope).in_time():
                if scope["method"] == "POST":
                    answer = await self._act(engine, json_object(await read_body(Request(scope, receive))))
                else:
                    answer = state_json(await engine.profile("state"))
        except ClientDisconnect:
            return
        await json_response(answer)(scope, receive, send)

    async def _act(self, engine: EngineClient, values: Json) -> Json:
        given, _ = read_fields(PROFILE, values, "action", lenient=False)
        if given.pop("action") == "start":
            return await self._start(engine, given)
        if given:
            name = next(iter(given))
            raise BadRequest(f"{name}: only with the action start", param=name)
        return await self._stop(engine)

    async def _start(self, engine: EngineClient, given: Json) -> Json:
        bounds: Json = {"max_seconds": PROFILE_S, "max_steps": PROFILE_STEPS, "shapes": False} | given
        state = _done(await engine.profile("start", **bounds))
        self._begun_with = engine
        return state_json(state)

    async def _stop(self, engine: EngineClient) -> Json:
        begun_with, self._begun_with = self._begun_with, None
        if begun_with not in (None, engine):
            raise Conflict(f"no profile is running: {_LOST}", code="profile_lost")
        try:
            state = _done(await engine.profile("stop"))
        except EngineDied:
            raise EngineDied("the engine ended before it had written the profile, which is lost") from None
        assert state.made is not None
        return trace_json(state.made)


def _done(state: Profiled) -> Profiled:
    """Raises Conflict and Unavailable for what was not done as asked."""
    if state.refusal is None:
        return state
    raise Conflict(state.refusal, code="profile_conflict") if state.conflict else Unavailable(state.refusal)


def state_json(state: Profiled) -> Json:
    return {
        "object": "profile.state",
        "status": "running" if state.running else "idle",
        "steps": state.steps,
        "seconds": round(state.seconds, 3),
        "max_steps": state.max_steps,
        "max_seconds": state.max_seconds,
        "last": None if state.made is None else trace_json(state.made),
        "error": state.error,
    }


def trace_json(made: ProfileMade) -> Json:
    places = [
        {
            "region": place.region,
            "place": place.place,
            "calls": place.calls,
            "calls_per_step": round(place.calls / max(1, made.steps), 2),
            "host_ms": round(place.host_ns / 1e6, 3),
            "device_ms": None if place.device_ns is None else round(place.device_ns / 1e6, 3),
            "share": round(share, 4),
        }
        for place, share in zip(made.places, shares(made.places), strict=True)
    ]
    return {
        "object": "profile.trace",
        "path": made.path,
        "bytes": made.bytes,
        "steps": made.steps,
        "seconds": round(made.seconds, 3),
        "ended": made.ended,
        "places": places,
    }
