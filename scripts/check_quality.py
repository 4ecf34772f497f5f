"""What rounding weights costs a model on a CPU: perplexities of one text, side by side, as JSON.

python scripts/check_quality.py --out run.json                  # the bundled model, the whole of the bundled text
python scripts/check_quality.py --model gpt2 --tokens 4096 --places

float32, int8 and int4 are read by the engine that serves them. The others are simulated with float sums, to see where a
loss comes from: 4-bit rounding as llama.cpp's Q4_0 has it, each scheme's weights alone, 8-bit activations alone, and
with --places one kind of matrix at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.build import EngineOrder, Loaded, make_engine
from ridgeline.core.config import Config
from ridgeline.core.records import provenance, write_run
from ridgeline.device.choose import choose as choose_device
from ridgeline.hub import Access, choose
from ridgeline.lab.ladder.quality import Reading, compare, read, text_ids
from ridgeline.models.gpt2_weights import load_gpt2
from ridgeline.models.linear import Embedding, Linear, LinearSpec, PlainNorms
from ridgeline.ops.activation import ACTIVATIONS
from ridgeline.ops.packed import BITS, Packed
from ridgeline.ops.quantised import rounded

Rounding = Callable[[Tensor], Tensor]
"""A weight [d_out, d_in] to what is left of it."""

PLACES = ("lm_head", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
Q4_0_GROUP, Q4_0_BITS = 32, 4.5


def q4_0(weight: Tensor) -> Tensor:
    """What llama.cpp's Q4_0 keeps: 32 inputs share a 16-bit scale, of which the largest, with its sign, is -8."""
    groups = weight.reshape(len(weight), -1, Q4_0_GROUP)
    largest = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    scale = largest / -8
    inverse = torch.where(scale != 0, 1 / scale, 0.0)
    codes = (groups * inverse + 8.5).trunc().clamp(0, 15) - 8
    return (codes * scale.to(torch.float16).to(torch.float32)).view_as(weight)


def ours(bits: int) -> Rounding:
    return lambda weight: Packed.of(weight, bits).values()


def kept(weight: Tensor) -> Tensor:
    return weight


class Simulated(PlainNorms):
    """weights, activations: how each is rounded. place: which matrices, by a part of their names; all have ""."""

    notes: tuple[str, ...] = ()
    row_invariant = False

    def __init__(self, weights: Rounding, activations: Rounding = kept, place: str = "") -> None:
        self._weights, self._activations, self._place = weights, activations, place

    def linear(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Linear:
        if self._place not in spec.name:
            return SimulatedLinear(weight, bias, spec.activation, kept)
        return SimulatedLinear(self._weights(weight), bias, spec.activation, self._activations)

    def embedding(self, weight: Tensor) -> Embedding:
        return lambda ids: weight[ids]

    def tied(self, spec: LinearSpec, weight: Tensor) -> tuple[Embedding, Linear]:
        if self._place not in spec.name:
            return self.embedding(weight), SimulatedLinear(weight, None, None, kept)
        left = self._weights(weight)
        return self.embedding(left), SimulatedLinear(left, None, None, self._activations)


class SimulatedLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str | None, rounding: Rounding) -> None:
        self._weight, self._bias, self._rounding = weight, bias, rounding
        self._activation = kept if activation is None else ACTIVATIONS[activation]

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self._activation(functional.linear(self._rounding(x), self._weight, self._bias))
        return y if residual is None else y + residual


SIMULATED = {
    "Q4_0": Simulated(q4_0),
    "Q4_0, 8-bit activations": Simulated(q4_0, rounded),
    "int4, weights alone": Simulated(ours(4)),
    "int8, weights alone": Simulated(ours(8)),
    "8-bit activations alone": Simulated(kept, rounded),
}
SERVED_BITS = {"float32": 32.0, "int8": BITS[8], "int4": BITS[4], "Q4_0": Q4_0_BITS}


class Readers:
    """Engines over one text, each there for its own reading."""

    def __init__(self, model: str, tokens: int, window: int, threads: int | None, cache: Path | None = None) -> None:
        config = Config.of(
            model=model, device="cpu", dtype="float32", threads=threads, kv_memory="256MiB", max_num_seqs=2
        )
        found = choose(config.model, Access())
        self._order = EngineOrder(config, found.name, found.weights, cache=cache)
        self._window, self.ids = window, text_ids(self._order, tokens)

    def served(self, quantize: str) -> Reading:
        """As `--quantize` serves the model."""
        config = self._order.config
        order = replace(self._order, config=replace(config, model=replace(config.model, quantize=quantize)))
        return self._read(order, None)

    def simulated(self, scheme: Simulated) -> Reading:
        order = self._order
        assert order.weights is not None
        device = choose_device("cpu", "float32", order.config.model.threads)
        return self._read(order, Loaded(device, load_gpt2(order.spec(), order.weights, scheme, device)))

    def _read(self, order: EngineOrder, shared: Loaded | None) -> Reading:
        engine, _ = make_engine(order, lambda *_: None, shared)
        return read(engine, self.ids, self._window, lambda *_: None)


def measured(readers: Readers, names: Sequence[str], show: Callable[[str, dict[str, float]], None]) -> dict[str, Any]:
    """Of each name in SERVED_BITS or SIMULATED, or of a place's: perplexity, loss against float32, agreement."""
    reference, rows = readers.served("none"), {}
    for name in names:
        if name == "float32":
            found = reference
        elif name in ("int8", "int4"):
            found = readers.served(name)
        else:
            found = readers.simulated(_simulated(name))
        quality = compare(reference, found)
        rows[name] = {
            "perplexity": round(quality.perplexity, 4),
            "loss_percent": round(100 * (quality.perplexity / quality.reference_perplexity - 1), 3),
            "agreement": round(quality.agreement, 4),
        }
        show(name, rows[name])
    return rows


def _simulated(name: str) -> Simulated:
    if name in SIMULATED:
        return SIMULATED[name]
    rounding, _, place = name.partition(" of ")
    return Simulated(q4_0 if rounding == "Q4_0" else ours(4), place=place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="A name or directory, as for ridgeline serve.")
    parser.add_argument("--tokens", type=int, default=10**9, help="Of the text, at most. Default: all of it.")
    parser.add_argument("--window", type=int, default=512, help="Tokens that are read together.")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--places", action="store_true", help="Also one kind of matrix at a time.")
    parser.add_argument("--out", type=Path, default=None, help="A run file.")
    args = parser.parse_args()
    about = provenance(sys.argv)
    readers = Readers(args.model, args.tokens, args.window, args.threads)
    names = ["float32", "int8", "int4", *SIMULATED]
    names += [f"{scheme} of {place}" for place in PLACES for scheme in ("Q4_0", "int4")] if args.places else []

    def show(name: str, row: dict[str, float]) -> None:
        bits = f"{SERVED_BITS[name]:5.2f} bits" if name in SERVED_BITS else ""
        print(f"{name:26} {row['perplexity']:9.4f} {row['loss_percent']:+7.2f} % {row['agreement']:8.4f}  {bits}")

    print(f"{'':26} perplexity   loss   agreement  ({len(readers.ids)} tokens, windows of {args.window})")
    with torch.inference_mode():
        rows = measured(readers, names, show)
    if args.out is not None:
        config = {"model": args.model, "tokens": len(readers.ids), "window": args.window, "threads": args.threads}
        results = {"bits": SERVED_BITS, "rows": rows}
        write_run(args.out, {"format": 1, "kind": "quality", "provenance": about, "config": config, "results": results})


if __name__ == "__main__":
    main()
