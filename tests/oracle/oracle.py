"""The oracle: whatever the switches, tokens equal what Hugging Face transformers would choose.

    python -m tests.oracle.oracle --model demo --prompts 200
    python -m tests.oracle.oracle --model gpt2-shape --prompts 200
    python -m tests.oracle.oracle --model tiny --seeds 5 --prompts 200

transformers reads prompt and output at once, and every token of ours must be what its logits give at that place: the
largest for a greedy request, and for one that samples the token in whose part of the distribution the request's uniform
number falls. By induction that is decoding alone and without a cache. Where the two best logits lie within 1e-4 of
each other, or the number within 1e-5 of the token's edge, rounding may decide: such ties are counted, and so are those
that it decided otherwise than for transformers. The outputs of all configurations must also equal those of the first,
but for requests in which the two part at a tie.

Each configuration is run with plenty of memory for the KV cache, and with so little that requests must give way.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ridgeline import LLM, SamplingParams
from ridgeline.ops.philox import seed_bits, uniforms
from tests.switches import SWITCHES, Row, covering, excluded
from tests.tiny_gpt2 import write_tiny_tokenizer

TIE = 1e-4  # between two logits
DRAWN_TIE = 1e-5  # between a uniform number and the edge of a token's part of the distribution
EVERYTHING_AT_ONCE = 12  # requests that run together; fewer than there are, so that the others join later


@dataclass(frozen=True)
class Switches:
    """A configuration, and what must happen in it: otherwise it proves nothing."""

    name: str
    options: dict[str, Any]
    preempts: bool
    hits: bool


def switches(max_len: int, kv_bytes_per_token: int, rows: Iterable[Row]) -> list[Switches]:
    return [made for row in rows for made in _with_and_without_memory(row, max_len, kv_bytes_per_token)]


def _with_and_without_memory(row: Row, max_len: int, kv_bytes_per_token: int) -> Iterator[Switches]:
    base = row | {"max_num_seqs": EVERYTHING_AT_ONCE, "max_batch_size": 6, "batch_window_ms": 1.0}
    cuts = row["batching"] in ("continuous", "gathered", "prefill-first") and row["chunked_prefill"]
    base |= {"max_num_batched_tokens": EVERYTHING_AT_ONCE} if cuts else {}  # less than a prompt
    name = ", ".join(f"{switch}={value}" for switch, value in row.items())
    paged = row["kv_cache"] == "paged"
    yield Switches(name, base | {"kv_memory": "64MiB"}, preempts=False, hits=paged and row["prefix_cache"])
    # Room for one and three quarters of the longest sequence, and for a block of scratch.
    scarce = (-(-7 * max_len // 4 // row["block_size"]) + 1) * row["block_size"] * kv_bytes_per_token
    preempts = paged and row["batching"] != "one"
    yield Switches(name + ", scarce", base | {"kv_memory": str(scarce)}, preempts, hits=False)


def every_row() -> Iterator[Row]:
    """All combinations that are possible."""
    for values in product(*SWITCHES.values()):
        row = dict(zip(SWITCHES, values, strict=True))
        if not excluded(row):
            yield row


@dataclass(frozen=True)
class Asked:
    """A request: greedy, or with a seed of its own."""

    prompt: list[int]
    params: SamplingParams


@dataclass(frozen=True)
class Answer:
    """Places in the output. tied: rounding may decide here. other: it decided otherwise than for transformers.
    wrong: no rounding explains what is here."""

    tokens: list[int]
    tied: frozenset[int]
    other: frozenset[int]
    wrong: frozenset[int]


def ask(rng: random.Random, case: Case, vocab: int) -> list[Asked]:
    """Half of the prompts begin alike, for the prefix cache; each is asked for greedily and with a seed."""
    prompts = random_prompts(rng, case.prompts, vocab, case.longest)
    stem = [rng.randrange(vocab) for _ in range(case.longest - 4)]
    prompts[::2] = [stem + prompt[:4] for prompt in prompts[::2]]
    # Only those that sample end before their limit: at the model's end-of-text, wherever that comes in a launch.
    greedy = SamplingParams(max_tokens=case.new, temperature=0.0, ignore_eos=True)
    return [
        Asked(prompt, params)
        for seed, prompt in enumerate(prompts)
        for params in (greedy, SamplingParams(max_tokens=case.new, temperature=1.0, seed=seed))
    ]


def judge(reference: GPT2LMHeadModel, asked: Asked, tokens: list[int]) -> Answer:
    """What transformers says of an output."""
    made, first = len(tokens), len(asked.prompt)
    with torch.inference_mode():
        logits = reference(torch.tensor([asked.prompt + tokens])).logits[0, first - 1 : -1].float()
    chosen = torch.tensor(tokens)[:, None]
    if asked.params.temperature == 0:
        best = logits.topk(2).values
        off = best[:, 0] - logits.gather(-1, chosen)[:, 0]  # how far ours is behind the best
        tied, wrong = best[:, 0] - best[:, 1] <= TIE, off > TIE
        ended = made == asked.params.max_tokens
    else:
        upper = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
        lower = torch.cat((torch.zeros(made, 1), upper[:, :-1]), -1)
        seed = torch.tensor([seed_bits(asked.params.seed or 0)])
        drawn = uniforms(seed, torch.arange(first, first + made)) * upper[:, -1]
        inside = torch.minimum(drawn - lower.gather(-1, chosen)[:, 0], upper.gather(-1, chosen)[:, 0] - drawn)
        off = -inside  # how far the number is outside of ours
        tied, wrong = inside.abs() <= DRAWN_TIE, off > DRAWN_TIE
        stops = [at for at, token in enumerate(tokens) if token == reference.config.eos_token_id]
        ended = stops == [made - 1] or (not stops and made == asked.params.max_tokens)
    late: frozenset[int] = frozenset() if ended else frozenset({made})
    return Answer(tokens, _places(tied), _places((off > 0) & ~wrong), _places(wrong) | late)


def _places(mask: torch.Tensor) -> frozenset[int]:
    return frozenset(mask.nonzero()[:, 0].tolist())


def differ(first: Answer, other: Answer) -> bool:
    """Whether two outputs part where neither had a tie."""
    at = next((i for i, (a, b) in enumerate(zip(first.tokens, other.tokens, strict=False)) if a != b), None)
    if at is None:
        return len(first.tokens) != len(other.tokens)
    return at not in first.tied and at not in other.tied


def random_prompts(rng: random.Random, count: int, vocab: int, longest: int) -> list[list[int]]:
    return [[rng.randrange(vocab) for _ in range(rng.randrange(1, longest + 1))] for _ in range(count)]


def tiny_config(rng: random.Random) -> GPT2Config:
    heads = rng.choice([1, 2, 3, 4])
    return GPT2Config(
        vocab_size=rng.choice([263, 401]),
        n_positions=64,
        n_embd=heads * rng.choice([8, 16]),
        n_layer=rng.choice([1, 2, 3]),
        n_head=heads,
        n_inner=rng.choice([None, 24, 80]),
        activation_function=rng.choice(["gelu_new", "gelu", "relu", "gelu_pytorch_tanh"]),
        layer_norm_epsilon=rng.choice([1e-5, 1e-3]),
        scale_attn_weights=rng.choice([True, True, False]),
        scale_attn_by_inverse_layer_idx=rng.choice([False, True]),
        tie_word_embeddings=rng.choice([True, False]),
        initializer_range=0.3,  # wide, so that logits differ and ties are rare
        bos_token_id=0,
        eos_token_id=0,
    )


def saved(model: GPT2LMHeadModel, folder: Path) -> Path:
    """A model folder as a user would have it. The prompts are ids, so any tokenizer that fits will do."""
    model.save_pretrained(folder)
    write_tiny_tokenizer(folder, vocab=model.config.vocab_size)
    return folder


def tiny_model(seed: int, folder: Path) -> tuple[GPT2LMHeadModel, Path]:
    """A random GPT-2 with its own mix of heads, layers, activation, n_inner, scales and head."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(tiny_config(random.Random(seed))).eval()
    return model, saved(model, folder)


