"""What a streamed event costs the front: the real server in two processes, with an engine whose device takes no time.

    python scripts/bench_front.py [--connections 256] [--rounds 5] [--out FILE]

Two loads. `events`: the engine waits for the client, never more than --window steps ahead, so that every token is an
event of its own. `tokens`: the engine runs as fast as it can, and a front that lags sends several tokens an event.
The client (lean-epoll: one process, non-blocking sockets, no HTTP library) counts events and tokens in the raw bytes,
checks that every stream had exactly its tokens, and reads every 32nd stream word for word. CPU seconds are the
processes' own; on a busy machine they are the figure to trust. The time before every stream has begun is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import ridgeline
from ridgeline.core.params import SamplingParams
from ridgeline.core.records import provenance, write_run
from ridgeline.core.types import Output, Plan
from ridgeline.engine.channel import ProcessChannel, Report
from ridgeline.engine.engine import Engine, NullSink
from ridgeline.engine.messages import EngineInfo
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import NoPrefix
from ridgeline.scheduler.policies import Continuous
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from ridgeline.server.app import create_app
from ridgeline.server.serve import run_server
from ridgeline.server.service import Service, running_engine
from ridgeline.text.tokenizer import Tokenizer

DEMO = Path(ridgeline.__file__).parent / "assets" / "demo"
CLIENT = "lean-epoll"
BLOCK_SIZE = 16
SETTLE_S = 1.0  # until the last request is in the engine
PATIENCE_S = 60  # without a byte from any stream


@dataclass(frozen=True)
class Script:
    """What every stream recites. The tokens are words with a space before, so a client can count them in raw bytes."""

    ids: np.ndarray[Any, np.dtype[np.int32]]
    text: list[str]

    @staticmethod
    def load(tokenizer: Tokenizer, length: int = 4096, seed: int = 0) -> Script:
        words = [i for i, text in enumerate(tokenizer.texts) if text and text[0] == " " and text[1:].isalpha()]
        ids = np.random.default_rng(seed).choice(words, length).astype(np.int32)
        return Script(ids, [tokenizer.texts[i] or "" for i in ids])

    def words(self, count: int) -> str:
        return "".join(self.text[i % len(self.text)] for i in range(count))


class Recital:
    """A runner that recites, never further ahead of `pace` than it lets it be."""

    def __init__(self, script: Script, slots: int, pace: Pace) -> None:
        self._ids, self._pace = script.ids, pace
        self._made = np.zeros(slots, np.int64)

    def launch(self, plan: Plan) -> Plan:
        return plan

    def collect(self, plan: Plan) -> Output:
        self._made[[join.slot for join in plan.joins]] = 0
        tokens = self._ids[self._made[plan.rows] % len(self._ids)][:, None]
        self._made[plan.rows] += plan.promise
        self._pace.step(int(plan.promise.sum()))
        over = np.zeros(len(plan.rows), np.bool_)
        return Output(plan.serial, plan.promise, tokens, over, int(plan.counts.sum()), 0)


class Pace:
    """A number in a shared file: how many tokens the client has seen, or -1 until all its requests are sent.

    The engine waits for the first of them in any case, so that all streams begin together; window 0: for nothing else.
    """

    def __init__(self, address: str, window: int) -> None:
        self._seen = np.memmap(address, np.int64, "r", shape=(1,))
        self._window, self._made = window, 0

    def step(self, tokens: int) -> None:
        while (seen := int(self._seen[0])) < 0 or (self._window and self._made - seen > (self._window - 1) * tokens):
            time.sleep(0.0001)
        self._made += tokens


def make_engine(slots: int, max_len: int, address: str, window: int, _report: Report) -> tuple[Engine, EngineInfo]:
    num_blocks = slots * -(-max_len // BLOCK_SIZE)
    ledger = Ledger(slots=slots, max_len=max_len, num_blocks=num_blocks, block_size=BLOCK_SIZE, prefix=NoPrefix())
    scheduler = Scheduler(Continuous(), ledger, SchedulerLimits(slots, max_len, budget=max(2048, slots * 8)))
    runner = Recital(Script.load(Tokenizer.load(DEMO)), slots, Pace(address, window))
    info = EngineInfo(
        model="scripted", dtype="none", device="none", max_model_len=max_len, vocab=50257, block_size=BLOCK_SIZE,
        num_blocks=num_blocks, kv_block_bytes=0, weight_bytes=0, memory_plan="", batching="continuous", notes=(),
        start_ms={},
    )  # fmt: skip
    return Engine(scheduler, runner, time.perf_counter_ns, NullSink()), info


def front(slots: int, max_len: int, address: str, window: int) -> int:
    """The server's process, until a signal. Prints its port, then `ready`."""

    @contextlib.asynccontextmanager
    async def bring_up(report: Report) -> AsyncIterator[Service]:
        channel = ProcessChannel(partial(make_engine, slots, max_len, address, window))
        async with running_engine(channel, report) as (client, info):
            asyncio.get_running_loop().call_soon(partial(print, "ready", flush=True))
            yield Service(
                engine=client, info=info, tokenizer=Tokenizer.load(DEMO), eos_ids=(), defaults=SamplingParams(),
                name="scripted", root="scripted", created=0,
            )  # fmt: skip

    return run_server(create_app(bring_up), "127.0.0.1", 0, lambda url: print(url.rpartition(":")[2], flush=True))


