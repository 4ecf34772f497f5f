"""What each batching policy gives and costs on this machine, and what the KV cache is worth.

    python scripts/bench_policies.py --rounds 5 --out records/RUN/run.json

Random weights of GPT-2's shape, random prompts, greedy; the requests arrive together, with lengths drawn from a seed.
All systems run once a round in one process, in an order drawn anew for each round, so a drift of the machine and what
the one before leaves behind hit all alike; ratios are taken within a round. Latencies are those of the requests from
their arrival, waiting included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import LLM, SamplingParams
from ridgeline.core.records import provenance, write_run


@dataclass(frozen=True)
class Load:
    """Requests of one round: how many, and the ranges that prompt and output lengths are drawn from (inclusive)."""

    requests: int
    prompt: tuple[int, int]
    new: tuple[int, int]

    def draw(self, rng: np.random.Generator) -> tuple[list[list[int]], list[SamplingParams]]:
        sizes = rng.integers(self.prompt[0], self.prompt[1] + 1, self.requests).tolist()
        news = rng.integers(self.new[0], self.new[1] + 1, self.requests).tolist()
        prompts = [rng.integers(0, 50257, size).tolist() for size in sizes]
        return prompts, [SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True) for new in news]


@dataclass(frozen=True)
class System:
    name: str
    load: str
    options: dict[str, Any]


# The table in the README names its rows after these.
SYSTEMS = (
    System("one", "policies", {"batching": "one"}),
    System("static", "policies", {"batching": "static"}),
    System("static, padded", "policies", {"batching": "static", "packing": "padded"}),
    System("dynamic", "policies", {"batching": "dynamic"}),
    System("prefill-first", "policies", {"batching": "prefill-first"}),
    System("continuous", "policies", {"batching": "continuous"}),
    System("continuous, 8 steps a visit", "policies", {"batching": "continuous", "max_steps_per_visit": 8}),
    System("continuous, 2 launches in flight", "policies", {"batching": "continuous", "launches_in_flight": 2}),
    System("KV cache paged", "cache", {"batching": "continuous", "kv_cache": "paged"}),
    System("KV cache none", "cache", {"batching": "continuous", "kv_cache": "none", "max_num_batched_tokens": 2048}),
)
LOADS = {"policies": Load(32, (16, 128), (16, 64)), "cache": Load(8, (32, 64), (32, 32))}


def measure(llm: LLM, prompts: Sequence[list[int]], params: Sequence[SamplingParams]) -> dict[str, float]:
    """tokens_per_s; ttft_ms and latency_ms as medians, latency_p95_ms; padding: share of the positions computed."""
    before = llm.counters
    start = time.perf_counter()
    made = llm.generate(list(prompts), list(params))
    wall_s = time.perf_counter() - start
    after = llm.counters
    assert [len(g.token_ids) for g in made] == [p.max_tokens for p in params]
    latency = [(g.timings.finished_ns - g.timings.arrival_ns) / 1e6 for g in made]
    first = [(g.timings.first_token_ns - g.timings.arrival_ns) / 1e6 for g in made]
    return {
        "tokens_per_s": sum(len(g.token_ids) for g in made) / wall_s,
        "ttft_ms": statistics.median(first),
        "latency_ms": statistics.median(latency),
        "latency_p95_ms": float(np.percentile(latency, 95)),
        "padding": (after.padding - before.padding) / (after.positions - before.positions),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="gpt2", choices=("gpt2", "gpt2-medium", "distilgpt2"))
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="systems whose name has this in it, for example: KV")
    parser.add_argument("--out", type=Path, help="write a run file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    rng = np.random.default_rng(arguments.seed)
    shared: dict[str, Any] = {
        "random_weights": arguments.shape,
        "dtype": arguments.dtype,
        "device": arguments.device,
    }
    chosen = [system for system in SYSTEMS if arguments.only in system.name]
    # Without the prefix cache: random prompts share nothing. Enough tokens a step for all rows without a KV cache.
    shared |= {"prefix_cache": False, "max_num_seqs": 32, "max_model_len": 256, "kv_memory": "1GiB"}
    llms = {s.name: LLM(**shared, **s.options) for s in chosen}
    found: dict[str, list[dict[str, float]]] = {system.name: [] for system in chosen}
    for turn in range(arguments.rounds + 1):
        drawn = {name: load.draw(rng) for name, load in LOADS.items()}
        for index in rng.permutation(len(chosen)):
            system = chosen[index]
            result = measure(llms[system.name], *drawn[system.load])
            if turn:  # the first round warms up
                found[system.name].append(result)
            shown = ", ".join(f"{name} {value:.3g}" for name, value in result.items())
            print(f"round {turn} {system.name:32s} {shown}{'' if turn else '  (warm-up)'}", flush=True)
    if arguments.out:
        config = {k: v for k, v in vars(arguments).items() if k != "out"}
        config |= {"loads": {name: vars(load) for name, load in LOADS.items()}}
        config |= {"dtype": next(iter(llms.values())).info.dtype}
        config |= {"systems": [vars(system) for system in chosen]}
        write_run(arguments.out, {"provenance": provenance(sys.argv), "config": config, "results": found})


if __name__ == "__main__":
    main()
