"""ncu: the command line of Nsight Compute, and what its tables say of each kernel. Knows no step and no model.

Two runs: `TRAFFIC` in one pass with the caches as the kernel before left them, because bytes from memory depend on it;
`PIPES` takes many passes, each with emptied caches, because the later ones would find what the first one left.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.core.errors import ConfigError

PLACES = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute")
NO_NCU = (
    "ncu is not on the PATH; it comes with the CUDA toolkit (package cuda-nsight-compute-*) and with Nsight Compute "
    "from https://developer.nvidia.com/nsight-compute"
)
NO_PERMISSION = (
    "the driver lets only root read the GPU's counters (ERR_NVGPUCTRPERM): run as root, or write "
    "`options nvidia NVreg_RestrictProfilingToAdminUsers=0` to /etc/modprobe.d/nvidia-profiling.conf and start the "
    "machine again; in a container also --cap-add SYS_ADMIN on a host that allows it"
)


@dataclass(frozen=True, slots=True)
class Metric:
    """key: what Ridgeline calls it. names: ncu's, one a version or architecture, most usual first."""

    key: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """What one run of ncu collects. caches: what happens to them before each pass, none or all (emptied)."""

    name: str
    caches: str
    metrics: tuple[Metric, ...]


STALL = "stall_"
STALLS = (
    "barrier", "branch_resolving", "dispatch_stall", "drain", "gmma", "imc_miss", "lg_throttle", "long_scoreboard",
    "math_pipe_throttle", "membar", "mio_throttle", "misc", "no_instruction", "not_selected", "selected",
    "short_scoreboard", "sleeping", "tex_throttle", "wait",
)  # fmt: skip
"""Where warps are while a scheduler issues; gmma exists on Hopper only."""

DURATION = Metric("kernel_ns", ("gpu__time_duration.sum",))
TRAFFIC = Group(
    "traffic",
    "none",
    (
        DURATION,
        Metric("dram_read_bytes", ("dram__bytes_read.sum", "dram__bytes_op_read.sum")),
        Metric("dram_write_bytes", ("dram__bytes_write.sum", "dram__bytes_op_write.sum")),
        Metric("l2_bytes", ("lts__t_bytes.sum",)),
        Metric("l1_bytes", ("l1tex__t_bytes.sum",)),
    ),
)
PIPES = Group(
    "pipes",
    "all",
    (
        DURATION,
        Metric("shared_bytes", ("sm__sass_data_bytes_mem_shared.sum", "smsp__sass_data_bytes_mem_shared.sum")),
        Metric("occupancy_pct", ("sm__warps_active.avg.pct_of_peak_sustained_active",)),
        Metric(
            "tensor_pipe_pct",
            (
                "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
                "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active",
                "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
            ),
        ),
        Metric("memory_pipes_pct", ("sm__memory_throughput.avg.pct_of_peak_sustained_elapsed",)),
        Metric("issue_pct", ("smsp__issue_active.avg.pct_of_peak_sustained_active",)),
        Metric("issued", ("smsp__issue_active.sum",)),
        *(
            Metric(STALL + name, (f"smsp__average_warps_issue_stalled_{name}_per_issue_active.ratio",))
            for name in STALLS
        ),
    ),
)
GROUPS = (TRAFFIC, PIPES)
_KEYS = {name: metric.key for group in GROUPS for metric in group.metrics for name in metric.names}
# Of the details page, which has names for people; its occupancy and duration are the same metrics.
_SPOKEN = {"Duration": "kernel_ns", "Achieved Occupancy": "occupancy_pct"}


@dataclass(slots=True)
class Wanted:
    """The names to ask for; those that this ncu or GPU does not know are replaced by the next, or given up."""

    group: Group
    names: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = {metric.key: metric.names[0] for metric in self.group.metrics}

    def drop(self, complaint: str) -> bool:
        """Give up what ncu complains of by name; whether there was such."""
        lines = [line for line in complaint.splitlines() if line.startswith(("==ERROR==", "==WARNING=="))]
        unknown = [key for key, name in self.names.items() if any(_names(line, name) for line in lines)]
        for key in unknown:
            choices = next(metric.names for metric in self.group.metrics if metric.key == key)
            later = choices[choices.index(self.names[key]) + 1 :]
            if later:
                self.names[key] = later[0]
            else:
                del self.names[key]
                self.dropped[key] = f"this ncu or GPU has no metric {choices[0]}"
        return bool(unknown)


def _names(line: str, metric: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(metric.split('.')[0])}(?![\w])", line) is not None


def locate(path: str | None, places: Iterable[str] = PLACES) -> str | None:
    """On the PATH, or where NVIDIA's packages put it without adding to the PATH."""
    found = shutil.which("ncu", path=path)
    if found is not None:
        return found
    for place in map(Path, places):
        for candidate in [place / "ncu", *sorted(place.glob("*/ncu"), reverse=True)]:
            if candidate.is_file():
                return str(candidate)
    return None


