"""Ceilings made by hand, in round numbers."""

from __future__ import annotations

from ridgeline.core.ceilings import Ceilings, Datasheet, Level, Rate


def rate(middle: float) -> Rate:
    return Rate(middle, middle * 0.9, middle * 1.1)


def machine(*, cache_bytes: int = 1 << 20, sheet: bool = False) -> Ceilings:
    """Memory reads 10 GB/s, a cache of `cache_bytes` 40 GB/s; 200 GFLOP/s in bfloat16, 100 in float32, 1 us a
    launch. So the ridge is at 20 FLOP/byte in bfloat16 and 10 in float32."""
    return Ceilings(
        device="a processor, 2 threads",
        threads=2,
        levels=(Level("L2", cache_bytes, rate(40e9)), Level("memory", None, rate(10e9))),
        matrix={"float32": rate(100e9), "bfloat16": rate(200e9)},
        launch_ns=rate(1000.0),
        graph_launch_ns=None,
        to_device=None,
        datasheet=Datasheet("Processor 9000", 12e9, {"bfloat16": 300e9}, "the vendor") if sheet else None,
    )
