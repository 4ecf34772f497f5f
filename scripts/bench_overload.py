"""What a server does when it is offered ten times what it can do: who is served or refused, how fast, in what memory.

    python scripts/bench_overload.py --out records/RUN/run.json
    python scripts/bench_overload.py --model demo --seconds 3 --measure-s 2

The real server in two processes, this client in a third. First its capacity: a closed loop that keeps it full. Then an
open loop at ten times that rate, every request on a connection of its own, sent by the clock whatever became of those
before. Accepted requests have to finish, the others have to be told 429 within 100 ms; the memory of both processes
is sampled before, meanwhile and after. A refusal's time is given as the client saw it, which shares its cores with the
server, and as the server logged it. Random weights: tokens mean nothing and cost what real ones cost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from ridgeline.core.records import provenance, write_run

START_S = 300.0
REFUSAL_MS = 100.0
SAMPLE_S = 0.25
PROMPT = "It was a quiet evening in the harbour, and the keeper of the lighthouse had just lit the lamp when " * 2


@dataclass(frozen=True)
class Sent:
    """at_s: since the load began. late_ms: by how much the client missed its own clock. outcome: a status or a word."""

    at_s: float
    late_ms: float
    ms: float
    outcome: str
    retry_after: str | None = None


class Load:
    """Completions of one shape against a server at url."""

    def __init__(self, session: aiohttp.ClientSession, url: str, max_tokens: int) -> None:
        self._session, self._url = session, url + "/v1/completions"
        self._body = {"prompt": PROMPT, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}

    async def closed(self, in_flight: int, seconds: float) -> float:
        """Requests a second while in_flight are under way; what had not ended when the time was over counts nothing."""
        begun = time.perf_counter()
        ended: list[float] = []

        async def worker() -> None:
            while time.perf_counter() - begun < seconds:
                sent = await self._send(begun, 0.0)
                if sent.outcome != "200":
                    raise RuntimeError(f"a request failed while capacity was measured: {sent.outcome}")
                ended.append(time.perf_counter() - begun)

        await asyncio.gather(*(worker() for _ in range(in_flight)))
        # From the first end to the last: the first wave begins together, which a running server never sees.
        if len(ended) < 2 or ended[-1] == ended[0]:
            raise RuntimeError("too few requests ended; measure longer")
        return (len(ended) - 1) / (ended[-1] - ended[0])

    async def opened(self, rate_per_s: float, seconds: float) -> list[Sent]:
        """A request every 1 / rate_per_s seconds; returns when all have an answer."""
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for i in range(max(1, round(rate_per_s * seconds))):
                due_s = i / rate_per_s
                await asyncio.sleep(max(0.0, begun + due_s - time.perf_counter()))
                late_ms = (time.perf_counter() - begun - due_s) * 1e3
                tasks.append(group.create_task(self._send(begun, late_ms)))
        return [task.result() for task in tasks]

    async def _send(self, begun: float, late_ms: float) -> Sent:
        start, retry_after = time.perf_counter(), None
        try:
            async with self._session.post(self._url, json=self._body) as response:
                await response.read()
                outcome, retry_after = str(response.status), response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = type(error).__name__
        return Sent(start - begun, late_ms, (time.perf_counter() - start) * 1e3, outcome, retry_after)


def client() -> aiohttp.ClientSession:
    """No bound on connections and none kept: an overload comes from many clients."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600))


