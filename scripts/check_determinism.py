"""Whether --determinism batch keeps its promise on this machine, and what it costs.

    python scripts/check_determinism.py                        # GPT-2 124M's shape, random weights
    python scripts/check_determinism.py --shape gpt2-medium --dtype bfloat16 --seconds 60

First, requests are served alone and then among others, with chunks, little memory, a prefix cache and launches that
overlap, and every bit of their log-probabilities is compared; the same with `off` shows what there is to lose. Then
decode steps and a prompt are timed, off and batch in turns, and the medians printed. What fails is printed and the rest
goes on; the exit status is 1 if `batch` broke its promise.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.config import Config
from ridgeline.core.logprobs import LogprobCollector
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.core.types import NewRequest, Sampling, Tokens
from ridgeline.engine.engine import Engine

BATCHES = (1, 8, 32, 64)
CONTEXT, STEPS, PROMPT = 16, 8, 512
WAYS: dict[str, dict[str, Any]] = {
    "all at once": {},
    "little memory": {"max_model_len": 352, "scarce": True},
    "chunks of 48, two launches in flight": {"max_num_batched_tokens": 48, "launches_in_flight": 2},
    "chunks of 200, padded": {"max_num_batched_tokens": 200, "packing": "padded", "launches_in_flight": 3},
    "static batches of 3": {"batching": "static", "max_batch_size": 3},
    "prefill first, 4 steps a visit": {"batching": "prefill-first", "max_steps_per_visit": 4},
}


@dataclass
class Answer:
    """tokens, and the log-probabilities of output and prompt, as they came."""

    tokens: list[int]
    values: list[float]

    def against(self, other: Answer) -> str | None:
        """How it differs, in words."""
        if (self.tokens, self.values) == (other.tokens, other.values):
            return None
        if self.tokens != other.tokens:
            first = next(i for i, (a, b) in enumerate(zip(self.tokens, other.tokens, strict=True)) if a != b)
            return f"another token at output {first}"
        gaps = [abs(a - b) for a, b in zip(self.values, other.values, strict=True)]
        return f"{sum(gap > 0 for gap in gaps)} of {len(gaps)} log-probabilities, by {max(gaps):.1e} at most"


def engine(arguments: argparse.Namespace, level: str, options: dict[str, Any]) -> Engine:
    options = dict(options)
    if options.pop("scarce", False):
        spec = GPT2_SHAPES[arguments.shape]
        tokens = options["max_model_len"] + 64
        options["kv_memory"] = str(tokens * spec.kv_bytes_per_token(4 if arguments.dtype == "float32" else 2))
    config = Config.of(
        random_weights=arguments.shape, dtype=arguments.dtype, device=arguments.device, determinism=level,
        **({"max_num_seqs": 16, "block_size": 16} | options),
    )  # fmt: skip
    order = EngineOrder(config, arguments.shape, None, cache=arguments.cache)
    return make_engine(order, lambda *_: None)[0]


def requests(rng: random.Random, vocab: int) -> list[NewRequest]:
    """Short and long; half draw, all are scored."""
    shared = [rng.randrange(vocab) for _ in range(64)]
    made: list[NewRequest] = []
    for key, length in enumerate((3, 17, 40, 90, 130, 270)):
        prompt = (shared if key % 2 else []) + [rng.randrange(vocab) for _ in range(length)]
        sampling = Sampling(temperature=0.9 * (key % 2), seed=key, logprobs=1, prompt_logprobs=0 if key % 3 else None)
        made.append(NewRequest(key, np.array(prompt, np.int32), 8, sampling, arrival_ns=0))
    return made


def serve(running: Engine, asked: Sequence[NewRequest]) -> list[Answer]:
    tokens: dict[int, list[int]] = {one.key: [] for one in asked}
    scores = {one.key: LogprobCollector(one.sampling.logprobs, one.sampling.prompt_logprobs) for one in asked}
    for one in asked:
        running.submit(one)
    left = len(asked)
    while left:
        events = running.step()
        if events is None:
            time.sleep(0.001)
            continue
        for found in events.scores:
            scores[found.owner].add(found)
        at = 0
        for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
            tokens[key] += events.tokens[at : at + count].tolist()
            at += count
        left -= len(events.ends)
    made = ((tokens[one.key], [*scores[one.key].output, *scores[one.key].prompt]) for one in asked)
    return [Answer(ids, [row.logprob for row in rows]) for ids, rows in made]


def promise(arguments: argparse.Namespace, level: str, until: float) -> int:
    """Print what differs, and return how many answers did."""
    rng = random.Random(arguments.seed)
    asked = requests(rng, GPT2_SHAPES[arguments.shape].vocab)
    alone = engine(arguments, level, {"batching": "one", "prefix_cache": False})
    expected = [serve(alone, [one])[0] for one in asked]
    wrong = 0
    for name, options in WAYS.items():
        if time.monotonic() > until:
            print(f"  {name}: no time left")
            continue
        running = engine(arguments, level, options)
        order = rng.sample(range(len(asked)), len(asked))
        for visit in ("", ", again, with what the prefix cache kept"):
            found = serve(running, [asked[index] for index in order])
            gaps = [(index, said) for index, one in zip(order, found, strict=True)
                    if (said := one.against(expected[index])) is not None]  # fmt: skip
            wrong += len(gaps)
            shown = "; ".join(f"request {index}: {said}" for index, said in gaps[:3])
            counters = running.counters()
            facts = f"{counters.preemptions} preemptions, {counters.prefix_hit} tokens found"
            print(
                f"  {name}{visit} ({facts}): {f'{len(gaps)} of {len(order)} differ: {shown}' if gaps else 'the same'}"
            )
    return wrong


def timed(running: Engine, prompts: Sequence[Tokens], steps: int) -> tuple[float, float]:
    """Seconds until every request has its first token, and of a later step."""
    for key, prompt in enumerate(prompts):
        running.submit(NewRequest(key, prompt, steps + 1, Sampling(), arrival_ns=0))
    begun, left, moments = time.perf_counter(), len(prompts), []
    first: set[int] = set()
    prefilled = begun
    while left:
        events = running.step()
        if events is None:
            continue
        moments.append(time.perf_counter())
        fresh = set(events.keys.tolist()) - first
        if fresh:
            first |= fresh
            prefilled = moments[-1]
        left -= len(events.ends)
    later = [moment for moment in moments if moment >= prefilled]
    return prefilled - begun, (later[-1] - later[0]) / max(1, len(later) - 1)


def prices(arguments: argparse.Namespace, batches: Sequence[int], until: float) -> None:
    """off and batch in turns, so that a drifting machine hits both."""
    options = {"max_num_seqs": max(batches), "prefix_cache": False, "max_model_len": PROMPT + CONTEXT}
    running = {level: engine(arguments, level, options) for level in ("off", "batch")}
    rng = np.random.default_rng(0)
    vocab = GPT2_SHAPES[arguments.shape].vocab
    cases = [(f"decode of {rows}", rows, CONTEXT, STEPS) for rows in batches] + [("prompt", 1, PROMPT, 1)]
    for name, rows, length, steps in cases:
        prompts = [rng.integers(0, vocab, length).astype(np.int32) for _ in range(rows)]
        found: dict[str, list[float]] = {level: [] for level in running}
        for turn in range(6):
            if turn > 1 and time.monotonic() > until:
                break
            for level, one in running.items():
                prefill, step = timed(one, prompts, steps)
                if turn:  # the first warms up
                    found[level].append(1e3 * (prefill if steps == 1 else step))
        medians = {level: statistics.median(values) for level, values in found.items()}
        what = f"{name} of {PROMPT} tokens" if steps == 1 else f"{name} at {CONTEXT} tokens"
        spread = ", ".join(f"{level} {min(v):.2f} to {max(v):.2f}" for level, v in found.items())
        ratio = medians["batch"] / medians["off"]
        print(f"  {what}: off {medians['off']:.2f} ms, batch {medians['batch']:.2f} ms, {ratio:.2f} times ({spread})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(GPT2_SHAPES), default="gpt2")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder where compiled kernels are kept")
    parser.add_argument("--only", choices=("promise", "prices"))
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    from ridgeline.device.choose import choose

    device = choose(arguments.device, arguments.dtype)
    arguments.dtype = str(device.dtype).removeprefix("torch.")
    print(f"{arguments.shape}, {device.dtype} on {device.name}, seed {arguments.seed}")
    begun, broken = time.monotonic(), 0
    for level, share in (("batch", 0.4), ("off", 0.6)):
        if arguments.only != "prices":
            print(f"{level}:")
            try:
                wrong = promise(arguments, level, begun + share * arguments.seconds)
                broken += wrong if level == "batch" else 0
            except Exception:
                traceback.print_exc(file=sys.stdout)
                broken += level == "batch"
    if arguments.only != "promise":
        print("prices, medians:")
        try:
            on_cpu = device.torch_device.type == "cpu"
            prices(arguments, BATCHES[:-1] if on_cpu else BATCHES, begun + arguments.seconds)
        except Exception:
            traceback.print_exc(file=sys.stdout)
    print("batch keeps its promise" if not broken else "batch BROKE its promise")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
