"""Train a demo model: a small GPT-2, from scratch, on any text, in minutes on one GPU.

The text (.txt or .txt.xz) holds documents separated by a line `<|endoftext|>`. Some whole documents are held out by
seed; the rest is read again and again until --minutes are over. The learning rate follows the clock, so the run ends
when you said it would, on any machine. Out comes a folder in the names and layout of transformers, with a model card:

    python scripts/train_demo.py books.txt.xz --out demo --minutes 7
    python scripts/train_demo.py books.txt.xz --out demo --tokenizer src/ridgeline/assets/demo
    python scripts/train_demo.py books.txt.xz --evaluate demo        # a folder's loss on the same held-out documents
    python scripts/train_demo.py tiny.txt --out /tmp/demo --minutes 0.5 --batch 2 --held-out 1 --layers 2   # on a CPU

Losses are in nats a token, lower is better; two models compare only with the same tokenizer and held-out documents.
Needs torch, tokenizers, safetensors and numpy. Knows nothing of the server: it shares no code with it.
"""

import argparse
import lzma
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

if TYPE_CHECKING:  # mypy reads from the repository's root, a script imports from its own folder
    from scripts.demo_gpt2 import (
        END,
        GPT2,
        Shape,
        autocast,
        mean_loss,
        measure,
        save_model,
        say,
        tokenise,
        train_tokenizer,
    )
else:
    from demo_gpt2 import END, GPT2, Shape, autocast, mean_loss, measure, save_model, say, tokenise, train_tokenizer

REPORTS = 24  # over the whole run


class Point(NamedTuple):
    """One line of the training log. Losses in nats a token; held-out loss at the model's full window."""

    minutes: float
    step: int
    epochs: float
    train_loss: float
    held_out_loss: float
    tokens_per_s: float


def read_documents(path: Path) -> list[str]:
    """The documents, with one kind of line end: mixed ones cost the classics 3 % of their tokens."""
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8").replace("\r\n", "\n")
    documents = [document.strip() for document in f"\n{text}\n".split(f"\n{END}\n")]
    return [document for document in documents if document]


def title(document: str) -> str:
    return document.partition("\n")[0].removeprefix("Title: ")[:60]


