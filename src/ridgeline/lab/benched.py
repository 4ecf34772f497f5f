"""Benched: what the run files of `bench step` and `bench offline` say, as the page draws it. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from statistics import median
from typing import Any

from ridgeline.core.report import Bar, Bars, Report, Section
from ridgeline.lab.offline import Allowed, Load, described
from ridgeline.lab.stepping import Timing

Row = Mapping[str, Any]


def told_step(document: Row) -> Report:
    """document: what `bench step --json` writes. Raises KeyError, TypeError or ValueError for what it would not."""
    timings = [_timing(item) for item in document["results"]]
    if not timings:
        raise ValueError("no step was measured")
    asked = document["config"]["asked"]
    section = Section(
        title="How fast are whole steps?",
        question=(
            "All that the engine does for a step: scheduling, upload, model, head, sampling and download. The bar is "
            "the median of the rounds' medians, the line at its end the slowest and the fastest round."
        ),
        figure=Bars("tokens a second", tuple(map(_bar, timings))),
        headings=("step", "tokens/s", "slowest round", "fastest round", "host ms", "device ms"),
        rows=tuple(map(_row, timings)),
        open_table=True,
    )
    model = document["results"][0]["model"]
    decoded = f"{asked['rounds']} rounds, decode rounds of {asked['steps']} steps"
    return Report("Steps of an engine", f"{model} {_setting(document['config'])}; {decoded}.", (section,))


def _timing(item: Row) -> Timing:
    """`bench offline` keeps a context of prompts as well, `bench step` their tokens alone."""
    rounds = {name: tuple(map(tuple, item[name])) for name in ("host_ns", "device_ns")}
    if item["what"] == "decode":
        return Timing("decode", item["batch"], item["context"], item.get("tokens", item["batch"]), **rounds)
    return Timing("prefill", item.get("batch", 1), item.get("context", item["tokens"]), item["tokens"], **rounds)


def _bar(timing: Timing) -> Bar:
    rates = timing.samples()["tokens_per_s"]
    rate, low, high = timing.tokens / timing.step_ns * 1e9, min(rates), max(rates)
    hint = f"{timing.name}: {rate:,.1f} tokens/s, rounds from {low:,.1f} to {high:,.1f}"
    return Bar(timing.name, rate, f"{rate:,.0f}", hint, timing.what, low, high)


def _row(timing: Timing) -> tuple[str, ...]:
    found = timing.samples()
    rates, device = found["tokens_per_s"], found.get("step_device_ns")
    return (
        timing.name,
        f"{timing.tokens / timing.step_ns * 1e9:,.1f}",
        f"{min(rates):,.1f}",
        f"{max(rates):,.1f}",
        f"{timing.step_ns / 1e6:.3f}",
        "-" if device is None else f"{median(device) / 1e6:.3f}",
    )


def told_offline(document: Row) -> Report:
    """document: what `bench offline --json` writes. Raises KeyError, TypeError or ValueError for what it would not."""
    results, asked = document["results"], document["config"]["asked"]
    loads = [Load(**{f.name: item[f.name] for f in fields(Load)}) for item in results["rounds"]]
    alone = results.get("alone")
    floor = None
    if alone is not None:
        floor = Allowed(None if alone["decode"] is None else _timing(alone["decode"]), _timing(alone["prefill"]))
    bars = []
    for i, load in enumerate(loads, 1):
        for way, of in (("in", "in_tokens_per_s"), ("out", "out_tokens_per_s")):
            rate = load.rates[of]
            bars.append(Bar(f"round {i}, {way}", rate, f"{rate:,.0f}", f"round {i}: {rate:,.1f} tokens/s {way}", way))
    section = Section(
        title="How many tokens a second do requests get that are all there at once?",
        question="In: of prompts. Out: made. Without text and HTTP.",
        figure=Bars("tokens a second", tuple(bars)),
        readings=tuple(described(loads, floor)),
        headings=("round", "seconds", "tokens in", "tokens out", "in tok/s", "out tok/s", "steps", "rows a step"),
        rows=tuple(_round(i, load) for i, load in enumerate(loads, 1)),
    )
    prompt, new = (f"{asked[name]['low']} to {asked[name]['high']}" for name in ("prompt", "new"))
    work = f"{asked['requests']} requests with prompts of {prompt} and answers of {new} tokens"
    config = document["config"]
    name = config["model"] or f"random weights of the shape {config['random_weights']}"
    return Report("A load all at once", f"{name} {_setting(config)}; {work}.", (section,))


def _setting(config: Row) -> str:
    """Where and how it ran, in the options that matter most."""
    weights = "" if config["quantize"] == "none" else f", {config['quantize']} weights"
    return f"on {config['device_name']} (dtype {config['dtype']}{weights}, {config['batching']} batching)"


def _round(number: int, load: Load) -> tuple[str, ...]:
    rates = load.rates
    return (
        str(number),
        f"{load.seconds:.2f}",
        str(load.tokens_in),
        str(load.tokens_out),
        f"{rates['in_tokens_per_s']:,.1f}",
        f"{rates['out_tokens_per_s']:,.1f}",
        str(load.steps),
        f"{load.batch:.1f}",
    )
