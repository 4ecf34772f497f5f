"""ncu: its tables in both forms, its complaints, and what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.core.errors import ConfigError
from ridgeline.lab.counters import ncu
from ridgeline.lab.counters.counters import kernel_rows, ncu_readings
from ridgeline.lab.counters.stalls import gpu_stack, top_stall

RECORDINGS = Path(__file__).parent / "recordings"


def recorded(name: str) -> str:
    return (RECORDINGS / name).read_text()


def test_the_wide_table_is_a_row_a_kernel() -> None:
    profile = ncu.parse(recorded("ncu-raw-traffic.csv"), "ncu")
    assert profile.passes == 1
    assert ["layer_norm" in kernel.name for kernel in profile.kernels] == [True, False, True, False]
    assert profile.kernels[1].values == {
        "kernel_ns": 7680, "dram_read_bytes": 3_538_944, "dram_write_bytes": 1024, "l2_bytes": 3_640_320,
        "l1_bytes": 3_739_648,
    }  # fmt: skip


def test_the_long_table_is_a_row_a_metric() -> None:
    profile = ncu.parse(recorded("ncu-details.csv"), "ncu")
    norm, gemm = profile.kernels
    assert norm.values == {"kernel_ns": 2560, "occupancy_pct": 6.25, "dram_read_bytes": pytest.approx(4100)}
    assert gemm.values["dram_read_bytes"] == pytest.approx(3.54e6)
    assert gemm.values["stall_long_scoreboard"] == 12
    assert "stall_long_scoreboard" not in norm.values  # n/a is no 0
    assert profile.passes is None


def test_sums_are_of_a_step_and_percentages_are_weighted_by_time() -> None:
    traffic = ncu.parse(recorded("ncu-raw-traffic.csv"), "ncu")
    found = ncu_readings(traffic, ["dram_read_bytes", "kernel_ns", "l2_bytes"], {}, steps=2)
    assert found["dram_read_bytes"].value == 4096 + 3_538_944
    assert found["kernels"].value == 2
    assert found["kernel_ns"].note is None
    pipes = ncu.parse(recorded("ncu-raw-pipes.csv"), "ncu")
    found = ncu_readings(pipes, ["tensor_pipe_pct", "shared_bytes"], {}, steps=2)
    assert found["tensor_pipe_pct"].value == pytest.approx(16.0 * 9216 / (9216 + 3072))
    assert "12 times" in str(found["shared_bytes"].note)
    missing = ncu_readings(pipes, ["l1_bytes"], {"l1_bytes": "this ncu has no such metric"}, steps=2)
    assert (missing["l1_bytes"].value, missing["l1_bytes"].reason) == (None, "this ncu has no such metric")


def test_stalls_are_shares_of_all_warps_cycles() -> None:
    pipes = ncu.parse(recorded("ncu-raw-pipes.csv"), "ncu").kernels
    shares = gpu_stack(pipes).shares
    assert shares is not None
    assert sum(shares.values()) == pytest.approx(1)
    # 12 warps at each of 10,000 issues and 6 at 1,000, of 16 and 12 warps: the kernel that issues more counts more.
    assert shares["waiting for DRAM, L2 or L1"] == pytest.approx((12 * 10_000 + 6 * 1000) / (16 * 10_000 + 12 * 1000))
    first = top_stall(pipes[:1])
    assert first is not None
    assert first[0] == "waiting for DRAM, L2 or L1"
    assert first[1] == pytest.approx(0.5)
    nothing = gpu_stack(ncu.parse(recorded("ncu-raw-traffic.csv"), "ncu").kernels)
    assert nothing.shares is None
    assert nothing.reason


def test_kernels_are_told_by_time_with_their_bytes_and_waits() -> None:
    traffic, pipes = (ncu.parse(recorded(f"ncu-raw-{name}.csv"), "ncu").kernels for name in ("traffic", "pipes"))
    gemm, norm = kernel_rows(traffic, pipes, steps=2)
    assert (gemm["launches"], gemm["ns"], gemm["dram_bytes"], gemm["occupancy_pct"]) == (1, 7680, 3_539_968, 12.5)
    assert norm["stall"]["reason"] == "waiting for DRAM, L2 or L1"
    unseen = kernel_rows(traffic, (), steps=2)[0]
    assert (unseen["occupancy_pct"], unseen["stall"]) == (None, None)


def lines(name: str) -> list[str]:
    return recorded(name).splitlines()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n".join(lines("ncu-raw-traffic.csv"))[:-30], r"line 12: cut off"),
        ("\n".join([*lines("ncu-raw-traffic.csv")[:9], '"2","4711"']), r"line 10: cut off, 2 fields of 17"),
        ("\n".join([*lines("ncu-details.csv")[:5], '"1","4711","python3.12"']), r"line 6: cut off"),
        (recorded("ncu-raw-traffic.csv").replace('"7,680"', '"slow"'), r"line 10, gpu__time_duration.sum: 'slow'"),
        (recorded("ncu-raw-traffic.csv").replace("Kernel Name", "Name"), r"no column 'Kernel Name'"),
        ("==PROF== Connected to process 1\nloading weights\n", r"no table"),
    ],
    ids=["in a field", "wide", "long", "no number", "no names", "no table"],
)
def test_damaged_output_names_the_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ncu.parse(text, "ncu")


def test_complaints_become_sentences_with_a_remedy() -> None:
    denied = ncu.complaint(recorded("ncu-denied.txt"))
    assert denied is not None
    assert "NVreg_RestrictProfilingToAdminUsers=0" in denied
    assert ncu.complaint("==ERROR== Failed to create a lock file") == "ncu: Failed to create a lock file"
    assert ncu.complaint(recorded("ncu-raw-traffic.csv")) is None


def test_what_ncu_does_not_know_is_replaced_or_given_up() -> None:
    wanted = ncu.Wanted(ncu.PIPES)
    assert wanted.drop(recorded("ncu-unknown-metric.txt"))
    assert "stall_gmma" not in wanted.names
    assert "stall_gmma" in wanted.dropped
    assert "stall_long_scoreboard" in wanted.names
    traffic = ncu.Wanted(ncu.TRAFFIC)
    assert traffic.drop(r"==ERROR== Failed to find metric regex:^dram__bytes_read\.(sum|min)$")
    assert traffic.names["dram_read_bytes"] == "dram__bytes_op_read.sum"
    assert traffic.names["dram_write_bytes"] == "dram__bytes_write.sum"
    assert not traffic.dropped
    assert not traffic.drop("==ERROR== The application returned an error code (9).")
    asked = ncu.command("/usr/bin/ncu", wanted, Path("out.csv"))
    assert not any("gmma" in word for word in asked)


def test_ncu_is_found_beside_the_path(tmp_path: Path) -> None:
    for version in ("2024.3.2", "2025.1.0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "ncu").touch()
    assert ncu.locate(str(tmp_path / "nowhere"), [str(tmp_path)]) == str(tmp_path / "2025.1.0" / "ncu")
    assert ncu.locate(str(tmp_path / "nowhere"), []) is None