def command(program: str, wanted: Wanted, output: Path) -> list[str]:
    """Kernels between cudaProfilerStart and cudaProfilerStop, of all processes, at the clocks that the GPU chooses.

    Base units, because a column of the wide table has one unit for all its kernels.
    """
    return [
        program, "--profile-from-start", "off", "--target-processes", "all", "--clock-control", "none",
        "--cache-control", wanted.group.caches, "--nvtx", "--csv", "--page", "raw", "--print-units", "base",
        "--log-file", str(output), "--metrics", ",".join(wanted.names.values()),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch. values: by Ridgeline's keys, in bytes, nanoseconds and percent. place: the innermost NVTX range that
    it was launched in; None outside of all."""

    name: str
    values: Mapping[str, float]
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """passes: how often ncu ran a kernel at most; None where it does not say."""

    kernels: tuple[Kernel, ...]
    passes: int | None


def complaint(text: str) -> str | None:
    """The reason why ncu measured nothing, with a remedy where one is known; None where it does not complain."""
    if "ERR_NVGPUCTRPERM" in text:
        return NO_PERMISSION
    if "No kernels were profiled" in text:
        return "ncu saw no kernel: the model does not run on an NVIDIA GPU"
    error = next(
        (line.removeprefix("==ERROR==").strip() for line in text.splitlines() if line[:9] == "==ERROR=="), None
    )
    return None if error is None else f"ncu: {error}"


def parse(text: str, source: str) -> Profile:
    """ncu's CSV, of `--page raw` (a row a kernel, units in the second line) or `--page details` (a row a metric).

    ncu's own lines (`==PROF==`) and what the program printed may stand before and between. Raises ConfigError, naming
    the line, for a table that is cut off, and where there is none.
    """
    passes = [int(found[1]) for found in re.finditer(r"^==PROF==.* - (\d+) pass", text, re.MULTILINE)]
    rows = _rows(text, source)
    if not rows:
        raise ConfigError(f"{source}: ncu has written no table")
    (_, header), body = rows[0], rows[1:]
    kernels = _long(header, body, source) if "Metric Name" in header else _wide(header, body, source)
    return Profile(tuple(kernels), max(passes, default=None))


def _rows(text: str, source: str) -> list[tuple[int, list[str]]]:
    """Numbered lines of the table, its header first."""
    rows = list[tuple[int, list[str]]]()
    for number, line in enumerate(text.splitlines(), 1):
        begun = bool(rows) or line.startswith(('"ID",', "ID,"))
        if not begun or not line.strip() or line.startswith("=="):
            continue
        try:
            rows.append((number, next(csv.reader([line], strict=True))))
        except csv.Error as error:
            raise ConfigError(f"{source}, line {number}: cut off or no line of a table ({error}): {line!r}") from None
    return rows


def _wide(header: Sequence[str], body: Sequence[tuple[int, list[str]]], source: str) -> list[Kernel]:
    units: Sequence[str] = [""] * len(header)
    kernels = list[Kernel]()
    for number, row in body:
        if len(row) != len(header):
            raise ConfigError(f"{source}, line {number}: cut off, {len(row)} fields of {len(header)}")
        if not row[0]:
            units = row
            continue
        fields = zip(header, units, row, strict=True)
        found = (
            (name, _value(text, unit, f"{source}, line {number}, {name}"))
            for name, unit, text in fields
            if name in _KEYS
        )
        values = {_KEYS[name]: value for name, value in found if value is not None}
        kernels.append(Kernel(row[_column(header, "Kernel Name", source)], values, _range(header, row)))
    return kernels


def _long(header: Sequence[str], body: Sequence[tuple[int, list[str]]], source: str) -> list[Kernel]:
    wanted = ("Kernel Name", "Metric Name", "Metric Unit", "Metric Value")
    name_at, metric_at, unit_at, value_at = (_column(header, name, source) for name in wanted)
    process_at = header.index("Process ID") if "Process ID" in header else 0
    names, values = dict[tuple[str, str], str](), dict[tuple[str, str], dict[str, float]]()
    places = dict[tuple[str, str], str | None]()
    for number, row in body:
        if len(row) <= value_at:
            raise ConfigError(f"{source}, line {number}: cut off, {len(row)} fields of {len(header)}")
        launch, metric = (row[process_at], row[0]), row[metric_at]
        names[launch], places[launch] = row[name_at], _range(header, row)
        mine = values.setdefault(launch, {})
        key = _KEYS.get(metric) or _SPOKEN.get(metric)
        if key is None:  # a metric of another section, or a rule's advice
            continue
        value = _value(row[value_at], row[unit_at], f"{source}, line {number}, {metric}")
        if value is not None:
            mine.setdefault(key, value)
    return [Kernel(name, values[launch], places[launch]) for launch, name in names.items()]


# Of each open range, outermost first: "<default domain>:qkv:none:none:none:none:none:none" in doubled quotes.
_PUSHED = re.compile(r'"+<default domain>:(.*?)(?::[^:"]*){6}"')


def _range(header: Sequence[str], row: Sequence[str]) -> str | None:
    at = next((at for at, name in enumerate(header) if "Push/Pop_Range" in name), None)
    found = [] if at is None else _PUSHED.findall(row[at])
    return str(found[-1]) if found else None


def _column(header: Sequence[str], name: str, source: str) -> int:
    if name not in header:
        raise ConfigError(f"{source}: ncu's table has no column {name!r}")
    return header.index(name)


_UNITS = {
    "byte": 1.0, "kbyte": 1e3, "mbyte": 1e6, "gbyte": 1e9, "tbyte": 1e12, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9,
    "nsecond": 1.0, "usecond": 1e3, "msecond": 1e6, "second": 1e9, "ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9,
}  # fmt: skip


def _value(text: str, unit: str, where: str) -> float | None:
    """In bytes, nanoseconds or percent; None where ncu has none."""
    plain = text.replace(",", "").strip()
    if plain.lower() in ("", "n/a", "nan", "-nan"):
        return None
    try:
        return float(plain) * _UNITS.get(unit.strip().lower(), 1.0)
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is not a number") from None
