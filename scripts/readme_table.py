"""Write the README's table from the run files in records/, so that no number in it is from memory.

python scripts/readme_table.py            # rewrites the part of README.md between the markers
python scripts/readme_table.py --check    # says whether it is current
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- table: scripts/readme_table.py -->\n).*?(<!-- end of table -->)", re.DOTALL)
RUNS = (
    ("2026-11-23-batching-cpu/bfloat16.json", "2 cores of an AMD EPYC (Zen 3)"),
    ("2026-11-23-skeleton-h100/batching-h100.json", "NVIDIA H100 80GB HBM3"),
)


def row(run: dict[str, Any], machine: str) -> str:
    rates = {name: statistics.median(values) for name, values in run["results"]["tokens_per_s"].items()}
    ratios = {name: statistics.median(values) for name, values in run["results"]["ratios"].items()}
    cells = [
        machine,
        run["config"]["dtype"],
        f"{rates['transformers']:.3g}",
        f"{rates['one']:.0f} ({ratios['one / transformers']:.1f}x)",
        f"{rates['continuous']:.0f} ({ratios['continuous / one']:.1f}x the column before)",
    ]
    return "| " + " | ".join(cells) + " |"


def table() -> str:
    runs = [(json.loads((ROOT / "records" / name).read_text()), machine) for name, machine in RUNS]
    config = runs[0][0]["config"]
    head = (
        "Tokens a second, GPT-2 124M's shape with random weights, greedy, "
        f"{config['prompt']} tokens in and {config['new']} out; "
        "medians of interleaved rounds, ratios within a round ([records/](records)):\n\n"
    )
    many = f"continuous, {config['in_flight']} in flight"
    columns = ["machine", "dtype", "transformers generate", "one at a time", many]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|", *(row(*run) for run in runs)]
    return head + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    before = README.read_text()
    after = MARKED.sub(lambda found: found[1] + table() + found[2], before)
    if arguments.check:
        sys.exit(0 if after == before else "README.md: the table is not what records/ say; run scripts/readme_table.py")
    README.write_text(after)


if __name__ == "__main__":
    main()
