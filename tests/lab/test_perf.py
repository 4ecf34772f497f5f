"""perf: what its output says, and what stands where it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.core.errors import ConfigError
from ridgeline.lab.counters.perf import Count, difference, parse, permission
from ridgeline.lab.counters.stalls import cpu_stack

RECORDINGS = Path(__file__).parent / "recordings"


def recorded(name: str) -> str:
    return (RECORDINGS / name).read_text()


def test_a_virtual_machine_has_software_events_and_reasons_for_the_rest() -> None:
    counts = parse(recorded("perf-virtual-machine.csv"), "perf")
    assert counts["task-clock"].value == pytest.approx(113.81e6)  # nanoseconds
    assert counts["page-faults"].value == 9403
    for name in ("cycles", "cache-misses", "LLC-load-misses"):
        assert counts[name].value is None
        assert "hypervisor" in str(counts[name].reason)


def test_scaled_and_user_only_counts_are_marked() -> None:
    counts = parse(recorded("perf-intel.csv"), "perf")
    assert counts["cycles"] == Count(6.4e9, None, 63.28, user_only=True)
    assert counts["cycle_activity.stalls_mem_any"].value == 3.2e9
    assert counts["stalled-cycles-backend"].value is None


def test_kinds_of_core_are_added_up() -> None:
    counts = parse(recorded("perf-hybrid.csv"), "perf")
    assert counts["instructions"] == Count(10_000, None, 60.0, user_only=True)
    assert counts["cycles"].value == 6000


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: text.index("cycles:u") + 4], r"line 6: cut off"),
        (lambda text: text.replace("6400000000", "64e"), r"line 6: .*has no number"),
        (lambda text: text.replace("cycles:u,1166320112", ",1166320112", 1), r"line 6: .*names no event"),
        (lambda text: text.splitlines()[0], r"no counts"),
    ],
    ids=["cut off", "no number", "no event", "nothing"],
)
def test_damaged_output_names_the_line(damage, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=words):
        parse(damage(recorded("perf-intel.csv")), "perf")


def test_permission_is_a_sentence_with_the_remedy(tmp_path: Path) -> None:
    level = tmp_path / "perf_event_paranoid"
    level.write_text("4\n")
    said = permission(recorded("perf-denied.txt"), level)
    assert said is not None
    assert "it is 4 now" in said
    assert "sudo sysctl kernel.perf_event_paranoid=1" in said
    assert permission(recorded("perf-virtual-machine.csv"), level) is None


def test_a_difference_is_of_what_both_runs_counted() -> None:
    once = {"cycles": Count(1000.0), "faults": Count(9.0), "gone": Count(None, "not here")}
    twice = {"cycles": Count(1300.0, None, 50.0), "faults": Count(5.0), "gone": Count(None, "not here")}
    found = difference(once, twice)
    assert found["cycles"] == Count(300.0, None, 50.0)
    assert found["faults"].value is None
    assert "--steps" in str(found["faults"].reason)
    assert found["gone"] == Count(None, "not here")


def test_the_stack_of_a_cpu_adds_up_and_says_what_it_does_not_know() -> None:
    memory, total, cycles = Count(50.0), Count(65.0), Count(100.0)
    whole = cpu_stack({"cycles": cycles, "stalls_memory": memory, "stalls_total": total}).shares
    assert whole == pytest.approx({"working": 0.35, "waiting for memory": 0.5, "waiting for something else": 0.15})
    coarse = cpu_stack({"cycles": cycles, "stalls_memory": Count(None, "no"), "stalls_backend": Count(40.0)}).shares
    assert coarse is not None
    assert sum(coarse.values()) == pytest.approx(1.0)
    assert not any(name.split()[-1] == "memory" for name in coarse)  # the event does not tell memory from arithmetic
    beyond = cpu_stack({"cycles": cycles, "stalls_memory": Count(104.0)}).shares  # counted at different times
    assert beyond is not None
    assert min(beyond.values()) >= 0
    assert sum(beyond.values()) == pytest.approx(1.0)
    for counts in (
        {},
        {"cycles": Count(None, "not here")},
        {"cycles": cycles, "stalls_memory": Count(None, "not here")},
    ):
        nothing = cpu_stack(counts)
        assert nothing.shares is None
        assert nothing.reason
