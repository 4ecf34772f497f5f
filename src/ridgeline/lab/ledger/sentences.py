"""Sentences: what the numbers of a step say, in words. Knows accounts; measures nothing and guesses nothing."""

from __future__ import annotations

from ridgeline.core.ceilings import Ceilings
from ridgeline.core.cost import step_costs
from ridgeline.core.floor import LAUNCH, fits_in_cache
from ridgeline.core.spec import ModelSpec
from ridgeline.lab.ledger.causes import REST, Account, Accountant
from ridgeline.lab.ledger.entries import Step

NAMES = {
    "embedding": "the embedding",
    "norm": "layer norm",
    "qkv": "the product to queries, keys and values",
    "attention": "attention",
    "projection": "the projection after attention",
    "mlp": "the MLP",
    "head": "the head",
    "sampling": "sampling",
    "host": "the host (planning, packing and what lies between operations)",
}


def sentences(step: Step, accountant: Accountant, spec: ModelSpec) -> list[str]:
    """Two to four for one kind of step."""
    whole, ceilings = accountant.step(step), accountant.ceilings
    said = [f"{_where(step)} a step takes {time(step.step_ns.median)}; {_floor(whole, ceilings)}."]
    said += _distance(step, accountant)
    if whole.mbu is not None and whole.mfu is not None:
        said.append(
            f"The step moves what it must at {percent(whole.mbu)} of the memory bandwidth and computes at "
            f"{percent(whole.mfu)} of the matrix rate measured here."
        )
    costs = step_costs(spec, step.shape, accountant.formats)
    if fits_in_cache(costs, ceilings):
        streamed = sum(cost.streamed_bytes for cost in costs)
        name = ceilings.level_for(streamed).name
        said.append(
            f"The {size(streamed)} of weights and cache that a step reads fit {name}: conclusions about memory "
            "bandwidth do not hold here."
        )
    return said


def _where(step: Step) -> str:
    if step.phase == "prefill":
        many = "" if step.batch == 1 else f" for each of {step.batch} sequences"
        return f"For a prompt of {step.context} tokens{many}"
    return f"At batch {step.batch} and context {step.context}"


def _floor(whole: Account, ceilings: Ceilings) -> str:
    predicted = whole.predicted
    if whole.below_floor:
        return (
            f"that is less than the floor of {time(predicted.ns)}, so some of what was assumed to come from afar was "
            "still in a cache, or the ceilings were measured on a busier machine"
        )
    return f"the floor is {time(predicted.ns)}, {_set_by(whole, ceilings)}"


def _set_by(whole: Account, ceilings: Ceilings) -> str:
    predicted = whole.predicted
    if predicted.binds == LAUNCH:
        return f"set by {predicted.launches} launches of {time(ceilings.launch_ns.median)} each"
    for level in ceilings.levels:
        if level.name == predicted.binds:
            where = "" if level is ceilings.memory else f" from {level.name}"
            return f"set by reading and writing {size(predicted.bytes)}{where} at {rate(level.read.median, 'B/s')}"
    peak = ceilings.matrix[predicted.binds.removeprefix("matrix ")].median
    return f"set by {count(predicted.flops)}FLOP at {rate(peak, 'FLOP/s')}"


def _distance(step: Step, accountant: Accountant) -> list[str]:
    """The region farthest above its floor, and why."""
    accounts = {name: accountant.places(step, entries) for name, entries in step.regions.items()}
    name = max(accounts, key=lambda region: accounts[region].residual_ns)
    account = accounts[name]
    if account.residual_ns <= 0:
        return []
    subject = NAMES[name][0].upper() + NAMES[name][1:]
    cause = max(account.causes, key=lambda known: account.causes[known])
    share = account.causes[cause] / account.residual_ns
    amount = "most of it" if share > 0.5 else f"the largest part of it ({percent(share)})"
    above = time(account.residual_ns)
    far = f"{above} above its floor" if account.predicted.ns else f"{above} that no floor asks for"
    why = f", {amount} {_because(cause, account, step)}" if name != "host" or cause != "host wait" else ""
    return [f"{subject} is the largest distance: {far}{why}."]


def _because(cause: str, account: Account, step: Step) -> str:
    if cause == REST:
        return "not explained by anything counted"
    if cause == "launch gaps":
        return f"launch gaps: {account.calls} operations where {account.predicted.launches} would do"
    if cause == "extra passes":
        extra = (account.operand_bytes or 0) - account.predicted.bytes
        return f"extra passes: its operations read and write {size(extra)} more than they must"
    if cause == "padding":
        return f"padding: {step.padding} positions that nobody wants"
    if cause == "small tiles":
        return "small tiles: too few rows for the matrix units"
    return cause


_ROUNDS_TO_ONE = 0.9995  # of a unit: shown as 1.00 of it, not as 1000 of the smaller one


def time(ns: float) -> str:
    for unit, one in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= _ROUNDS_TO_ONE * one:
            return f"{_three(ns / one)} {unit}"
    return f"{ns:.0f} ns"


def size(count_bytes: float) -> str:
    return f"{count(count_bytes)}B"


def rate(per_second: float, unit: str) -> str:
    return count(per_second) + unit


def count(value: float) -> str:
    """A number with its decimal prefix and a space before it: `257 M`."""
    for prefix, one in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= _ROUNDS_TO_ONE * one:
            return f"{_three(value / one)} {prefix}"
    return f"{value:.0f} "


def percent(share: float) -> str:
    return f"{share * 100:.0f} %" if share >= 0.095 else f"{share * 100:.1f} %"


def _three(value: float) -> str:
    """Three digits at most, never an exponent."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"
