"""Doctor: what this machine offers to the laboratory, what is blocked, and how to enable it. A list of looks, each of
which returns a Finding; it changes nothing and measures nothing."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.bench.words import human_bytes, plural
from ridgeline.core.errors import ConfigError
from ridgeline.core.findings import Finding
from ridgeline.hub.access import Access
from ridgeline.lab.doctor.profilers import driver_state, energy_state, ncu_state, nsys_state, perf_state
from ridgeline.lab.doctor.surroundings import Surroundings

__all__ = ["CHECKS", "Doctor", "examine", "ncu_state", "perf_state", "show"]

# What makes 16- and 8-bit products quick on a CPU, by the flag of /proc/cpuinfo; x86 first, then Arm.
_INSTRUCTIONS = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "bfloat16", "avx512_vnni": "VNNI", "avx_vnni": "AVX-VNNI",
    "amx_bf16": "AMX bfloat16", "amx_int8": "AMX int8", "avx512_fp16": "float16", "asimd": "NEON", "sve": "SVE",
    "bf16": "bfloat16", "i8mm": "int8 products",
}  # fmt: skip
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True, slots=True)
class Doctor:
    """What the looks look at."""

    at: Surroundings
    cache: Path
    hub: Access


def examine(doctor: Doctor) -> list[Finding]:
    return [check(doctor) for check in CHECKS]


def show(console: Console, findings: Sequence[Finding]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("what", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("seen", overflow="fold", ratio=1)
    table.add_column("what to do", overflow="fold", ratio=1)
    for found in findings:
        table.add_row(found.name, found.state, found.detail, found.remedy)
    console.print(table, markup=False, highlight=False)


def _python(_: Doctor) -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _torch(_: Doctor) -> Finding:
    import torch

    from ridgeline.device.choose import missing_cuda_hint

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    hint = missing_cuda_hint()
    if hint is not None:
        return Finding("torch", "blocked", f"{torch.__version__}, {built}", hint)
    return Finding("torch", "ok", f"{torch.__version__}, {built}")


def _instructions(doctor: Doctor) -> Finding:
    lines = (doctor.at.text("/proc/cpuinfo") or "").splitlines()
    line = next((line for line in lines if line.partition(":")[0].strip() in ("flags", "Features")), None)
    if line is None:
        return Finding("CPU instructions", "missing", "/proc/cpuinfo does not name them")
    flags = set(line.partition(":")[2].split())
    found = ", ".join(dict.fromkeys(name for flag, name in _INSTRUCTIONS.items() if flag in flags)) or "none known"
    if flags.isdisjoint(_BFLOAT16):
        return Finding(
            "CPU instructions", "missing", f"{found}; no bfloat16", "weights in bfloat16 are computed in float32"
        )
    return Finding("CPU instructions", "ok", found)


def _cores(_: Doctor) -> Finding:
    import psutil

    from ridgeline.device.cpu import cgroup_cpus, default_threads

    logical, physical = psutil.cpu_count() or 1, psutil.cpu_count(logical=False)
    quota = cgroup_cpus(Path("/sys/fs/cgroup/cpu.max"))
    threads = default_threads()
    detail = f"{plural(physical or logical, 'core')}, {plural(logical, 'hardware thread')}; torch takes {threads}"
    if quota is not None and quota < logical:
        return Finding(
            "CPU cores", "blocked", f"{detail}, because the control group grants {quota}", "raise its cpu.max"
        )
    if threads < (physical or logical):
        return Finding("CPU cores", "blocked", detail, "unset OMP_NUM_THREADS, and see `taskset -p $$`")
    return Finding("CPU cores", "ok", detail)


def _memory(_: Doctor) -> Finding:
    import psutil

    from ridgeline.device.cpu import cgroup_free_bytes

    memory = psutil.virtual_memory()
    limit = cgroup_free_bytes(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    detail = f"{human_bytes(memory.total)}, {human_bytes(memory.available)} of it free"
    if limit is not None and limit < memory.available:
        grants = f"{detail}; the control group grants {human_bytes(limit)}"
        return Finding("memory", "blocked", grants, "raise its memory.max for larger models")
    return Finding("memory", "ok", detail)


def _compiler(doctor: Doctor) -> Finding:
    from ridgeline.device.jit import CannotBuild, Compiler

    try:
        found = Compiler.find(doctor.at.which)
    except CannotBuild:
        why = "read rates of the inner caches are then measured second-best"
        return Finding("C compiler", "missing", f"no cc, gcc or clang; {why}", "apt install gcc")
    return Finding("C compiler", "ok", f"{found.path}: {found.version}")


def _cpp_compiler(doctor: Doctor) -> Finding:
    from ridgeline.device.jit import CPP, CannotBuild, Compiler

    name = "C++ compiler"
    try:
        found = Compiler.find(doctor.at.which, CPP)
    except CannotBuild:
        lost = "a CPU attends in plain torch, --quantize is many times slower and --kv-dtype int8 refused"
        none = f"no {', '.join(CPP.programs)}; without one {lost}"
        return Finding(name, "missing", none, f"apt install {CPP.package}")
    return Finding(name, "ok", f"{found.path}: {found.version}")


def _kernels(doctor: Doctor) -> Finding:
    from ridgeline.attending import native_sources
    from ridgeline.device.jit import CPP, CannotBuild, Compiler, is_kept

    name, sources = "CPU kernels", native_sources()
    try:
        compiler = Compiler.find(doctor.at.which, CPP)
    except CannotBuild:
        return Finding(name, "missing", f"{' and '.join(sources)}: nothing can be compiled", "see C++ compiler")
    lacking = [what for what, source in sources.items() if not is_kept(source, doctor.cache, compiler)]
    if lacking:
        told = f"{' and '.join(lacking)}: not compiled for this CPU and this compiler yet"
        return Finding(name, "missing", told, "nothing: the first start that needs them compiles them in some seconds")
    return Finding(name, "ok", f"{' and '.join(sources)}: compiled, in {doctor.cache / 'kernels'}")


def _transformers(_: Doctor) -> Finding:
    try:
        version = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        why = "the first rung of the ladder compares with it"
        return Finding("transformers", "missing", f"not installed; {why}", 'pip install "transformers>=4.57,<6"')
    return Finding("transformers", "ok", version)


def _hub(doctor: Doctor) -> Finding:
    from huggingface_hub import constants

    folder = doctor.hub.cache_dir or Path(constants.HF_HUB_CACHE)
    try:
        models = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("models--"))
    except OSError:
        models = []
    if not models:
        why = "no model is cached; without one the laboratory takes random weights of GPT-2's shape"
        return Finding("hub cache", "missing", f"{folder}: {why}", "ridgeline generate --model gpt2 Hello")
    return Finding("hub cache", "ok", f"{folder}: {plural(len(models), 'model')}")


def _ceilings(doctor: Doctor) -> Finding:
    from ridgeline.device.choose import choose
    from ridgeline.lab.machine import ceilings_path, read_ceilings

    path = ceilings_path(doctor.cache, choose("auto", "auto"))
    again = "ridgeline calibrate"
    if not path.exists():
        return Finding("ceilings", "missing", "not measured for this device, number of threads and torch", again)
    try:
        read_ceilings(path)
    except ConfigError as error:
        return Finding("ceilings", "blocked", str(error), again)
    return Finding("ceilings", "ok", f"measured {_age(path)}: {path}")


def _age(path: Path) -> str:
    when = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    days = (datetime.datetime.now(datetime.UTC) - when).days
    return "today" if days < 1 else f"{plural(days, 'day')} ago"


CHECKS: tuple[Callable[[Doctor], Finding], ...] = (
    _python,
    _torch,
    _instructions,
    _cores,
    _memory,
    _compiler,
    _cpp_compiler,
    _kernels,
    _ceilings,
    lambda doctor: perf_state(doctor.at),
    lambda doctor: driver_state(doctor.at),
    lambda doctor: ncu_state(doctor.at),
    lambda doctor: nsys_state(doctor.at),
    lambda doctor: energy_state(doctor.at),
    _transformers,
    _hub,
)
