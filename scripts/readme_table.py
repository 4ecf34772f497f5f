"""Write the tables of README and docs from the run files in records/, so that no number in them is from memory.

python scripts/readme_table.py            # rewrites the parts between the markers
python scripts/readme_table.py --check    # says whether they are current
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ridgeline.core.cost import Formats, StepShape, step_costs, total
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.lab.ladder.file import read
from ridgeline.lab.ladder.verdict import Line
from ridgeline.lab.ladder.verdict import lines as ladder_lines

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("bench.md", "gpus.md", "ladder.md")),
    *sorted((ROOT / "docs" / "learn").glob("[1-9]*.md")),
)
MARKED = re.compile(r"(<!-- table (\w+): scripts/readme_table.py -->\n).*?(<!-- end of table -->)", re.DOTALL)
PEERS = (
    ("2026-11-23-batching-cpu/bfloat16.json", "2 cores of an AMD EPYC (Zen 3)"),
    ("2026-11-23-skeleton-h100/batching-h100.json", "NVIDIA H100 80GB HBM3"),
)
GPU = "2026-11-26-mixed-h100"
STARTS = "2026-11-26-starts-h100"
SIZES = {"gpt2": "step-16", **{name: f"step-{name}" for name in ("gpt2-medium", "gpt2-large", "gpt2-xl")}}
GPU_RUNS = (
    ("step", "bfloat16"),
    ("step-16", "16 steps a visit, 2 launches in flight"),
    ("step-fp8", "the same, cache in 8-bit floats"),
)
CPU_PEERS = ("2026-11-26-peers-cpu-recorded", "2 cores of an Intel Xeon (AVX-512 VNNI, no AMX)")
CPU_BEST, CPU_ALL = ("int8", "int4"), ("int8", "int4", "long", "short", "many", "kv8")
"""Files of the folder: what README shows, and what docs/bench.md shows."""
LADDER = ("2026-11-26-laboratory-cpu/ladder.json", "2 cores of an Intel Xeon (Emerald Rapids)")
COURSE = (
    ("2026-11-26-course-cpu", "2 cores of an Intel Xeon (Emerald Rapids)"),
    ("2026-11-26-course-h100", "NVIDIA H100 80GB HBM3"),
)
POLICIES = ("2026-11-24-policies-cpu/run.json", "2 cores of an AMD EPYC (Zen 5)")


def load(name: str) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((ROOT / "records" / name).read_text())
    return run


def lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    shown = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in shown)


def peers() -> str:
    runs = [(load(name), machine) for name, machine in PEERS]
    config = runs[0][0]["config"]
    head = (
        "Tokens a second, GPT-2 124M's shape with random weights, greedy, "
        f"{config['prompt']} tokens in and {config['new']} out; "
        "medians of interleaved rounds, ratios within a round ([records/](records)):\n\n"
    )
    columns = ["machine", "transformers generate", "one at a time", f"continuous, {config['in_flight']} in flight"]
    return head + lines(columns, [_peer(run, machine) for run, machine in runs])


def _peer(run: dict[str, Any], machine: str) -> list[str]:
    rates = {name: statistics.median(values) for name, values in run["results"]["tokens_per_s"].items()}
    ratios = {name: statistics.median(values) for name, values in run["results"]["ratios"].items()}
    return [
        f"{machine}, {run['config']['dtype']}",
        f"{rates['transformers']:.3g}",
        f"{rates['one']:.0f} ({ratios['one / transformers']:.1f}x)",
        f"{rates['continuous']:.0f} ({ratios['continuous / one']:.1f}x the column before)",
    ]


def policies() -> str:
    """What each policy and the KV cache give, relative to the slowest of their load, within a round."""
    run, machine = load(POLICIES[0]), POLICIES[1]
    many, few = run["config"]["loads"]["policies"], run["config"]["loads"]["cache"]
    head = (
        f"What each choice is worth on {machine}, {run['config']['dtype']}: {many['requests']} requests at once, "
        f"prompts of {_range(many['prompt'])} tokens, {_range(many['new'])} new ones (the last two rows: "
        f"{few['requests']} requests, {_range(few['prompt'])} and {_range(few['new'])}); "
        "same model, medians as above:\n\n"
    )
    columns = ["batching", "tokens/s", "first token, median ms", "latency p95, ms", "padding"]
    return head + lines(columns, [_system(run["results"], system) for system in run["config"]["systems"]])


def _system(results: dict[str, list[dict[str, float]]], system: dict[str, Any]) -> list[str]:
    found, base = results[system["name"]], results["one" if system["load"] == "policies" else "KV cache none"]
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    ratio = statistics.median(a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(found, base, strict=True))
    return [
        system["name"],
        f"{middle['tokens_per_s']:,.0f} ({ratio:.1f}x)",
        f"{middle['ttft_ms']:,.0f}",
        f"{middle['latency_p95_ms']:,.0f}",
        f"{middle['padding']:.0%}",
    ]


def _range(bounds: list[int]) -> str:
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]} to {bounds[1]}"


def climbed() -> str:
    """The ladder, as its run file has it."""
    return _climbed(*LADDER)


def _climbed(name: str, machine: str) -> str:
    found = read(ROOT / "records" / name)
    shown = ladder_lines(found["results"])
    head = (
        f"The ladder on {machine}, {found['config']['model']}: each rung keeps the switches of those above "
        "it in this table; gains are medians within a round, with the range of all rounds:\n\n"
    )
    columns = ["rung", "tokens/s", "against the one before", "verdict"]
    return head + lines(columns, [_rung(line) for line in shown if line.verdict != "skipped"])


def _rate(tokens_per_s: float) -> str:
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 100 else f"{tokens_per_s:.3g}"


def _rung(line: Line) -> list[str]:
    ratio = line.ratio
    gain = "" if ratio is None else f"{ratio.ratio:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"
    return [line.title, _rate(line.facts["tokens_per_s"]), gain, line.verdict]


def on_gpu() -> str:
    """Decode steps and a load of requests on a GPU, medians."""
    runs = {title: load(f"{GPU}/{name}.json") for name, title in GPU_RUNS}
    device = next(iter(runs.values()))["config"]["device_name"]
    cells = {title: {key: statistics.median(s["tokens_per_s"]) for key, s in run["samples"].items()}
             for title, run in runs.items()}  # fmt: skip
    keys = list(dict.fromkeys(key for row in cells.values() for key in row))
    rows = [[title, *(f"{row[key]:,.0f}" if key in row else "" for key in keys)] for title, row in cells.items()]
    head = f"GPT-2 124M's shape on an {device}, tokens a second:\n\n"
    gathered, continuous = (load(f"{GPU}/offline{name}.json")["results"]["rounds"][-1] for name in ("", "-continuous"))
    http = load(f"{GPU}/http.json")["results"]["servers"][0]["rounds"][0]["measures"]
    tail = (
        f"\n{gathered['requests']:,} requests, prompts of 32 to 512 tokens, 32 to 256 new ones: "
        f"{gathered['out_tokens_per_s']:,.0f} tokens a second are made offline with `gathered` batching, "
        f"{continuous['out_tokens_per_s']:,.0f} with `continuous`; {http['tokens_per_s']:,.0f} over HTTP with streams, "
        f"512 in flight.\n"
    )
    return head + lines(["decode and prefill", *keys], rows) + tail


def cpu_peers(files: Sequence[str]) -> str:
    """Ours beside the two strongest programs on a CPU, weights and cache of the same width."""
    folder, machine = CPU_PEERS
    found = [row for file in files for row in load(f"{folder}/{file}.json")["results"]]
    head = (
        f"GPT-2 124M's shape on {machine}, tokens a second; weights and cache as wide on all sides, medians of "
        "interleaved rounds, and ours against the better of the two within a round:\n\n"
    )
    columns = ["weights, cache", "", "Ridgeline", *_CPU_NAMES, "against the better"]
    return head + lines(columns, [_beside(row) for row in found])


_CPU_NAMES = ("llama.cpp", "OpenVINO")


def _beside(row: dict[str, Any]) -> list[str]:
    rates = {peer["name"]: f"{peer['tokens_per_s']:,.0f}" for peer in row["peers"]}
    ratio, ours = row["peers"][0]["ratio"], row["ours"]
    told = f"{ratio['ratio']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
    cells = [rates.get(name, "-") for name in _CPU_NAMES]
    widths = f"{ours['weights']}, {'8' if ours['kv'] == 'int8' else '16'} bits"
    return [widths, row["cell"].partition(": ")[2], f"{ours['tokens_per_s']:,.0f}", *cells, told]


def sizes() -> str:
    """Decode steps of every size of GPT-2 on a GPU, and their share of what reading their bytes alone allows."""
    gbs = next(case["GB/s"] for group in load(f"{STARTS}/quant-few.json")["results"] for case in group["cases"]
                if case["name"] == "read 5 GB")  # fmt: skip
    formats, rows = Formats(16.0, 16, 16, "bfloat16", 0), []
    for name, file in SIZES.items():
        run, spec, cells = load(f"{STARTS}/{file}.json"), GPT2_SHAPES[name], []
        for batch in (1, 64, 256):
            rate = statistics.median(run["samples"][f"decode, batch {batch}, context 512"]["tokens_per_s"])
            shape = StepShape.decode(batch, 512 + run["config"]["asked"]["steps"] // 2)
            least_s = total(step_costs(spec, shape, formats)).streamed_bytes / gbs / 1e9
            cells.append(f"{rate:,.0f} ({rate * least_s / batch:.0%})")
        rows.append([name, *cells])
    head = (
        "Tokens a second of decode steps at context 512, bfloat16, 16 steps a visit and 2 launches in flight, and the "
        f"share of what reading a step's weights and cache at the measured {gbs / 1000:.2f} TB/s allows:\n\n"
    )
    return head + lines(["", "batch 1", "batch 64", "batch 256"], rows)


WAYS = ("none", "int8", "int4", "fp8")


def quantised() -> str:
    """What all products of a decode step take on a GPU, each place by the fastest way there is, microseconds."""
    groups = {
        group["group"]: group["cases"]
        for file in (f"{GPU}/quant", f"{STARTS}/quant-gpt2-int4", f"{STARTS}/quant-xl-int4")
        for group in load(f"{file}.json")["results"]
    }
    parts = []
    for model, layers in (("gpt2", 12), ("gpt2-xl", 48)):
        sums = {scheme: _products(groups[f"{model}-{scheme}"], layers) for scheme in WAYS}
        rows = [
            [
                f"{count:,}",
                *(f"{sums[way][count]:,.0f} ({sums['none'][count] / sums[way][count]:.2f}x)" for way in WAYS),
            ]
            for count in sums["none"]
        ]
        parts.append(f"\n{model}, NVIDIA H100 80GB HBM3:\n\n{lines(['rows', *WAYS], rows)}")
    return "".join(parts)


def _products(cases: Sequence[dict[str, Any]], layers: int) -> dict[int, float]:
    """Microseconds by number of rows: every place of a layer so many times, and the head."""
    made: dict[int, float] = {}
    for case in cases:
        found = re.fullmatch(r"fastest \S+ (\w+), (\d+) rows, \w+", case["name"])
        if found is not None:
            times = 1 if found[1] == "head" else layers
            made[int(found[2])] = made.get(int(found[2]), 0.0) + times * case["us"]
    return made


def gpu_ladder() -> str:
    return _climbed(f"{GPU}/ladder.json", "an NVIDIA H100 80GB HBM3")


def learned(chapter: int) -> str:
    """What the reference machines said to a chapter's question."""
    return "".join(_answered(load(f"{folder}/{chapter}.json"), machine) for folder, machine in COURSE)


