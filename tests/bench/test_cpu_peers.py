"""scripts/bench_cpu_peers.py with programs that only print: who runs when, which ratios follow, and what is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts.bench_cpu_peers import Asked, Side, Task, checked, measured, rotated, whole_turns

from ridgeline.lab import runfiles
from ridgeline.lab.pairing import printed, table

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "bench_cpu_peers.py"
# Prints what a bench prints: a rate of its own for each call, so that pairs can be told; and notes its call.
FAKE = """
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("rate", type=float)
for flag in ("threads", "batch", "context", "steps", "prefill"):
    parser.add_argument("--" + flag, type=int, required=True)
a = parser.parse_args()
log = pathlib.Path(__file__).with_name("log")
log.touch()
calls = sum(line.split()[:2] == [a.name, str(a.batch)] for line in log.read_text().splitlines())
with log.open("a") as file:
    print(a.name, a.batch, a.threads, a.steps, a.prefill, file=file)
if pathlib.Path(__file__).with_name("broken-" + a.name).exists():
    sys.exit("it is broken")
rate = a.rate * a.batch * (10 + calls)
print("a line that is no measurement")
print(json.dumps({"model": "x", "what": "decode", "batch": a.batch, "context": a.context, "threads": a.threads,
                  "tokens_per_s": rate}))
if a.prefill:
    print(json.dumps({"model": "x", "what": "prefill", "tokens": a.prefill, "threads": a.threads, "tokens_per_s": 7.0}))
