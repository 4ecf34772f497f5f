"""What batching is worth on this machine: one at a time, continuous, and transformers' generate, in turn.

    python scripts/bench_batching.py --dtype bfloat16 --rounds 5 --out records/RUN/run.json

Random weights of GPT-2's shape (speed does not depend on them), random prompts, greedy, a fixed number of new tokens.
The three run in turn in one process (A B C A B C ...), so a drift of the machine hits all; the figure is the median
of the ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import LLM, SamplingParams
from ridgeline.core.records import provenance, write_run

Prompts = list[list[int]]


def ridgeline_system(arguments: argparse.Namespace, **options: Any) -> Callable[[Prompts], None]:
    shape, dtype, device = arguments.shape, arguments.dtype, arguments.device
    llm = LLM(random_weights=shape, dtype=dtype, device=device, kv_memory="2GiB", **options)
    params = SamplingParams(max_tokens=arguments.new, temperature=0.0, ignore_eos=True)

    def run(prompts: Prompts) -> None:
        made = llm.generate(prompts, params)
        assert all(len(g.token_ids) == arguments.new for g in made)

    return run


def transformers_system(arguments: argparse.Namespace) -> Callable[[Prompts], None]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    shapes = {"gpt2": (12, 768, 12), "gpt2-medium": (24, 1024, 16), "distilgpt2": (6, 768, 12)}
    layers, width, heads = shapes[arguments.shape]
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=heads)
    model = GPT2LMHeadModel(config).to(arguments.device, getattr(torch, arguments.dtype)).eval()

    def run(prompts: Prompts) -> None:
        for prompt in prompts:
            ids = torch.tensor([prompt], device=arguments.device)
            with torch.inference_mode():
                out = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=arguments.new,
                    min_new_tokens=arguments.new,
                    do_sample=False,
                    pad_token_id=0,
                )
            assert out.shape[1] == len(prompt) + arguments.new

    return run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="gpt2", choices=("gpt2", "gpt2-medium", "distilgpt2"))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=32, help="requests of a continuous round")
    parser.add_argument("--single", type=int, default=2, help="requests of a one-at-a-time round")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=128, help="new tokens of a request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write a run file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    rng = np.random.default_rng(arguments.seed)
    systems = {
        "continuous": (ridgeline_system(arguments, batching="continuous", max_num_seqs=256), arguments.in_flight),
        "one": (ridgeline_system(arguments, batching="one"), arguments.single),
        "transformers": (transformers_system(arguments), arguments.single),
    }
    rates: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(arguments.rounds + 1):
        for name, (run, count) in systems.items():
            prompts = rng.integers(0, 50257, (count, arguments.prompt)).tolist()
            start = time.perf_counter()
            run(prompts)
            rate = count * arguments.new / (time.perf_counter() - start)
            if turn:  # the first round warms up
                rates[name].append(rate)
            print(f"round {turn} {name:13s} {rate:8.1f} tokens/s{'' if turn else '  (warm-up)'}", flush=True)
    ratios = {
        "continuous / one": [a / b for a, b in zip(rates["continuous"], rates["one"], strict=True)],
        "one / transformers": [a / b for a, b in zip(rates["one"], rates["transformers"], strict=True)],
    }
    for name, values in ratios.items():
        print(f"{name}: median {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    if arguments.out:
        config = {k: v for k, v in vars(arguments).items() if k != "out"}
        results = {"tokens_per_s": rates, "ratios": ratios}
        write_run(arguments.out, {"provenance": provenance(sys.argv), "config": config, "results": results})


if __name__ == "__main__":
    main()
