"""MENU: what each option's name stands for. Standard library only; `chosen` turns a name into its object.

Below build.py nobody compares option names. A new choice is one row here and one object in its room; the command
line's choices, the oracle tests and the option reference follow.
"""

from __future__ import annotations

import importlib
from typing import Any

MENU: dict[str, dict[str, str]] = {
    "quantize": {
        "none": "ridgeline.models.schemes:AsStored",
        "int8": "ridgeline.models.schemes:Int8",
        "int4": "ridgeline.models.schemes:Int4",
        "fp8": "ridgeline.models.schemes:Float8",
    },
    "batching": {
        "one": "ridgeline.scheduler.policies:OneAtATime",
        "static": "ridgeline.scheduler.policies:Static",
        "dynamic": "ridgeline.scheduler.policies:Dynamic",
        "prefill-first": "ridgeline.scheduler.policies:PrefillFirst",
        "continuous": "ridgeline.scheduler.policies:Continuous",
        "gathered": "ridgeline.scheduler.policies:Gathered",
    },
    "packing": {
        "padded": "ridgeline.runner.inputs:Padded",
        "ragged": "ridgeline.runner.inputs:Ragged",
    },
    "determinism": {
        "off": "ridgeline.runner.determinism:Off",
        "run": "ridgeline.runner.determinism:Run",
        "batch": "ridgeline.runner.determinism:Batch",
    },
    "graphs": {
        "eager": "ridgeline.runner.graphs:NoGraphs",
        "graph": "ridgeline.runner.graphs:Graphs",
        "recorded": "ridgeline.runner.recorded:Recorded",
    },
    "kv_cache": {
        "paged": "ridgeline.kv.ledger:Ledger",
        "none": "ridgeline.kv.nocache:NoCache",
    },
    "kv_dtype": {
        "auto": "ridgeline.attention.formats:AsModel",
        "bfloat16": "ridgeline.attention.formats:Bfloat16",
        "float16": "ridgeline.attention.formats:Float16",
        "int8": "ridgeline.attention.formats:Int8",
        "fp8": "ridgeline.attention.formats:Float8",
    },
    "attention": {
        "reference": "ridgeline.attention.reference:Reference",
        "paged": "ridgeline.attention.paged:Paged",
        "native": "ridgeline.attention.native:Native",
        "paged-rows": "ridgeline.attention.paged_rows:PagedRows",
        "by-row": "ridgeline.attention.by_row:ByRow",
    },
    "recorder": {
        "on": "ridgeline.engine.recorder:FlightRecorder",
        "off": "ridgeline.engine.recorder:NoRecorder",
    },
    "prefix_cache": {
        "on": "ridgeline.kv.prefix:HashPrefix",
        "off": "ridgeline.kv.prefix:NoPrefix",
    },
}


def chosen(option: str, name: str) -> Any:
    """The object that MENU names for an option's choice. For the rooms that join others."""
    module, _, attribute = MENU[option][name].partition(":")
    return getattr(importlib.import_module(module), attribute)