def _answered(run: dict[str, Any], machine: str) -> str:
    results = run["results"]
    figures = results["figures"]
    head = f"{machine}, {run['config']['model']}: **{results['answer']:.3g} {results['unit']}**\n\n"
    return f"\n{head}{lines(figures['columns'], figures['rows'])}"


def occupied() -> str:
    """What the last chapter's other experiment found on each machine."""
    parts = []
    for folder, machine in COURSE:
        beside = load(f"{folder}/8.json")["results"]["beside"]
        parts.append(f"\n{machine}:\n\n{lines(beside['columns'], beside['rows'])}")
    return "".join(parts)


CHAPTERS = 8
TABLES: dict[str, Callable[[], str]] = {
    "peers": peers,
    "policies": policies,
    "ladder": climbed,
    "gpu": on_gpu,
    "gpusizes": sizes,
    "cpu": partial(cpu_peers, CPU_BEST),
    "cpuall": partial(cpu_peers, CPU_ALL),
    "quantised": quantised,
    "gpuladder": gpu_ladder,
    "occupancy": occupied,
    **{f"learn{chapter}": partial(learned, chapter) for chapter in range(1, CHAPTERS + 1)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for page in PAGES:
        before = page.read_text()
        after = MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], before)
        if arguments.check and after != before:
            sys.exit(f"{page.name}: a table is not what records/ say; run scripts/readme_table.py")
        if not arguments.check:
            page.write_text(after)


if __name__ == "__main__":
    main()