def split_documents(documents: list[str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """(for training, held out). A document that shares over 2 % of its long lines with others is never held out."""
    lines = [{line for line in document.split("\n") if len(line) >= 40} for document in documents]
    seen = Counter(line for group in lines for line in group)
    fit = [i for i, group in enumerate(lines) if group and sum(seen[x] > 1 for x in group) <= 0.02 * len(group)]
    if not 0 < count <= len(fit) or count >= len(documents):
        raise SystemExit(f"--held-out {count}: of {len(documents)} documents {len(fit)} can be held out")
    chosen = set(random.Random(seed).sample(fit, count))
    return [d for i, d in enumerate(documents) if i not in chosen], [documents[i] for i in sorted(chosen)]


def windows(tokens: Tensor, length: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets [batch, length], for ever: each epoch cuts at another offset and shuffles the pieces."""
    rng = np.random.default_rng(seed)
    steps = torch.arange(length + 1, device=tokens.device)
    while True:
        starts = np.arange(rng.integers(length), len(tokens) - length, length)
        rng.shuffle(starts)
        rows = torch.from_numpy(starts).to(tokens.device)[:, None] + steps
        for first in range(0, len(starts) - batch + 1, batch):
            piece = tokens[rows[first : first + batch]]
            yield piece[:, :-1], piece[:, 1:]


def orthogonalise(update: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrices to update [..., rows, cols], roughly: five quintic Newton-Schulz steps."""
    x = update.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = torch.div(x, x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * (gram @ gram) - 4.7750 * gram) @ x
    x = x.mT if tall else x
    return x.to(update.dtype)


class Muon:
    """Momentum, orthogonalised: Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/), for matrices.

    Matrices of one shape are stacked and stepped together; c_attn's three are orthogonalised apart."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, momentum
        self.stacks = [[m for m in matrices if m.shape == shape] for shape in sorted({m.shape for m in matrices})]
        self.buffers = [torch.zeros_like(torch.stack(list(stack))) for stack in self.stacks]

    @torch.no_grad()
    def step(self, lr_factor: float) -> None:
        lr = self.lr * lr_factor
        for stack, buffer in zip(self.stacks, self.buffers, strict=True):
            grads = torch.stack([m.grad for m in stack if m.grad is not None])
            buffer.lerp_(grads, 1 - self.momentum)
            update = grads.lerp(buffer, self.momentum)  # Nesterov
            rows, cols = update.shape[-2:]
            parts = update.view(-1, cols, cols) if rows == 3 * cols else update
            scale = max(1.0, parts.shape[-2] / cols) ** 0.5
            for matrix, change in zip(stack, orthogonalise(parts).view_as(update).unbind(), strict=True):
                matrix.mul_(1 - lr * self.weight_decay).sub_(change, alpha=lr * scale)


def compiled(model: GPT2, inputs: Tensor, targets: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The model's loss, compiled where there is a GPU; the plain model where the compiler fails."""
    if inputs.device.type != "cuda":
        return model
    try:
        fast: Callable[[Tensor, Tensor], Tensor] = torch.compile(model)
        with autocast(inputs.device):
            fast(inputs, targets).backward()  # type: ignore[no-untyped-call]
        return fast
    except Exception as error:  # the compiler raises many kinds; a slower run is better than none
        say(f"torch.compile failed, going on without: {type(error).__name__}: {str(error)[:300]}")
        return model
    finally:
        model.zero_grad()


class Meter:
    """Running train loss, held-out loss and speed; the time its own measuring takes is in no speed."""

    def __init__(self, model: GPT2, held_out: Tensor, tokens_per_step: int, tokens_per_epoch: int) -> None:
        self.model, self.held_out = model, held_out
        self.tokens_per_step, self.tokens_per_epoch = tokens_per_step, tokens_per_epoch
        self.total, self.steps, self.all_steps, self.busy_s = torch.zeros((), device=held_out.device), 0, 0, 0.0
        self.begun_s = self.resumed_s = time.perf_counter()

    def add(self, loss: Tensor) -> None:
        self.total, self.steps = self.total + loss.detach(), self.steps + 1

    def report(self) -> Point:
        train_loss, now_s = self.total.item() / self.steps, time.perf_counter()  # item() waits for the GPU
        self.all_steps, self.busy_s = self.all_steps + self.steps, self.busy_s + now_s - self.resumed_s
        self.model.eval()
        held_out_loss = mean_loss(self.model, self.held_out, self.model.shape.positions)
        self.model.train()
        self.total, self.steps, self.resumed_s = torch.zeros_like(self.total), 0, time.perf_counter()
        tokens = self.all_steps * self.tokens_per_step
        minutes, epochs = (self.resumed_s - self.begun_s) / 60, tokens / self.tokens_per_epoch
        point = Point(minutes, self.all_steps, epochs, train_loss, held_out_loss, tokens / self.busy_s)
        say("{:6.2f} min  step {:6d}  {:5.1f} epochs  train {:.4f}  held out {:.4f}  {:,.0f} tokens/s".format(*point))
        return point


def train(
    model: GPT2, options: argparse.Namespace, tokens: Tensor, held_out: Tensor, keep: Callable[[], None]
) -> Point:
    """Train until options.minutes are over, compiling included; keep() is called at reports late in the decay."""
    start_s, reports = time.perf_counter(), 0
    matrices = [p for p in model.h.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    muon = Muon(matrices, options.muon_lr, options.weight_decay)
    adam = torch.optim.AdamW(others, lr=options.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    batches = windows(tokens, model.shape.positions, options.batch, options.seed)
    loss_of = compiled(model, *next(batches))
    meter = Meter(model, held_out, options.batch * model.shape.positions, len(tokens))
    for step, (inputs, targets) in enumerate(batches, 1):
        left = max(0.0, 1 - (time.perf_counter() - start_s) / (60 * options.minutes))
        factor = min(1.0, step / options.warmup, left / options.decay)
        adam.param_groups[0]["lr"] = options.adam_lr * factor
        with autocast(tokens.device):
            loss: Tensor = loss_of(inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step(factor)
        adam.step()
        model.zero_grad()
        meter.add(loss)
        if not left:
            break
        if int(REPORTS * (1 - left)) > reports:
            reports = int(REPORTS * (1 - left))
            meter.report()
            if factor < 0.5:
                keep()
    return meter.report()


def card(options: argparse.Namespace, model: GPT2, end: Point, facts: dict[str, str]) -> str:
    shape, size = model.shape, sum(p.numel() for p in model.parameters())
    return f"""# A demo model: a small GPT-2 trained from scratch

GPT-2 architecture (transformers' names and layout, bfloat16): {shape.layers} layers, width {shape.width}, {shape.heads}
heads of {shape.width // shape.heads}, {shape.positions} positions, tied head, {size / 1e6:.2f} M parameters.
Byte-level BPE of {shape.vocab} tokens, with `{END}` = 0 (bos and eos).

- Data: {facts["data"]}.
- Held out, as whole documents: {facts["held_out"]}.
- Recipe: {options.batch} sequences of {shape.positions} a step, {end.step} steps ({end.epochs:.1f} epochs).
  Muon (lr {options.muon_lr}, weight decay {options.weight_decay}) for the blocks' matrices,
  AdamW (lr {options.adam_lr}, betas 0.9/0.95) for the rest; {options.warmup} steps of warm-up, a constant rate,
  then linear to zero over the last {options.decay:.0%} of the time.
  Dropout {options.dropout}, gradient clip 1, bfloat16 autocast on a GPU; seed {options.seed}.
- Time: {end.minutes:.1f} minutes, compiling apart, on {facts["hardware"]}, {end.tokens_per_s:,.0f} tokens/s.
- Train loss at the end: {end.train_loss:.3f} nats a token.
- Held-out loss of these weights: {facts["losses"]}.
- Made by `{options.command}`.

What it does: it continues text in the manner of its data, without sense. It is for trying, testing and teaching a
server, not for use: it knows no facts, follows no instructions, and repeats its data, the prejudices of its time too.
"""


def hardware(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return f"{name}, torch {torch.__version__}"


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("text", type=Path, help=f"a .txt or .txt.xz; documents are separated by a line {END}")
    add("--out", type=Path, help="folder to write; also kept up to date late in the run")
    add("--evaluate", type=Path, metavar="FOLDER", help="measure this model on the held-out documents; train nothing")
    add("--tokenizer", type=Path, metavar="FOLDER", help="take tokenizer.json from here instead of training one")
    add("--minutes", type=float, default=7.0, help="training time, compiling included (%(default)s)")
    add("--batch", type=int, default=64, help="sequences a step (%(default)s)")
    add("--held-out", type=int, default=6, help="documents to hold out (%(default)s)")
    add("--seed", type=int, default=1, help="of split, weights and order; the clock still differs (%(default)s)")
    for name, size in (("layers", 8), ("width", 256), ("heads", 4), ("positions", 1024), ("vocab", 4096)):
        add(f"--{name}", type=int, default=size, help="of the model (%(default)s)")
    add("--muon-lr", type=float, default=0.02, help="for the blocks' matrices (%(default)s)")
    add("--adam-lr", type=float, default=0.003, help="for embeddings, norms and biases (%(default)s)")
    add("--weight-decay", type=float, default=0.1, help="of Muon, times its rate (%(default)s)")
    add("--warmup", type=int, default=200, help="steps of rising rate (%(default)s)")
    add("--decay", type=float, default=0.6, help="last share of the time, in which the rate falls to 0 (%(default)s)")
    add("--dropout", type=float, default=0.1, help="0 where epochs are few (%(default)s)")
    options = parser.parse_args()
    changed = {k: v for k, v in vars(options).items() if k != "text" and v != parser.get_default(k)}
    flags = [f"--{k.replace('_', '-')} {v.name if isinstance(v, Path) else v}" for k, v in changed.items()]
    options.command = " ".join(["python scripts/train_demo.py", options.text.name, *flags])
    if (options.out is None) == (options.evaluate is None):
        parser.error("give one of --out and --evaluate")
    return options


def main() -> None:
    options, device = parse(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    documents, held_out = split_documents(read_documents(options.text), options.held_out, options.seed)
    say(f"{len(documents)} documents to train on; held out: {'; '.join(map(title, held_out))}; {hardware(device)}")
    if options.evaluate:
        measure(options.evaluate, held_out, device)
        return
    folder = options.tokenizer
    tokenizer = (
        Tokenizer.from_file(str(folder / "tokenizer.json")) if folder else train_tokenizer(documents, options.vocab)
    )
    if tokenizer.token_to_id(END) != 0:
        raise SystemExit(f"--tokenizer {folder}: {END} must be token 0")
    tokens, held_out_tokens = tokenise(tokenizer, documents, device), tokenise(tokenizer, held_out, device)
    if len(tokens) < (options.batch + 2) * options.positions or len(held_out_tokens) <= options.positions:
        raise SystemExit(f"too short: {len(tokens)} and {len(held_out_tokens)} tokens; see --batch and --held-out")
    say(f"{len(tokens):,} tokens to train on, {len(held_out_tokens):,} held out")
    shape = Shape(options.layers, options.width, options.heads, options.positions, tokenizer.get_vocab_size())
    model = GPT2(shape, options.dropout).to(device)
    end = train(model, options, tokens, held_out_tokens, lambda: save_model(model, tokenizer, options.out))
    save_model(model, tokenizer, options.out)
    facts = {
        "data": f"{options.text.name}, {len(documents)} documents, {len(tokens):,} tokens to train on",
        "held_out": f"{'; '.join(map(title, held_out))} ({len(held_out_tokens):,} tokens)",
        "hardware": hardware(device),
        "losses": measure(options.out, held_out, device),
    }
    (options.out / "README.md").write_text(card(options, model, end, facts), encoding="utf-8")


if __name__ == "__main__":
    main()
