"""Quantised weights on this GPU: whether they are right, what each way to multiply costs, whole steps, and quality.

    PYTHONPATH=src python -m scripts.check_gpu_quant --out run.json
    PYTHONPATH=src TRITON_INTERPRET=1 python -m scripts.check_gpu_quant --quick

A case is a place of a model with its norm, bias, activation and residual. Ways: few (the kernel for few rows), library
(bfloat16 as it is), tiles (widened in registers), whole (widened, then multiplied by the library), and 8-bit floats by
8-bit floats. All is timed in graphs, over as many matrices as exceed L2. "steps" runs `ridgeline bench step`, "quality"
reads the bundled text with the bundled model. --quick: on a CPU, with tiny sizes; its numbers mean nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from scripts.gpu_bench import Bench, Case, Fastest, Group, Numbers, main
from scripts.linear_cases import error_norm
from scripts.quant_cases import PLACES, SCHEMES, WIDTHS, Held, copies, held, many_of, tiles, ways
from torch import Tensor

from ridgeline.ops.declared import bytes_of
from ridgeline.ops.dependent_triton import CAN_DEPEND
from ridgeline.ops.float8 import defined, scaled_products
from ridgeline.ops.gemv import Layer, fused_linear
from ridgeline.ops.gemv_triton import Kernels
from ridgeline.ops.many import many_rows
from ridgeline.ops.many_triton import Shape
from ridgeline.ops.words import QUANTISE

ROWS = (1, 8, 16, 32, 64, 128, 256, 1024, 8192)
MOST_FEW, MOST_TILED = 16, 1024
SHAPES = (Shape(64, 32, 4, 4), Shape(64, 64, 4, 2), Shape(64, 64, 4, 4), Shape(128, 64, 8, 3), Shape(64, 128, 8, 3),
          Shape(128, 128, 8, 2), Shape(32, 32, 4, 3), Shape(128, 32, 4, 3))  # fmt: skip
BATCHES = "1,64,256"
Run = Callable[[Held, Tensor, Tensor | None], Tensor]


def few(bench: Bench) -> Kernels:
    can = not bench.dry and CAN_DEPEND and torch.cuda.get_device_capability(bench.device) >= (9, 0)
    return Kernels(can)


def parity(bench: Bench) -> Iterator[Case]:
    yield (
        "what is chosen",
        lambda: {
            **{name: many_rows(bench.device, bench.half, name).note for name in QUANTISE},
            "8-bit floats": scaled_products(bench.device, bench.half).note,
        },
    )
    for scheme in QUANTISE:
        for place in bench.pick(PLACES, ("qkv", "mlp_out")):
            for rows in bench.pick((9, 33, 128, 300), (9,)):
                for way in ways(scheme):
                    name = f"{place} in {scheme}, {rows} rows, {way}"
                    yield name, partial(_right, bench, scheme, place, rows, way)


def _right(bench: Bench, scheme: str, place: str, rows: int, way: str) -> Numbers:
    """Against the definition of that way, and beside it how far the scheme is from the matrix as it was."""
    of = held(bench, "gpt2-xl", place, scheme)
    x, residual = _given(bench, of, place, rows)
    many = many_of(bench, way, of)
    found = [of.called(many, x, residual) for _ in range(2)]
    norm = None if of.norm is None else of.norm.given
    if way in ("tiles", "whole"):
        expected = fused_linear(x.float(), Layer(of.weight, of.bias, norm, of.activation), residual)
    else:
        expected = defined(x, norm, of.weight, of.bias, of.activation, residual)
    error = error_norm(found[-1], expected)
    return {"error norm": error, "right": error < 1.5e-2, "same again": torch.equal(*found)}


def _given(bench: Bench, of: Held, place: str, rows: int) -> tuple[Tensor, Tensor | None]:
    x = bench.randn(rows, of.weight.d_in)
    return x, bench.randn(rows, of.weight.d_out) if place in ("attn_out", "mlp_out") else None


def products(model: str, scheme: str, bench: Bench) -> Iterator[Case]:
    fastest = Fastest()
    for place in bench.pick(PLACES, ("attn_out",)):
        kept = [held(bench, model, place, scheme) for _ in range(copies(bench, model, place, scheme, 1))]
        for rows in bench.pick(ROWS, (2, 9)):
            what = f"{model} {place}, {rows} rows, {scheme}"
            for way, prepare in _offered(bench, scheme, rows):
                case = partial(_timed, bench, kept[: copies(bench, model, place, scheme, rows)], place, rows, prepare)
                yield f"{what}: {way}", partial(fastest.of, what, way, case)
            yield f"fastest {what}", partial(fastest.told, what)


def _offered(bench: Bench, scheme: str, rows: int) -> Iterator[tuple[str, Callable[[Held], Run]]]:
    if rows <= MOST_FEW:
        kernels = few(bench)
        yield "few", lambda _: lambda of, x, residual: of.by_few(kernels, x, residual)
    for way in ways(scheme):
        if way != "tiles" or rows <= MOST_TILED:
            yield way, partial(_by, bench, way)


def _by(bench: Bench, way: str, of: Held) -> Run:
    many = many_of(bench, way, of)
    return lambda _, x, residual: of.called(many, x, residual)


def _timed(bench: Bench, kept: list[Held], place: str, rows: int, prepare: Callable[[Held], Run]) -> Numbers:
    x, residual = _given(bench, kept[0], place, rows)
    runs = [(of, prepare(of)) for of in kept]

    def run() -> None:
        for of, multiply in runs:
            # The library adds to what it has made, the kernels write anew: neither touches the residual.
            multiply(of, x, residual)

    weight = kept[0].weight
    moved = bytes_of(*weight.parts)
    flops = 2 * rows * weight.d_in * weight.d_out
    return bench.timed(bench.capture(run), moved=moved, flops=flops, of=len(kept))


def shapes(bench: Bench) -> Iterator[Case]:
    """Other tiles than those that are chosen, for whoever chooses."""
    fastest = Fastest()
    for scheme in ("int8", "int4"):
        for place in bench.pick(("mlp_in", "mlp_out"), ("attn_out",)):
            count = copies(bench, "gpt2-xl", place, scheme, 1)
            kept = [held(bench, "gpt2-xl", place, scheme) for _ in range(count)]
            for rows in bench.pick((16, 64, 128), (9,)):
                what = f"tile of {place} in {scheme}, {rows} rows"
                for shape in (None, *bench.pick(SHAPES, SHAPES[:1])):
                    prepare = partial(_shaped, bench, shape)
                    case = partial(_timed, bench, kept, place, rows, prepare)
                    yield f"{what}: {shape or 'chosen'}", partial(fastest.of, what, str(shape or "chosen"), case)
                yield f"fastest {what}", partial(fastest.told, what)


def _shaped(bench: Bench, shape: Shape | None, of: Held) -> Run:
    kernels = tiles(bench, 1 << 30, shape)
    given = of.weight, of.bias, of.activation
    return lambda _, x, residual: kernels.linear(x, *given, residual)


def memory(bench: Bench) -> Iterator[Case]:
    """What shares of bandwidth divide by."""
    size = bench.pick(5 << 30, 1 << 20)
    yield "read 5 GB", lambda: bench.timed(torch.ones(size // 4, device=bench.device).sum, moved=size)


def steps(model: str, bench: Bench) -> Iterator[Case]:
    for scheme in SCHEMES if not bench.dry else ("int8",):
        yield f"steps of {model}, {scheme}", partial(_stepped, bench, model, scheme)


def _stepped(bench: Bench, model: str, scheme: str) -> Numbers:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "ridgeline", "bench", "step", "--random-weights", bench.pick(model, "gpt2"),
            "--quantize", scheme, "--batch", bench.pick(BATCHES, "1"), "--context", bench.pick("480", "16"),
            "--steps", bench.pick("128", "2"), "--rounds", bench.pick("5", "1"), "--prefill", bench.pick("512", "0"),
            "--max-steps-per-visit", bench.pick("16", "1"), "--launches-in-flight", bench.pick("2", "1"),
            "--device", bench.pick("cuda", "cpu"), "--json", str(Path(folder) / "step.json"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {str(at): line for at, line in enumerate(lines)}


def quality(bench: Bench) -> Iterator[Case]:
    """Of the bundled model on the bundled text, by perplexity and by how often the likeliest token is the same."""
    for scheme in SCHEMES if not bench.dry else ("none", "int8"):
        yield f"quality of {scheme}", partial(_read, bench, scheme)


def _read(bench: Bench, scheme: str) -> Numbers:
    from ridgeline.build import EngineOrder, make_engine
    from ridgeline.core.config import Config
    from ridgeline.hub import resolve
    from ridgeline.lab.ladder.quality import compare, read, text_ids

    found = resolve("demo")

    def reading(quantize: str) -> tuple[object, ...]:
        config = Config.of(model="demo", device=bench.pick("cuda", "cpu"), quantize=quantize)
        order = EngineOrder(config, found.name, found.weights)
        engine, info = make_engine(order, lambda *_: None)
        return read(engine, text_ids(order, bench.pick(16384, 300)), 256, lambda *_: None), info.notes

    (reference, _), (candidate, notes) = reading("none"), reading(scheme)
    judged = compare(reference, candidate)  # type: ignore[arg-type]
    return {
        "perplexity": judged.perplexity, "of bfloat16": judged.reference_perplexity, "agreement": judged.agreement,
        "positions": judged.positions, "notes": list(notes),  # type: ignore[call-overload]
    }  # fmt: skip


UNTIMED: dict[str, Group] = {"parity": parity}
TIMED: dict[str, Group] = {
    "memory": memory,
    **{f"{model}-{scheme}": partial(products, model, scheme) for model in WIDTHS for scheme in SCHEMES},
    "shapes": shapes,
    "quality": quality,
    **{f"steps-{model}": partial(steps, model) for model in WIDTHS},
}


if __name__ == "__main__":
    rehearsed = [name for name in TIMED if name not in ("memory", "quality") and not name.startswith("steps")]
    main("scripts.check_gpu_quant", __doc__ or "", TIMED, UNTIMED, rehearsed, timeout_s=120)
