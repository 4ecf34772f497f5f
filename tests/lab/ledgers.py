"""Ledgers made by hand: GPT-2 124M on the hand-made machine, a few places in round numbers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ridgeline.core.ceilings import Ceilings, to_json
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.lab.ledger.file import Ledger, from_document
from tests.lab.hand_ceilings import machine

Row = dict[str, Any]


def spread(middle: float) -> Row:
    return {"median": middle, "low": middle * 0.9, "high": middle * 1.1}


def place(region: str, name: str, moved: int, flops: int, timed_ns: float) -> Row:
    """On the hand-made machine: 10 bytes and 200 FLOP a nanosecond, and a launch of a microsecond."""
    memory, compute = moved / 10, flops / 200
    predicted = {
        "ns": max(memory, compute) + 1000 if moved else 0.0, "memory_ns": memory, "compute_ns": compute,
        "launch_ns": 1000.0 if moved else 0.0, "bytes": moved, "flops": flops, "launches": 1 if moved else 0,
        "binds": "" if not moved else "memory" if memory > compute else "matrix bfloat16",
    }  # fmt: skip
    return {
        "region": region, "place": name, "predicted": predicted, "timed_ns": spread(timed_ns), "calls": None,
        "operand_bytes": None, "counted_bytes": None,
    }  # fmt: skip


def step(phase: str, batch: int, tokens: int, places: list[Row]) -> Row:
    whole = sum(item["timed_ns"]["median"] for item in places)
    return {
        "phase": phase, "batch": batch, "context": 256 if phase == "decode" else tokens, "tokens": tokens,
        "step_ns": spread(whole), "twin_ns": spread(whole * 1.1), "rounds": [[whole, whole * 1.1]] * 5, "padding": 0,
        "places": places, "uncounted": "none here", "counted_bytes": None, "counted_how": None,
    }  # fmt: skip


def decode(batch: int) -> Row:
    """Weights are read once: a megabyte and a FLOP a byte for each sequence. Attention reads for each. At batch 1 the
    matrix product takes twice and attention ten times what its roof allows."""
    return step(
        "decode",
        batch,
        batch,
        [
            place("qkv", "qkv", 1_000_000, 1_000_000 * batch, 2 * max(100_000, 5_000 * batch)),
            place("attention", "attention", 10_000 * batch, 20_000 * batch, 10_000 * batch),
            place("host", "host", 0, 0, 50_000),
        ],
    )


def prefill(tokens: int = 512) -> Row:
    return step("prefill", 1, tokens, [place("qkv", "qkv", 1_000_000, 400_000_000, 4_000_000)])


def document(*steps: Row, ceilings: Ceilings | None = None, **changes: Any) -> Row:
    found: Row = {
        "format": 1,
        "kind": "ledger",
        "provenance": {
            "started": "2026-01-01T00:00:00+00:00", "command": ["ridgeline", "roofline"], "commit": None,
            "dirty": False, "cpu": "a processor", "cores": 2, "system": "Linux", "gpus": [],
            "libraries": {"ridgeline": "1"},
        },
        "config": {
            "model": "gpt2",
            "spec": asdict(GPT2_SHAPES["gpt2"]),
            "formats": {
                "weight_bits": 16, "kv_bits": 16, "activation_bits": 16, "compute": "bfloat16", "kv_scale_bits": 0,
            },
        },
        "ceilings": to_json(ceilings or machine(sheet=True)),
        "interrupted": False,
        "results": list(steps or (decode(1), decode(8), decode(64), prefill())),
    }  # fmt: skip
    written: Row = json.loads(json.dumps(found | changes))
    return written


def ledger(*steps: Row, ceilings: Ceilings | None = None) -> Ledger:
    return from_document("by hand", document(*steps, ceilings=ceilings))
