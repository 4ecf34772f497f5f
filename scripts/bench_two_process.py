"""What a process of its own for the engine costs: the same server with and without --in-process, loaded in turn.

    python -m scripts.bench_two_process --rounds 5 --out records/RUN/run.json

Random weights (speed does not depend on them), streamed greedy completions of a fixed length, all sent at once. Both
servers run the whole time and one is loaded at a time, in alternating order (A B, B A, ...); the figure is the median
of the ratios within a round. Before each turn both are idle for a second, and the CPU they use then is recorded: an
idle server that burns some would slow the other. The client (aiohttp) is the same process for both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from scripts.servers import Running, serving

from ridgeline.core.records import provenance, write_run

TURN_S = 600  # for one turn at most
CLIENT = "aiohttp"


def served(arguments: argparse.Namespace, *flags: str) -> contextlib.AbstractContextManager[Running]:
    options = {
        "--random-weights": arguments.shape, "--dtype": arguments.dtype, "--device": arguments.device,
        "--kv-memory": arguments.kv_memory,
    }  # fmt: skip
    return serving(*(word for pair in options.items() for word in pair), *flags)


async def turn(url: str, prompts: list[list[int]], new: int) -> float:
    """Seconds from the first request to the last byte. Every stream must have all its tokens."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=TURN_S)
    ) as session:
        start = time.perf_counter()
        made = await asyncio.gather(*(_stream(session, url, prompt, new) for prompt in prompts))
        spent = time.perf_counter() - start
    if set(made) != {new}:
        raise SystemExit(f"streams had {sorted(set(made))} tokens instead of {new}")
    return spent


async def _stream(session: aiohttp.ClientSession, url: str, prompt: list[int], new: int) -> int:
    """Tokens of one stream, as its usage counts them."""
    body = {
        "prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    async with session.post(url + "/v1/completions", json=body) as response:
        if response.status != 200:
            raise SystemExit(f"the server answered {response.status}: {await response.text()}")
        events = [line async for line in response.content if line.startswith(b"data: {")]
    usage = json.loads(events[-1].removeprefix(b"data: ")).get("usage") if events else None
    if usage is None:
        raise SystemExit(f"a stream ended early: {events[-1:]}")
    return int(usage["completion_tokens"])


def idle(servers: dict[str, Running], seconds: float = 1.0) -> dict[str, float]:
    """Cores that each server uses while nobody asks it anything."""
    before = {name: sum(server.cpu_s().values()) for name, server in servers.items()}
    time.sleep(seconds)
    return {name: (sum(server.cpu_s().values()) - before[name]) / seconds for name, server in servers.items()}


def measure(arguments: argparse.Namespace, servers: dict[str, Running]) -> list[dict[str, Any]]:
    rng, results = np.random.default_rng(arguments.seed), []
    for number in range(arguments.rounds + 1):
        prompts = rng.integers(0, 50257, (arguments.in_flight, arguments.prompt)).tolist()
        for name in sorted(servers, reverse=bool(number % 2)):
            idle_cores = idle(servers)
            before = {one: sum(server.cpu_s().values()) for one, server in servers.items()}
            spent = asyncio.run(turn(servers[name].url, prompts, arguments.new))
            cpu_s = {one: sum(server.cpu_s().values()) - before[one] for one, server in servers.items()}
            rate = arguments.in_flight * arguments.new / spent
            print(
                f"round {number} {name:11s} {rate:8.1f} tokens/s, CPU {cpu_s[name]:.2f} s in {spent:.2f} s, "
                f"idle before {max(idle_cores.values()):.3f} cores{'' if number else '  (warm-up)'}",
                flush=True,
            )
            results.append(
                {"round": number, "warm_up": number == 0, "server": name, "wall_s": spent, "tokens_per_s": rate,
                 "cpu_s": cpu_s, "idle_cores": idle_cores}
            )  # fmt: skip
    return results


def ratios(results: list[dict[str, Any]]) -> list[float]:
    """Two processes to one, round by round; the warm-up is left out."""
    rates = {(one["round"], one["server"]): one["tokens_per_s"] for one in results if not one["warm_up"]}
    rounds = sorted({number for number, _ in rates})
    return [rates[number, "two-process"] / rates[number, "in-process"] for number in rounds]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="gpt2", choices=("gpt2", "gpt2-medium", "distilgpt2"))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--kv-memory", default="1GiB", help="of each server (default: 1GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="a round loads each server once (default: 5)")
    parser.add_argument("--in-flight", type=int, default=32, help="streams at once (default: 32)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt (default: 64)")
    parser.add_argument("--new", type=int, default=128, help="new tokens of a request (default: 128)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write a run file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    about = provenance(sys.argv)
    with served(arguments) as two, served(arguments, "--in-process") as one:
        results = measure(arguments, {"in-process": one, "two-process": two})
    values = ratios(results)
    print(f"two-process / in-process: median {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    if arguments.out:
        config = {name: value for name, value in vars(arguments).items() if name != "out"}
        run = {"provenance": about, "config": {"client": CLIENT, **config}, "results": results, "ratios": values}
        write_run(arguments.out, run)


if __name__ == "__main__":
    main()
