"""What HTTP with streaming leaves of the engine's own rate: `ridgeline serve` and `ridgeline bench serve` against the
same engine driven in this process, in turns.

    python -m scripts.bench_http --quantize int8 --rounds 5 --out records/RUN/run.json

Random weights, prompts of random token ids and lengths from a seed, greedy, answers of their full length; both sides
get the same requests in a round, and no round repeats another's. Through HTTP `--in-flight` requests run at any time
and the next is sent when one ends; offline all are there at once and as many run. Every token is an event: the
requests ask for their token ids, because random ids are seldom text. All processes live on the same cores, so what the
client uses is the server's loss too; its CPU seconds are recorded beside those of the front and the engine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.servers import Running, serving

from ridgeline.bench.lengths import Lengths
from ridgeline.bench.records import Shape
from ridgeline.bench.workload import Workload
from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.config import Config
from ridgeline.core.records import provenance, write_run
from ridgeline.core.types import Sampling
from ridgeline.engine.engine import Engine
from ridgeline.lab.driving import drive

VOCABULARY = 50257


def offline(engine: Engine, requests: Sequence[Shape]) -> dict[str, float]:
    prompts = [shape.prompt for shape in requests if isinstance(shape.prompt, tuple)]
    begun = time.perf_counter()
    made = drive(engine, prompts, [shape.max_tokens for shape in requests], Sampling())
    wall_s = time.perf_counter() - begun
    tokens = sum(len(one.token_ids) for one in made)
    return {
        "wall_s": wall_s,
        "tokens": tokens,
        "prompt_tokens": sum(map(len, prompts)),
        "tokens_per_s": tokens / wall_s,
    }


def online(server: Running, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    before, client = server.cpu_s(), _children_s()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        asked = {
            "--url": server.url, "--workload": "uniform", "--prompt-kind": "ids", "--vocab": str(VOCABULARY),
            "--input-len": arguments.prompt_len, "--output-len": arguments.output_len,
            "--concurrency": str(arguments.in_flight), "--num-requests": str(arguments.requests),
            "--warmup-requests": "0", "--seed": str(seed), "--extra-body": '{"return_token_ids": true}',
            "--json": str(path),
        }  # fmt: skip
        command = [
            sys.executable,
            "-m",
            "ridgeline",
            "bench",
            "serve",
            *(word for pair in asked.items() for word in pair),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the client ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        told = json.loads(path.read_text())["results"]["servers"][0]["rounds"][0]["measures"]
    used = {name: value - before[name] for name, value in server.cpu_s().items()}
    kept = ("wall_s", "tokens", "prompt_tokens", "tokens_per_s", "ttft_ms", "tpot_ms")
    return {name: told[name] for name in kept} | {"cpu_s": used | {"client": _children_s() - client}}


def _children_s() -> float:
    """CPU seconds of the clients that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(arguments: argparse.Namespace, engine: Engine, server: Running) -> list[dict[str, Any]]:
    work = Workload(
        "uniform", Lengths.parse("--prompt-len", arguments.prompt_len),
        Lengths.parse("--output-len", arguments.output_len), prompt_kind="ids", vocab=VOCABULARY,
    )  # fmt: skip
    found: list[dict[str, Any]] = []
    for turn in range(arguments.rounds):
        seed = arguments.seed + turn
        requests = list(itertools.islice(work.shapes(seed), arguments.requests))
        sides: dict[str, dict[str, Any]] = {}
        for name in sorted(("http", "offline"), reverse=bool(turn % 2)):
            sides[name] = offline(engine, requests) if name == "offline" else online(server, arguments, seed)
        if len({(side["tokens"], side["prompt_tokens"]) for side in sides.values()}) > 1:
            raise SystemExit(f"the two sides did not do the same: {sides}")
        ratio = sides["http"]["tokens_per_s"] / sides["offline"]["tokens_per_s"]
        cpu = ", ".join(f"{name} {value:.2f} s" for name, value in sides["http"]["cpu_s"].items())
        print(
            f"round {turn}: offline {sides['offline']['tokens_per_s']:.1f} tokens/s, HTTP "
            f"{sides['http']['tokens_per_s']:.1f}, ratio {ratio:.3f}; CPU in {sides['http']['wall_s']:.2f} s: {cpu}",
            flush=True,
        )
        found.append({"round": turn, "seed": seed, "ratio": ratio, **sides})
    return found


def warm(engine: Engine, server: Running, arguments: argparse.Namespace) -> None:
    """Both sides once, with a few requests that no round repeats."""
    few = argparse.Namespace(**{**vars(arguments), "requests": 8, "output_len": "8", "prompt_len": "64"})
    work = Workload("uniform", Lengths(64, 64), Lengths(8, 8), prompt_kind="ids", vocab=VOCABULARY)
    offline(engine, list(itertools.islice(work.shapes(arguments.seed - 1), 8)))
    online(server, few, arguments.seed - 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="gpt2", choices=("gpt2", "gpt2-medium", "distilgpt2"))
    parser.add_argument("--quantize", default="int8", choices=("none", "int8", "int4"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--kv-memory", default="2GiB", help="of each engine (default: 2GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--requests", type=int, default=64, help="of a round (default: 64)")
    parser.add_argument("--in-flight", type=int, default=32, help="requests that run at once (default: 32)")
    parser.add_argument("--prompt-len", default="32:256", help="tokens (default: 32:256)")
    parser.add_argument("--output-len", default="32:128", help="tokens (default: 32:128)")
    parser.add_argument("--itl-target-ms", type=float, help="of both engines; default: the engine's own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="where compiled kernels are kept")
    parser.add_argument("--out", type=Path, help="write a run file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    about = provenance(sys.argv)
    options = {
        "random_weights": arguments.shape, "quantize": arguments.quantize, "device": arguments.device,
        "kv_memory": arguments.kv_memory, "max_num_seqs": arguments.in_flight,
    }  # fmt: skip
    if arguments.itl_target_ms is not None:
        options["itl_target_ms"] = arguments.itl_target_ms
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    order = EngineOrder(Config.of(**options), arguments.shape, None, cache=arguments.cache)
    engine, _ = make_engine(order, lambda *_: None)
    with serving(*flags) as server:
        warm(engine, server, arguments)
        found = measure(arguments, engine, server)
    ratios = [one["ratio"] for one in found]
    print(f"HTTP / offline: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    if arguments.out:
        config = {name: str(value) for name, value in vars(arguments).items() if name != "out"}
        write_run(arguments.out, {"provenance": about, "config": config, "results": found, "ratios": ratios})


if __name__ == "__main__":
    main()
