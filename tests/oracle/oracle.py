"""The oracle: whatever the switches, greedy tokens equal what Hugging Face transformers would choose.

    python -m tests.oracle.oracle --model demo --prompts 200
    python -m tests.oracle.oracle --model gpt2-shape --prompts 200
    python -m tests.oracle.oracle --model tiny --seeds 5 --prompts 200

transformers reads prompt and output at once, and every token of ours must be its argmax at that place; by induction
that is greedy decoding. Where its two best logits lie within 1e-4 either is right: such ties are counted and printed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ridgeline import LLM, SamplingParams
from ridgeline.menu import MENU
from tests.tiny_gpt2 import write_tiny_tokenizer

TIE = 1e-4


@dataclass(frozen=True)
class Switches:
    """A configuration, by name, and whether it must preempt (otherwise the case proves nothing)."""

    name: str
    options: dict[str, Any]
    preempts: bool = False


def switches(max_len: int, kv_bytes_per_token: int) -> list[Switches]:
    """Every choice of MENU in pairs, and chunking and preemption where the policy knows them."""
    found = [
        Switches(f"{batching}, {packing}", {"batching": batching, "packing": packing})
        for batching in MENU["batching"]
        for packing in MENU["packing"]
    ]
    # A budget below the prompts' length cuts them; memory for one and a half sequences makes the others give way.
    scarce = {"kv_memory": str(int(1.5 * max_len + 8) * kv_bytes_per_token), "block_size": 4}
    for packing in MENU["packing"]:
        base = {"batching": "continuous", "packing": packing, "max_num_seqs": 12}
        found.append(Switches(f"continuous, {packing}, chunked", base | {"max_num_batched_tokens": 12}))
        found.append(Switches(f"continuous, {packing}, preempting", base | scarce, preempts=True))
        both = base | scarce | {"max_num_batched_tokens": 12}
        found.append(Switches(f"continuous, {packing}, chunked, preempting", both, preempts=True))
        # Dynamic batches are admitted with room to spare and must preempt inside a batch as well.
        dynamic = {"batching": "dynamic", "packing": packing, "max_batch_size": 6, "batch_window_ms": 1.0}
        found.append(Switches(f"dynamic, {packing}, preempting", dynamic | scarce, preempts=True))
    return found


@dataclass(frozen=True)
class Verdict:
    tokens: int
    ties: int
    wrong: int
    preemptions: int


def judge(reference: GPT2LMHeadModel, llm: LLM, prompts: Sequence[list[int]], new: int) -> Verdict:
    """Generate for every prompt, and count where transformers would have chosen otherwise."""
    made = llm.generate(prompts, SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True))
    ties = wrong = 0
    for prompt, generation in zip(prompts, made, strict=True):
        assert len(generation.token_ids) == new
        at = slice(len(prompt) - 1, len(prompt) + new - 1)
        with torch.inference_mode():
            logits = reference(torch.tensor([prompt + generation.token_ids])).logits[0, at].float()
        best = logits.topk(2).values
        chosen = logits[torch.arange(new), torch.tensor(generation.token_ids)]
        missed = chosen < best[:, 0]
        tied = missed & (best[:, 0] - chosen <= TIE)
        ties += int(tied.sum())
        wrong += int((missed & ~tied).sum())
    return Verdict(len(prompts) * new, ties, wrong, llm.counters.preemptions)


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
    spec = reference.config
    prompts = random_prompts(random.Random(case.seed), case.prompts, spec.vocab_size, case.longest)
    failed = []
    for switch in which:
        options: dict[str, Any] = {"max_model_len": case.longest + case.new, "kv_memory": "1GiB"} | switch.options
        llm = LLM(str(folder), dtype="float32", device=case.device, **options)
        found = judge(reference, llm, prompts, case.new)
        print(f"{switch.name}: {found.tokens} tokens, {found.ties} ties, {found.wrong} wrong, "
              f"{found.preemptions} preemptions", flush=True)  # fmt: skip
        if found.wrong:
            failed.append(f"{switch.name}: {found.wrong} of {found.tokens} tokens differ")
        if switch.preempts and not found.preemptions:
            failed.append(f"{switch.name}: nothing was preempted, so the case proves nothing")
    return failed


def switches_for(reference: GPT2LMHeadModel, case: Case) -> list[Switches]:
    spec = reference.config
    return switches(case.longest + case.new, kv_bytes_per_token=2 * spec.n_layer * spec.n_embd * 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "gpt2-shape", "demo"), default="tiny")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--longest", type=int, default=40, help="tokens of the longest prompt")
    parser.add_argument("--new", type=int, default=16, help="new tokens of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where Ridgeline runs")
    parser.add_argument("--only", default="", help="configurations whose name has this in it, for example: dynamic")
    parser.add_argument("--seeds", type=int, default=1, help="tiny: how many random models")
    arguments = parser.parse_args()
    failed = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            make = {"tiny": tiny_model, "gpt2-shape": gpt2_shape}.get(arguments.model)
            reference, path = demo() if make is None else make(seed, Path(folder))
            print(f"{arguments.model}, seed {seed}: {reference.config.to_diff_dict()}", flush=True)
            case = Case(arguments.prompts, arguments.longest, arguments.new, seed, arguments.device)
            which = [switch for switch in switches_for(reference, case) if arguments.only in switch.name]
            failed += check(reference, path, case, which)
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