"""
RATES = {"ours": 3.0, "slow": 1.0, "fast": 2.0}


def fake(folder: Path) -> Path:
    path = folder / "fake.py"
    path.write_text(FAKE)
    return path


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    sides = [
        part
        for name, rate in RATES.items()
        for part in (
            "--side",
            "int8",
            name,
            f"{name} int8",
            "u8",
            f"{sys.executable} {folder / 'fake.py'} {name} {rate}",
        )
    ]
    asked = ["--out", str(folder / "run.json"), "--threads", "2", "--batch", "1", "4", "--steps", "3", "--prefill", "9"]
    command = [sys.executable, str(SCRIPT), *sides, *asked, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def calls(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def row(round_: int, side: str, rate: float, error: str | None = None) -> dict[str, Any]:
    line = {"what": "decode", "batch": 1, "context": 8, "tokens_per_s": rate}
    lines = [] if error else [line]
    return {
        "round": round_, "kind": "int8", "batch": 1, "context": 8, "side": side, "lines": lines, "error": error,
    }  # fmt: skip


ASKED = Asked(tuple(Side("int8", name, "8", "16", "x") for name in RATES), 2, (1,), (8,), 3, 0)


def test_ratios_are_of_rounds_and_against_the_better_peer() -> None:
    ours, fast, slow = (10.0, 20.0, 30.0, 40.0, 60.0), (5.0, 20.0, 20.0, 25.0, 30.0), (1.0, 2.0, 3.0, 4.0, 6.0)
    runs = [
        row(turn, name, values[turn])
        for turn in range(5)
        for name, values in (("slow", slow), ("ours", ours), ("fast", fast))
    ]
    (found,) = table(runs, ASKED.widths)
    assert [peer["name"] for peer in found["peers"]] == ["fast", "slow"]
    assert found["ours"] == {"weights": "8", "kv": "16", "tokens_per_s": 30.0}
    best = found["peers"][0]["ratio"]
    assert (best["ratio"], best["low"], best["high"], best["rounds"]) == (1.6, 1.0, 2.0, 5)
    assert found["peers"][1]["ratio"]["ratio"] == 10.0
    told = printed([found])[-1]
    assert "| int8: decode, batch 1, context 8 | 30.0 (8; 16) | fast: 20.0 (8; 16) | 1.600 | [1.000, 2.000]" in told
    assert "slow 10.000" in told


def test_a_round_that_a_peer_lacks_is_no_pair() -> None:
    runs = [row(turn, name, 4.0 * rate) for turn in range(5) for name, rate in RATES.items()]
    runs[runs.index(row(2, "fast", 8.0))] = row(2, "fast", 0.0, "it is broken")
    (found,) = table(runs, ASKED.widths)
    ratios = {peer["name"]: (peer["rounds"], peer["ratio"] is None) for peer in found["peers"]}
    assert ratios == {"fast": (4, True), "slow": (5, False)}
    assert "4 of 5 rounds" in printed([found])[-1]
    kept, left = whole_turns(runs, ASKED)
    assert {run["round"] for run in kept} == {0, 1, 3, 4}
    assert {run["round"] for run in left} == {2}, "a cell of a round is measured again as a whole"


def test_who_begins_changes_with_the_round() -> None:
    orders = [[side.name for side in rotated(ASKED.sides, turn)] for turn in range(4)]
    assert orders == [["ours", "slow", "fast"], ["slow", "fast", "ours"], ["fast", "ours", "slow"], orders[0]]


def test_every_cell_in_turn_and_all_of_it_kept(tmp_path: Path) -> None:
    fake(tmp_path)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    made = [call.split() for call in calls(tmp_path)]
    assert [call[0] for call in made[:12]] == [*("ours", "slow", "fast") * 2, *("slow", "fast", "ours") * 2]
    assert [(int(batch), int(prefill)) for _, batch, _, _, prefill in made[:6]] == [(1, 9)] * 3 + [(4, 0)] * 3
    assert {(threads, steps) for _, _, threads, steps, _ in made} == {("2", "3")}
    kept = runfiles.read(tmp_path / "run.json")
    assert kept.kind == "bench cpu peers"
    assert kept.samples["int8: decode, batch 4, context 256"] == {
        f"{name} tokens/s": [rate * 4 * (10 + turn) for turn in range(5)] for name, rate in RATES.items()
    }
    for cell in ("decode, batch 1, context 256", "decode, batch 4, context 256"):
        assert f"| int8: {cell} |" in done.stdout
    assert "| 1.500 | [1.500, 1.500], 5 rounds" in done.stdout
    assert "ours int8; u8" in done.stdout
    assert "prefill, 9 tokens | 7.0" in done.stdout
    document = json.loads((tmp_path / "run.json").read_text())
    assert [run["place"] for run in document["runs"][:3]] == [0, 1, 2]
    assert len(document["runs"]) == 5 * 2 * 3


def test_a_run_that_was_cut_goes_on(tmp_path: Path) -> None:
    fake(tmp_path)
    (tmp_path / "broken-fast").touch()
    done = run(tmp_path)
    assert done.returncode == 1
    assert "left out: fast: exit code 1: it is broken" in done.stderr
    (tmp_path / "broken-fast").unlink()
    path = tmp_path / "run.json"
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    before = len(calls(tmp_path))
    assert run(tmp_path).returncode == 0
    assert len(calls(tmp_path)) == before, "there is nothing left to do"
    assert run(tmp_path, "--rounds", "6").returncode == 0
    assert len(calls(tmp_path)) == before + 6
    document = json.loads(path.read_text())
    assert len(document["left_out"]) == 30
    assert len(document["continued"]) == 3
    other = run(tmp_path, "--context", "8")
    assert other.returncode == 1
    assert "take the options that it was begun with" in other.stderr


def test_what_is_not_what_was_asked_for_is_an_error() -> None:
    task = Task("int8", 1, 8, 0)
    line = {"what": "decode", "batch": 1, "context": 8, "threads": 2, "tokens_per_s": 5.0}
    assert checked(f"[1]\n{json.dumps(line)}\n", task, 2) == ([line], None)
    for changed, why in (
        ({"batch": 2}, "no line for decode, batch 1, context 8"),
        ({"threads": 4}, "4 threads"),
        ({"tokens_per_s": 0}, "0 tokens/s"),
    ):
        _, error = checked(json.dumps(line | changed), task, 2)
        assert error is not None
        assert why in error


def test_a_program_that_does_not_end_is_ended() -> None:
    side = Side("int8", "x", "8", "16", f'{sys.executable} -c "import signal; signal.pause()"')
    assert measured(side, Task("int8", 1, 8, 0), ASKED, 0.2) == ([], "not done after 0.2 s")
    nobody = Side("int8", "x", "8", "16", "no-such-program")
    assert "no-such-program" in (measured(nobody, Task("int8", 1, 8, 0), ASKED, 1.0)[1] or "")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--rounds", "4"), "too few to tell a difference from chance"),
        (("--side", "int4", "peer", "4", "16", "x"), "--side int4: give one called `ours`"),
        (("--side", "int8", "slow", "4", "16", "x"), "each by a name of its own"),
    ],
)
def test_mistakes_get_one_sentence(more: tuple[str, ...], why: str, tmp_path: Path) -> None:
    done = run(tmp_path, *more)
    assert done.returncode == 2
    assert why in done.stderr


def test_help_teaches_how_to_set_the_peers_up() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    for word in ("pip install gguf numpy llama-cpp-python", "openvino-genai", "optimum-cli export", "--side"):
        assert word in done.stdout