class Connection:
    """One stream's bytes, counted as they come. kept: all of them, if somebody wants to read them afterwards."""

    def __init__(self, port: int, body: bytes, keep: bool) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        head = b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d"
        self.socket.sendall(head % len(body) + b"\r\n\r\n" + body)
        self.socket.setblocking(False)
        self.events = self._spaces = 0
        self.over = self._begun = False
        self._tail = b""
        self.kept: list[bytes] | None = [] if keep else None

    @property
    def tokens(self) -> int:
        """Every event has one space of its own, every token's text another."""
        return max(0, self._spaces - self.events)

    def read(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise SystemExit(f"the server closed a stream after {self.tokens} tokens")
        if not self._begun:
            head, blank, data = data.partition(b"\r\n\r\n")  # the head is one write, so it comes in one piece
            if b" 200 " not in head or not blank:
                raise SystemExit(f"the server answered {head!r} {data!r}")
            self._begun = True
        if self.kept is not None:
            self.kept.append(data)
        joined = self._tail[-1:] + data  # a pair of newlines may come in two reads
        self.events += joined.count(b"\n\n")
        self._spaces += data.count(b" ")
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n":
            self.over = True

    def text(self) -> str:
        """What the stream said, read as a client would. Only where the bytes were kept."""
        rest, events = b"".join(self.kept or []), b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            events, rest = events + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        lines = [line.removeprefix(b"data: ") for line in events.split(b"\n\n") if line]
        if lines.pop() != b"[DONE]":
            raise SystemExit("a stream ended without [DONE]")
        return "".join(json.loads(line)["choices"][0]["text"] for line in lines)


@dataclass(frozen=True)
class Result:
    load: str
    wall_s: float
    events: int
    tokens: int
    front_cpu_s: float
    engine_cpu_s: float
    client_cpu_s: float

    @property
    def figures(self) -> dict[str, float]:
        return {
            "events_per_s": self.events / self.wall_s,
            "tokens_per_s": self.tokens / self.wall_s,
            "tokens_per_event": self.tokens / self.events,
            "front_us_per_event": self.front_cpu_s / self.events * 1e6,
            "front_us_per_token": self.front_cpu_s / self.tokens * 1e6,
            "client_us_per_event": self.client_cpu_s / self.events * 1e6,
            "front_share": self.front_cpu_s / self.wall_s,
            "engine_share": self.engine_cpu_s / self.wall_s,
            "client_share": self.client_cpu_s / self.wall_s,
        }


@dataclass(frozen=True)
class Stamp:
    wall_s: float
    events: int
    tokens: int
    front_s: float
    engine_s: float
    client_s: float


class Load:
    """All streams of one run, read by one loop."""

    def __init__(self, port: int, server: psutil.Process, address: str, connections: int, tokens: int) -> None:
        self._server, self._engine = server, _engine_of(server)
        self._seen = np.memmap(address, np.int64, "r+", shape=(1,))
        self._tokens = tokens
        body = json.dumps({"model": "scripted", "prompt": "Once", "max_tokens": tokens, "stream": True}).encode()
        self.connections = [Connection(port, body, keep=i % 32 == 0) for i in range(connections)]

    def run(self) -> tuple[Stamp, Stamp]:
        """From when every stream has begun to when 95 % of all tokens are there; then the rest, uncounted."""
        poll, by_fd = select.epoll(), {one.socket.fileno(): one for one in self.connections}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        start = end = None
        time.sleep(SETTLE_S)
        self._seen[0] = seen = 0
        enough = int(0.95 * self._tokens * len(self.connections))
        while by_fd:
            ready = poll.poll(PATIENCE_S)
            if not ready:
                raise SystemExit(f"no byte in {PATIENCE_S} s: the server hangs")
            for fd, _ in ready:
                before = by_fd[fd].tokens
                by_fd[fd].read()
                seen += by_fd[fd].tokens - before
                if by_fd[fd].over:
                    poll.unregister(fd)
                    by_fd.pop(fd).socket.close()
            self._seen[0] = seen
            if start is None and all(one.tokens for one in self.connections):
                start = self._stamp()
            if end is None and seen >= enough:
                end = self._stamp()
            if 2 * len(ready) < len(by_fd):
                time.sleep(0.0005)  # so that a read finds more than one byte string, and sleeping costs the server less
        assert start is not None and end is not None  # noqa: PT018
        return start, end

    def check(self, script: Script) -> None:
        for index, one in enumerate(self.connections):
            if one.tokens != self._tokens:
                raise SystemExit(f"stream {index} had {one.tokens} tokens instead of {self._tokens}")
            if one.kept is not None and one.text() != script.words(self._tokens):
                raise SystemExit(f"stream {index} has another text than the script")

    def _stamp(self) -> Stamp:
        front, engine = self._server.cpu_times(), self._engine.cpu_times()
        return Stamp(
            time.perf_counter(), sum(one.events for one in self.connections),
            sum(one.tokens for one in self.connections), front.user + front.system, engine.user + engine.system,
            time.process_time(),
        )  # fmt: skip


def _engine_of(server: psutil.Process) -> psutil.Process:
    """multiprocessing has a tracker beside it, which does nothing."""
    return max(server.children(), key=lambda child: child.memory_info().rss)


@contextlib.contextmanager
def serving(slots: int, max_len: int, address: str, window: int) -> Iterator[tuple[int, psutil.Process]]:
    command = [sys.executable, __file__, "--front", json.dumps([slots, max_len, address, window])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            if process.stdout.readline() != "ready\n":
                raise SystemExit("the server did not start")
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()


def measure(load: str, connections: int, tokens: int, window: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        address = os.path.join(folder, "pace")
        Path(address).write_bytes(struct.pack("q", -1))
        with serving(connections, tokens + 16, address, window) as (port, server):
            streams = Load(port, server, address, connections, tokens)
            start, end = streams.run()
    streams.check(Script.load(Tokenizer.load(DEMO)))
    return Result(
        load, end.wall_s - start.wall_s, end.events - start.events, end.tokens - start.tokens,
        end.front_s - start.front_s, end.engine_s - start.engine_s, end.client_s - start.client_s,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=256, help="streams at once (default: 256)")
    parser.add_argument("--event-tokens", type=int, default=2000, help="of a stream, load `events` (default: 2000)")
    parser.add_argument("--tokens", type=int, default=8000, help="of a stream, load `tokens` (default: 8000)")
    parser.add_argument("--window", type=int, default=2, help="steps ahead of the client at most (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each load, interleaved (default: 5)")
    parser.add_argument("--out", type=Path, help="write a run file")
    parser.add_argument("--front", help=argparse.SUPPRESS)  # the server's own process: the arguments of front()
    args = parser.parse_args()
    if args.front:
        raise SystemExit(front(*json.loads(args.front)))
    loads = (("events", args.event_tokens, args.window), ("tokens", args.tokens, 0))
    about, results = provenance(sys.argv), []
    print(f"client {CLIENT}, {args.connections} connections, {args.rounds} rounds", flush=True)
    for number in range(args.rounds):
        for load, tokens, window in loads:
            result = measure(load, args.connections, tokens, window)
            results.append({"round": number, **asdict(result), **result.figures})
            print(load, json.dumps({name: round(value, 2) for name, value in result.figures.items()}), flush=True)
    for load, _, _ in loads:
        print(f"{load}: {_medians([one for one in results if one['load'] == load])}")
    if args.out:
        config = {name: value for name, value in vars(args).items() if name not in ("front", "out")}
        write_run(args.out, {"provenance": about, "config": {"client": CLIENT, **config}, "results": results})


def _medians(results: list[dict[str, Any]]) -> str:
    names = ("events_per_s", "tokens_per_s", "tokens_per_event", "front_us_per_event", "front_us_per_token")
    parts = []
    for name in names:
        values = sorted(one[name] for one in results)
        parts.append(f"{name} {statistics.median(values):,.2f} ({values[0]:,.2f} to {values[-1]:,.2f})")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
