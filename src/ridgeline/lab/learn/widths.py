"""Weights in fewer bits: what a step gains and what the predictions lose. Knows schemes by their names."""

from __future__ import annotations

import dataclasses

from ridgeline.build import make_engine
from ridgeline.lab.ladder.quality import read, text_ids
from ridgeline.lab.learn.chapter import Figures, Found, Place
from ridgeline.lab.rig import Workbench
from ridgeline.lab.stepping import decode

SCHEMES = ("none", "int8", "int4")
BATCHES = (1, 16)
CONTEXT, STEPS, ROUNDS = 128, 16, 5
TOKENS, WINDOW = 2048, 256


def narrowed(place: Place) -> Found:
    """Step times at two batches, bytes of the weights, and perplexity where the weights are real ones."""
    times: dict[str, dict[int, float]] = {}
    rows: list[tuple[str, ...]] = []
    losses: dict[str, float] = {}
    for done, scheme in enumerate(SCHEMES):
        place.progress(f"quantize {scheme}", done, len(SCHEMES))
        bench = _with_scheme(place.bench, scheme)
        context = min(CONTEXT, bench.spec.max_positions // 2)
        times[scheme] = {
            batch: decode(bench, batch, context, STEPS, ROUNDS, lambda _: None).step_ns for batch in BATCHES
        }
        losses[scheme] = _perplexity(bench)
        bits = bench.formats.weight_bits
        gains = [f"{times['none'][batch] / times[scheme][batch]:.2f}x" for batch in BATCHES]
        lost = f"{losses[scheme]:.2f}" if losses[scheme] else "random weights"
        rows.append((scheme, f"{bits:.2f}", f"{bench.spec.parameters * bits / 8e6:,.0f}", *gains, lost))
    gain = times["none"][1] / times["int8"][1]
    fewer = float(rows[0][1]) / float(rows[1][1])
    told = [
        f"With 8 bits a weight a step of one sequence is {gain:.2f} times as fast; its weights are {fewer:.1f} times "
        "smaller. Where it gains less than that, something other than reading weights takes the rest; where it gains "
        "more, the wider weights were not read as fast as memory allows.",
    ]
    if losses["none"]:
        told.append(
            f"Perplexity, the price: {losses['none']:.2f} as stored, {losses['int8'] / losses['none'] - 1:+.2%} with 8 "
            f"bits, {losses['int4'] / losses['none'] - 1:+.2%} with 4."
        )
    columns = ("weights", "bits", "MB", *(f"gain at batch {batch}" for batch in BATCHES), "perplexity")
    return Found(gain, Figures(columns, tuple(rows)), tuple(told))


def _with_scheme(bench: Workbench, scheme: str) -> Workbench:
    config = bench.order.config
    model = dataclasses.replace(config.model, quantize=scheme)
    order = dataclasses.replace(bench.order, config=dataclasses.replace(config, model=model))
    return bench if order == bench.order else Workbench.open(order, lambda *_: None)


def _perplexity(bench: Workbench) -> float:
    """0 for random weights, which predict no text."""
    if bench.order.weights is None:
        return 0.0
    engine, _ = make_engine(bench.order, lambda *_: None, bench.loaded)
    return read(engine, text_ids(bench.order, TOKENS), WINDOW, lambda *_: None).perplexity
