"""What the page's routes say, made by hand: a recording with everything that can be in one, live numbers, requests.

Knows the formats of /v1/recording, /v1/live and /v1/requests; the numbers mean nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]

PHASES = ["prefill", "decode", "recomputed"]
STALLS = ["", "window", "slots", "blocks", "budget", "order"]
WHATS = ["arrived", "admitted", "first_token", "preempted", "ended"]
SLOTS = 8


@dataclass
class _Guest:
    key: int
    arrival: int
    prompt: int
    tokens: int
    computed: int = 0
    made: int = 0
    was: int = 0  # what it had computed before a preemption

    @property
    def length(self) -> int:
        return self.prompt + self.made


@dataclass
class _Tables:
    steps: dict[str, list[Any]] = field(default_factory=dict)
    rows: dict[str, list[Any]] = field(default_factory=dict)
    lives: dict[str, list[Any]] = field(default_factory=dict)

    @staticmethod
    def put(table: dict[str, list[Any]], **values: Any) -> None:
        for name, value in values.items():
            table.setdefault(name, []).append(value)


def recording(steps: int = 160, seed: int = 7) -> Json:
    """A made-up run: requests come, wait for a window or a slot, are prefilled in pieces, and some are preempted."""
    chance, tables, now_us = random.Random(seed), _Tables(), 0.0
    waiting: list[_Guest] = []
    seated: list[_Guest] = []
    coming = [_Guest(12 + i, int(i * 3.4), chance.randint(20, 180), chance.randint(6, 44)) for i in range(steps // 4)]
    for serial in range(steps):
        for guest in [one for one in coming if one.arrival == serial]:
            waiting.append(guest)
            tables.put(tables.lives, key=guest.key, at_us=now_us, serial=serial - 1, what=0)
        stall = ""
        if serial % 45 == 40 and len(seated) > 3:
            stall = _preempt(seated, waiting, tables, now_us, serial)
        elif serial < 4:
            stall = "window"
        while waiting and len(seated) < SLOTS and not stall:
            seated.append(waiting.pop(0))
            tables.put(tables.lives, key=seated[-1].key, at_us=now_us, serial=serial - 1, what=1)
        if waiting and not stall:
            stall = "slots"
        stall = _step(seated, tables, now_us, serial, len(waiting), stall)
        now_us = tables.steps["collected_us"][-1] + 40
    names = {str(one.key): f"cmpl-{chance.getrandbits(64):016x}-0" for one in coming}
    return {
        "kind": "ridgeline-recording", "version": 1, "model": "demo", "device": "cpu", "batching": "continuous",
        "block_size": 16, "num_blocks": 128, "made_unix_s": 1764150000.0, "origin_ns": 10**12, "reason": "asked",
        "message": None, "steps": tables.steps, "rows": tables.rows, "lives": tables.lives, "names": names,
        "phases": PHASES, "stalls": STALLS, "whats": WHATS,
    }  # fmt: skip


def _preempt(seated: list[_Guest], waiting: list[_Guest], tables: _Tables, now_us: float, serial: int) -> str:
    guest = seated.pop()
    guest.was, guest.computed = guest.computed, 0
    waiting.insert(0, guest)
    tables.put(tables.lives, key=guest.key, at_us=now_us, serial=serial - 1, what=3)
    return "blocks"


def _step(seated: list[_Guest], tables: _Tables, now_us: float, serial: int, waiting: int, stall: str) -> str:
    budget, rows, tokens, widest = 96, 0, 0, 0
    ended = []
    for guest in seated:
        count = min(guest.length - guest.computed, budget)
        if count == 0:
            stall = "budget"
            continue
        phase = "recomputed" if guest.computed < guest.was else "decode" if count == 1 and guest.made else "prefill"
        made = int(guest.computed + count == guest.length)
        tables.put(tables.rows, key=guest.key, start=guest.computed, count=count, made=made, phase=PHASES.index(phase))
        guest.computed, guest.made, budget = guest.computed + count, guest.made + made, budget - count
        rows, tokens, widest = rows + 1, tokens + made, max(widest, count)
        if guest.made == guest.tokens:
            ended.append(guest)
    took_us = 900 + 14 * (96 - budget) + 60 * rows
    positions = rows * widest if widest < 4 else 96 - budget + (-budget) % 16
    tables.put(
        tables.steps, serial=serial, launched_us=now_us, collected_us=now_us + took_us, rows=rows, tokens=tokens,
        positions=positions, padding=positions - (96 - budget), waiting=waiting, horizon=1, stall=STALLS.index(stall),
        kv_blocks=sum(math.ceil(one.computed / 16) for one in seated),
    )  # fmt: skip
    for guest in ended:
        seated.remove(guest)
        tables.put(tables.lives, key=guest.key, at_us=now_us + took_us, serial=serial, what=4)
    return stall


def listed(index: int) -> Json:
    return {
        "id": f"cmpl-{0x5EED0000 + index:08x}", "state": "running" if index > 21 else "done", "model": "demo",
        "created": 1764150000 + index, "prompt_tokens": 12 + 5 * index, "completion_tokens": 16 + index % 40,
        "finish_reason": None if index > 21 else "length" if index % 3 else "stop",
        "wall_ms": 180.0 + 31.7 * (index % 9), "device_ms": 21.0 + 3.4 * (index % 7),
    }  # fmt: skip


def request(name: str) -> Json:
    """A request that waited, was prefilled beside others, and was preempted once."""
    runs = [
        ("queued", 2.4, 61.0), ("prefill", 61.0, 74.5), ("others", 74.5, 93.0), ("prefill", 93.0, 101.5),
        *(("decode" if i % 4 else "others", 101.5 + 8 * i, 109.5 + 8 * i) for i in range(12)),
        ("preempted", 197.5, 231.0), ("recomputed", 231.0, 246.0), ("decode", 246.0, 331.6),
    ]  # fmt: skip
    parts = {"received": 0.6, "tokenised": 1.8, "window": 0.0}
    for part, start, end in runs:
        parts[part] = parts.get(part, 0.0) + end - start
    order = ["received", "tokenised", "window", "queued", "prefill", "others", "decode", "preempted", "recomputed"]
    ended = {"delivered": 0.4, "detokenised": 0.3, "socket": 0.1}
    generation = {
        "index": 0, "key": 12, "wall_ms": 332.4, "device_ms": 41.7, "steps": 38, "mean_rows": 5.6, "preemptions": 1,
        "cached_tokens": 16, "prompt_tokens": 142, "completion_tokens": 33,
        "parts": [{"name": one, "ms": parts.get(one, 0.0)} for one in order]
        + [{"name": one, "ms": value} for one, value in ended.items()],
        "overlapped": {"detokenised_ms": 2.1, "socket_ms": 0.4},
        "spans": [{"name": part, "start_ms": start, "end_ms": end} for part, start, end in runs],
    }  # fmt: skip
    return {**listed(3), "id": name, "generations": [generation]}


def event(index: int, at_s: float) -> Json:
    """The index-th event of a live stream."""
    wave, slow = math.sin(index / 6), math.sin(index / 23)
    return {
        "at_s": at_s, "tokens_per_s": 1900 + 520 * wave + 240 * slow, "prompt_tokens_per_s": max(0.0, 900 * slow),
        "steps_per_s": 310 + 20 * wave, "mean_rows": 6.1 + 1.6 * wave, "running": round(6.2 + 1.9 * wave),
        "waiting": max(0, round(4 * slow)), "kv_blocks": round(70 + 30 * slow + 6 * wave), "num_blocks": 128,
        "prefix_hit_rate": 0.42 + 0.1 * slow, "padding": 0.06 + 0.04 * abs(wave), "preemptions": index // 20,
        "step_ms": 3.1 + 0.3 * wave, "mbu": 0.61 + 0.07 * wave, "mbu_of": "measured 24.1 GB/s",
        "ttft_ms": {"p50": 24 + 3 * wave, "p95": 61 + 9 * slow}, "itl_ms": {"p50": 3.2, "p95": 5.4 + wave},
        "e2e_ms": {"p50": 190.0, "p95": 412 + 40 * slow}, "requests": [listed(i) for i in range(24, 4, -1)],
    }  # fmt: skip


class Sights:
    """The routes as a page asks them. streams: open now; opened: so far; asked: for recordings."""

    def __init__(self, start_s: float = 1764150000.0) -> None:
        self.start_s = start_s
        self.streams = self.opened = self.asked = 0
        self._ended = 0  # streams up to this one have ended
        self.recording = recording()

    def end_streams(self) -> None:
        self._ended = self.opened

    def routes(self) -> list[Route]:
        return [
            Route("/v1/live", self._live),
            Route("/v1/recording", self._recording),
            Route("/v1/requests", lambda _: JSONResponse({"object": "list", "data": [listed(i) for i in range(20)]})),
            Route("/v1/requests/{id}", lambda asked: JSONResponse(request(asked.path_params["id"]))),
        ]

    async def _live(self, _request: Request) -> Response:
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[bytes]:
        self.streams, self.opened = self.streams + 1, self.opened + 1
        which, index = self.opened, 120 * (self.opened == 1)
        try:
            for past in range(index):
                yield self._told(past)
            while which > self._ended:
                yield self._told(index)
                index += 1
                await asyncio.sleep(0.1)
        finally:
            self.streams -= 1

    def _told(self, index: int) -> bytes:
        return f"data: {json.dumps(event(index, self.start_s + index / 2))}\n\n".encode()

    async def _recording(self, _request: Request) -> Response:
        self.asked += 1
        return JSONResponse(self.recording)
