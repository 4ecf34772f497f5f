"""What captured steps take of a GPU's memory that the allocator knows nothing of: the driver's, graph by graph.

    PYTHONPATH=src python -m scripts.check_gpu_memory --out run.json
    PYTHONPATH=src python -m scripts.check_gpu_memory --quick             # on a CPU, where nothing is captured

An engine of each shape captures what it would while it is idle. Before and after each capture, and again after each
graph was replayed once: what the driver says is taken, less what the allocator has reserved. Kernels that are loaded on
the way are in the first graphs of a kind, so the median speaks of graphs and the sum of both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.config import Config
from ridgeline.core.records import provenance, write_run
from ridgeline.runner.graphs import Graphs, Key
from ridgeline.runner.runner import Runner

SHAPES = ("gpt2", "gpt2-medium", "gpt2-xl")


def taken() -> tuple[int, int]:
    """Bytes of the driver's own, and what the allocator has reserved."""
    if not torch.cuda.is_available():
        return 0, 0
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    return total - free - reserved, reserved


def captured(shape: str, options: dict[str, Any]) -> dict[str, Any]:
    order = EngineOrder(Config.of(random_weights=shape, **options), shape, None)
    engine, info = make_engine(order, lambda *_: None)
    runner = engine.runner
    assert isinstance(runner, Runner)
    graphs = runner.graphs
    begun, steps = taken(), []
    while isinstance(graphs, Graphs):
        before, held = taken(), set(graphs._graphs)
        if not engine.upkeep.idle():
            break
        (key,) = set(graphs._graphs) - held
        after = taken()
        steps.append(_row(key) | {"driver": after[0] - before[0], "allocator": after[1] - before[1]})
    ended = taken()
    for replay in graphs._graphs.values() if isinstance(graphs, Graphs) else ():
        replay()
    replayed = taken()
    decode = [step["driver"] for step in steps if not step["tokens"]]
    mixed = [step["driver"] for step in steps if step["tokens"]]
    return {
        "shape": shape, "options": options, "graphs": len(steps), "memory plan": info.memory_plan,
        "before": begun[0], "driver": ended[0] - begun[0], "driver after replays": replayed[0] - begun[0],
        "allocator": ended[1] - begun[1], "median decode": statistics.median(decode or [0]),
        "median mixed": statistics.median(mixed or [0]), "each": steps,
    }  # fmt: skip


def _row(key: Key) -> dict[str, int]:
    return {"seats": key.seats, "tokens": key.tokens, "needs": key.needs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the run file")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    about, results = provenance(sys.argv), []
    cases: list[tuple[str, dict[str, Any]]] = [(shape, {"kv_memory": "4GiB"}) for shape in SHAPES]
    cases.append(("gpt2", {"kv_memory": "4GiB", "max_num_seqs": 32}))
    if asked.quick:
        cases = [("gpt2", {"device": "cpu", "kv_memory": "256MiB", "max_num_seqs": 2})]
    for shape, options in cases:
        # Each in a process of its own: what the driver took for one it does not give back.
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            found = alone.submit(captured, shape, options).result()
        results.append(found)
        print(json.dumps({name: value for name, value in found.items() if name != "each"}), flush=True)
        if asked.out is not None:
            write_run(asked.out, {"provenance": about, "config": {"quick": asked.quick}, "results": results})


if __name__ == "__main__":
    main()