class Memory:
    """Resident bytes of a process and its children, sampled."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.samples: list[int] = []

    def read(self) -> int:
        processes = [self._process, *self._process.children(recursive=True)]
        return sum(int(process.memory_info().rss) for process in processes)

    async def sample(self) -> None:
        while True:
            self.samples.append(self.read())
            await asyncio.sleep(SAMPLE_S)


@contextlib.contextmanager
def served(arguments: Sequence[str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server of its own on a free port, ready; its log as JSON lines in the file."""
    command = [sys.executable, "-m", "ridgeline", "serve", "--port", "0", "--log-format", "json", *arguments]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        deadline = time.monotonic() + START_S
        while "ready after" not in (text := log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{text}")
            time.sleep(0.1)
        found = re.search(r"listening on (http://[^\s\"]+)", text)
        assert found is not None
        yield process, found[1]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": round(statistics.median(ordered), 2), "p99": round(p99, 2), "max": round(ordered[-1], 2)}


def summary(sent: Sequence[Sent]) -> dict[str, Any]:
    refused = [one for one in sent if one.outcome == "429"]
    return {
        "offered": len(sent),
        "outcomes": dict(Counter(one.outcome for one in sent)),
        "refused_ms": spread([one.ms for one in refused]),
        "refused_over_100_ms": sum(one.ms > REFUSAL_MS for one in refused),
        "served_ms": spread([one.ms for one in sent if one.outcome == "200"]),
        "client_late_ms": spread([one.late_ms for one in sent]),
        "retry_after_s": dict(Counter(one.retry_after for one in refused)),
        "without_retry_after": sum(one.retry_after is None for one in refused),
    }


def logged_refusals_ms(log: Path) -> list[float]:
    """What the server itself says that its refusals took."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if record.get("status") == 429:
                found.append(float(record["ms"]))
    return found


async def measure(arguments: argparse.Namespace, pid: int, url: str) -> dict[str, Any]:
    memory = Memory(pid)
    async with client() as session:
        load = Load(session, url, arguments.max_tokens)
        await load.closed(arguments.max_num_seqs, arguments.measure_s / 4)  # warm-up
        capacity = await load.closed(arguments.max_num_seqs, arguments.measure_s)
        before = memory.read()
        sampling = asyncio.create_task(memory.sample())
        begun = time.perf_counter()
        sent = await load.opened(arguments.times * capacity, arguments.seconds)
        took_s = time.perf_counter() - begun
        sampling.cancel()
        await asyncio.sleep(1)
        again = await load.closed(arguments.max_num_seqs, arguments.measure_s)
    served = sum(one.outcome == "200" for one in sent)
    return {
        "capacity_per_s": round(capacity, 3),
        "capacity_after_per_s": round(again, 3),
        "served_per_s": round(served / took_s, 3),
        **summary(sent),
        "rss_mib": {
            "before": round(before / 2**20, 1),
            "highest": round(max(memory.samples) / 2**20, 1),
            "after": round(memory.read() / 2**20, 1),
        },
    }


def holds(results: dict[str, Any]) -> dict[str, bool]:
    """What has to be true of an overload."""
    return {
        "only_200_and_429": set(results["outcomes"]) == {"200", "429"},
        "refused_within_100_ms": not results["refused_over_100_ms"],
        "every_refusal_says_when": not results["without_retry_after"],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model instead of random weights (demo, a folder)")
    parser.add_argument("--shape", default="gpt2", help="shape of the random weights (default: gpt2)")
    parser.add_argument("--times", type=float, default=10.0, help="offered, in capacities (default: 10)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of overload (default: 30)")
    parser.add_argument("--measure-s", type=float, default=20.0, help="of each measurement of capacity (default: 20)")
    parser.add_argument("--max-tokens", type=int, default=64, help="new tokens of a request (default: 64)")
    parser.add_argument("--max-num-seqs", type=int, default=32, help="the server's batch (default: 32)")
    parser.add_argument("--max-queued-requests", type=int, help="default: the server's own, 4 batches")
    parser.add_argument("--serve", nargs="*", default=[], help="more options of ridgeline serve, without their dashes")
    parser.add_argument("--out", type=Path, help="write a run file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    source = ["--model", arguments.model] if arguments.model else ["--random-weights", arguments.shape]
    options = [*source, "--max-num-seqs", str(arguments.max_num_seqs)]
    if arguments.max_queued_requests is not None:
        options += ["--max-queued-requests", str(arguments.max_queued_requests)]
    options += [f"--{word}" for word in arguments.serve]
    about = provenance(sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with served(options, log) as (process, url):
            results = asyncio.run(measure(arguments, process.pid, url))
        results["refused_logged_ms"] = spread(logged_refusals_ms(log))
    results["holds"] = holds(results)
    print(json.dumps(results, indent=1))
    if arguments.out is not None:
        config = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
        write_run(arguments.out, {"provenance": about, "config": config, "results": results})
    if not all(results["holds"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
