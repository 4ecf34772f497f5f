"""MENU: what each option's name stands for. Standard library only; build.py turns the names into objects.

Below build.py nobody compares option names. A new choice is one row here and one object in its room; the command
line's choices, the oracle tests and the option reference follow.
"""

from __future__ import annotations

MENU: dict[str, dict[str, str]] = {
    "batching": {
        "one": "ridgeline.scheduler.policies:OneAtATime",
        "static": "ridgeline.scheduler.policies:Static",
        "dynamic": "ridgeline.scheduler.policies:Dynamic",
        "prefill-first": "ridgeline.scheduler.policies:PrefillFirst",
        "continuous": "ridgeline.scheduler.policies:Continuous",
    },
    "packing": {
        "padded": "ridgeline.runner.inputs:Padded",
        "ragged": "ridgeline.runner.inputs:Ragged",
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
    },
    "attention": {
        "reference": "ridgeline.attention.reference:Reference",
        "native": "ridgeline.attention.native:Native",
    },
    "prefix_cache": {
        "on": "ridgeline.kv.prefix:HashPrefix",
        "off": "ridgeline.kv.prefix:NoPrefix",
    },
}