def gpt2_shape(seed: int, folder: Path) -> tuple[GPT2LMHeadModel, Path]:
    """GPT-2 124M with random weights, wider than GPT-2 began with: otherwise every logit is nearly a tie."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(initializer_range=0.05)).eval()
    return model, saved(model, folder)


def demo() -> tuple[GPT2LMHeadModel, Path]:
    folder = Path(str(resources.files("ridgeline") / "assets" / "demo"))
    return GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval(), folder


@dataclass(frozen=True)
class Case:
    """What is generated: how many prompts of at most which length, and how many new tokens."""

    prompts: int
    longest: int
    new: int
    seed: int
    device: str = "cpu"


def check(reference: GPT2LMHeadModel, folder: Path, case: Case, which: Sequence[Switches]) -> list[str]:
    """Run every configuration; the names of those that failed, with why. Prints a line each."""
    asked = ask(random.Random(case.seed), case, reference.config.vocab_size)
    params = [a.params for a in asked]
    first: list[Answer] | None = None
    failed: list[str] = []
    known: dict[tuple[int, tuple[int, ...]], Answer] = {}  # most outputs are equal, and are judged once
    for switch in which:
        options: dict[str, Any] = {"max_model_len": case.longest + case.new, **switch.options}
        llm = LLM(str(folder), dtype="float32", device=case.device, **options)
        answers = []
        for at, generation in enumerate(llm.generate([a.prompt for a in asked], params)):
            tokens = generation.token_ids
            if (at, tuple(tokens)) not in known:
                known[at, tuple(tokens)] = judge(reference, asked[at], tokens)
            answers.append(known[at, tuple(tokens)])
        first = first or answers
        wrong = sum(len(answer.wrong) for answer in answers)
        parted = sum(differ(*both) for both in zip(first, answers, strict=True))
        counters, ties = llm.counters, sum(len(answer.tied) for answer in answers)
        others = sum(len(answer.other) for answer in answers)
        print(
            f"{switch.name}: {sum(len(answer.tokens) for answer in answers)} tokens, {ties} ties ({others} otherwise), "
            f"{wrong} wrong, {parted} parted, {counters.preemptions} preemptions, {counters.prefix_hit} found",
            flush=True,
        )
        for defect, what in (
            (wrong, f"{wrong} tokens differ from transformers'"),
            (parted, f"{parted} outputs differ from the first configuration's without a tie"),
            (switch.preempts and not counters.preemptions, "nothing was preempted, so the case proves nothing"),
            (switch.hits and not counters.prefix_hit, "nothing was found in the prefix cache, so it proves nothing"),
        ):
            failed += [f"{switch.name}: {what}"] if defect else []
    return failed


def switches_for(reference: GPT2LMHeadModel, case: Case, rows: Iterable[Row] | None = None) -> list[Switches]:
    """rows: of switches; by default a few that cover all pairs."""
    spec = reference.config
    size = 2 * spec.n_layer * spec.n_embd * 4
    return switches(case.longest + case.new, size, covering() if rows is None else rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "gpt2-shape", "demo"), default="tiny")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--longest", type=int, default=40, help="tokens of the longest prompt")
    parser.add_argument("--new", type=int, default=16, help="new tokens of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where Ridgeline runs")
    parser.add_argument("--only", default="", help="configurations whose name has this in it, for example: dynamic")
    parser.add_argument("--covering", action="store_true", help="rows that cover all pairs, not all combinations")
    parser.add_argument("--seeds", type=int, default=1, help="tiny: how many random models")
    arguments = parser.parse_args()
    failed = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            make = {"tiny": tiny_model, "gpt2-shape": gpt2_shape}.get(arguments.model)
            reference, path = demo() if make is None else make(seed, Path(folder))
            print(f"{arguments.model}, seed {seed}: {reference.config.to_diff_dict()}", flush=True)
            case = Case(arguments.prompts, arguments.longest, arguments.new, seed, arguments.device)
            rows = covering() if arguments.covering else every_row()
            which = [switch for switch in switches_for(reference, case, rows) if arguments.only in switch.name]
            failed += check(reference, path, case, which)
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
