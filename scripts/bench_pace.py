"""Whether streams keep their pace while long prompts arrive: servers that differ in one option, loaded in turn.

    python -m scripts.bench_pace --quantize int8 --rounds 5 --out records/RUN/run.json \\
        --side constant "--max-num-batched-tokens 512" --side paced ""

Random weights and random prompts, greedy, streamed. `--streams` requests decode all the time of a turn; a prompt of
`--prompt` tokens arrives every `--every-ms`. ITL: milliseconds between two tokens of one stream, over all streams,
while prompts arrive. TTFT: of the prompts. The streams ask for token ids, so every token is an event. Servers run the
whole time and one is loaded at a time; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from scripts.servers import Running, serving

from ridgeline.core.records import provenance, write_run

VOCABULARY = 50257


async def stream(session: aiohttp.ClientSession, url: str, prompt: list[int], new: int) -> list[float]:
    """When it was sent, and when each event with a token came."""
    body = {
        "prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True, "stream": True,
        "return_token_ids": True,
    }  # fmt: skip
    stamps = [time.perf_counter()]
    async with session.post(url + "/v1/completions", json=body) as response:
        if response.status != 200:
            raise SystemExit(f"the server answered {response.status}: {await response.text()}")
        stamps += [time.perf_counter() async for line in response.content if b'"token_ids":[' in line]
    return stamps


async def turn(url: str, rng: np.random.Generator, arguments: argparse.Namespace) -> dict[str, float]:
    def ids(size: int) -> list[int]:
        return [int(token) for token in rng.integers(0, VOCABULARY, size)]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        streams = [asyncio.create_task(stream(session, url, ids(64), arguments.new)) for _ in range(arguments.streams)]
        await asyncio.sleep(1.0)  # until all of them decode
        begun = time.perf_counter()
        prompts = []
        for _ in range(arguments.prompts):
            prompts.append(asyncio.create_task(stream(session, url, ids(arguments.prompt), 2)))
            await asyncio.sleep(arguments.every_ms / 1e3)
        first = [stamps[1] - stamps[0] for stamps in await asyncio.gather(*prompts)]
        ended = time.perf_counter()
        seen = await asyncio.gather(*streams)
    if min(stamps[-1] for stamps in seen) < ended:
        print("a stream ended before the last prompt had; raise --new", file=sys.stderr)
    gaps = [b - a for stamps in seen for a, b in itertools.pairwise(stamps[1:]) if begun < b <= ended]
    last = max(stamps[-1] for stamps in seen)
    tokens = sum(len(stamps) - 1 for stamps in seen)
    return {
        "itl_p50_ms": 1e3 * float(np.percentile(gaps, 50)),
        "itl_p99_ms": 1e3 * float(np.percentile(gaps, 99)),
        "itl_max_ms": 1e3 * max(gaps),
        "ttft_p50_ms": 1e3 * statistics.median(first),
        "ttft_max_ms": 1e3 * max(first),
        "tokens_per_s": (tokens + arguments.prompts * arguments.prompt) / (last - min(stamps[0] for stamps in seen)),
    }


def measure(arguments: argparse.Namespace, servers: dict[str, Running]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(arguments.rounds + 1):
        for name in sorted(servers, reverse=bool(number % 2)):
            result = asyncio.run(turn(servers[name].url, np.random.default_rng(arguments.seed + number), arguments))
            shown = ", ".join(f"{key} {value:.1f}" for key, value in result.items())
            print(f"round {number} {name:10s} {shown}{'' if number else '  (warm-up)'}", flush=True)
            found.append({"round": number, "warm_up": number == 0, "side": name, **result})
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", nargs=2, action="append", required=True, metavar=("NAME", "FLAGS"))
    parser.add_argument("--shape", default="gpt2", choices=("gpt2", "gpt2-medium", "distilgpt2"))
    parser.add_argument("--quantize", default="int8", choices=("none", "int8", "int4"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--kv-memory", default="2GiB", help="of each server (default: 2GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--streams", type=int, default=8, help="that decode all the time (default: 8)")
    parser.add_argument("--new", type=int, default=250, help="new tokens of a stream (default: 250)")
    parser.add_argument("--prompts", type=int, default=8, help="that arrive meanwhile (default: 8)")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of such a prompt (default: 512)")
    parser.add_argument("--every-ms", type=float, default=400, help="between two prompts (default: 400)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write a run file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    about = provenance(sys.argv)
    shared = (
        "--random-weights", arguments.shape, "--quantize", arguments.quantize, "--device", arguments.device,
        "--kv-memory", arguments.kv_memory,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving(*shared, *shlex.split(flags))) for name, flags in arguments.side}
        found = measure(arguments, servers)
    for name in servers:
        rounds = [one for one in found if one["side"] == name and not one["warm_up"]]
        medians = {key: statistics.median(one[key] for one in rounds) for key in rounds[0] if "_" in key[3:]}
        print(f"{name}: " + ", ".join(f"{key} {value:.1f}" for key, value in medians.items() if key != "warm_up"))
    if arguments.out:
        config = {name: str(value) for name, value in vars(arguments).items() if name != "out"}
        write_run(arguments.out, {"provenance": about, "config": config, "results": found})


if __name__ == "__main__":
    main()
