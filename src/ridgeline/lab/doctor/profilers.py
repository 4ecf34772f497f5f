"""Profilers: which tools that count can be used here, and what bars the others. Knows tools; runs no measurement."""

from __future__ import annotations

from ridgeline.core.findings import Finding
from ridgeline.lab.doctor.surroundings import Surroundings

HERE = Surroundings()
PARANOID = "/proc/sys/kernel/perf_event_paranoid"
DRIVER = "/proc/driver/nvidia/version"
DRIVER_PARAMETERS = "/proc/driver/nvidia/params"

_LET_USERS_COUNT = "sudo sysctl kernel.perf_event_paranoid=1 (for a container also --cap-add=PERFMON)"
_LET_USERS_PROFILE = (
    "run as root (in a container with --cap-add=SYS_ADMIN), or let every user count: write `options nvidia "
    "NVreg_RestrictProfilingToAdminUsers=0` into /etc/modprobe.d/nvidia-profiling.conf, then `sudo update-initramfs "
    "-u` (where there is one) and restart the machine"
)
_ADMINS_ONLY = ("RmProfilingAdminOnly", "RestrictProfilingToAdminUsers")
_CAP_SYS_ADMIN = 21
_NO_GPU = "nothing to do without an NVIDIA GPU"


def perf_state(at: Surroundings = HERE) -> Finding:
    """Whether perf can count cycles of a process of ours."""
    name, path = "perf (CPU counters)", at.which("perf")
    if path is None:
        return Finding(name, "missing", "not on the PATH", "apt install linux-perf (Ubuntu: linux-tools-generic)")
    level = (at.text(PARANOID) or "").strip()
    said = at.run((path, "stat", "-x", ",", "-e", "cycles:u", "true"))
    if said is None:
        return Finding(name, "blocked", f"{path} does not run here", "reinstall it, in the kernel's own version")
    rows = [line.split(",") for line in said.splitlines()]
    value = next((row[0] for row in rows if len(row) > 2 and row[2].startswith("cycles")), "")
    shown = f"perf_event_paranoid={level}" if level else "perf_event_paranoid cannot be read"
    if value.isdigit():
        return Finding(name, "ok", f"hardware events are counted; {shown}")
    if "not supported" in value:
        return Finding(
            name, "blocked", f"perf is there, but this machine has no hardware events; {shown}",
            "a virtual machine must pass its counters on (QEMU: -cpu host,pmu=on), or take a machine of your own",
        )  # fmt: skip
    return Finding(name, "blocked", f"the kernel does not let this user count; {shown}", _LET_USERS_COUNT)


def ncu_state(at: Surroundings = HERE) -> Finding:
    """Whether Nsight Compute can read a GPU's counters."""
    name, path = "ncu (GPU counters)", at.which("ncu")
    if path is None:
        remedy = _NO_GPU if not _has_driver(at) else "install Nsight Compute and put its folder on the PATH"
        return Finding(name, "missing", "not on the PATH", remedy)
    if not _has_driver(at):
        return Finding(
            name, "blocked", f"{path}, but there is no NVIDIA driver", "install the driver, or take a GPU machine"
        )
    if _admins_only(at) and not _is_admin(at):
        return Finding(
            name, "blocked", f"{path}, but the driver shows counters to administrators only", _LET_USERS_PROFILE
        )
    return Finding(
        name, "ok", f"{path}; the driver shows its counters to {'this' if _admins_only(at) else 'every'} user"
    )


def nsys_state(at: Surroundings = HERE) -> Finding:
    name, path = "nsys (timelines)", at.which("nsys")
    if path is None:
        remedy = _NO_GPU if not _has_driver(at) else "install Nsight Systems and put its folder on the PATH"
        return Finding(name, "missing", "not on the PATH", remedy)
    return Finding(name, "ok", path)


def driver_state(at: Surroundings = HERE) -> Finding:
    name, tool = "NVIDIA driver", at.which("nvidia-smi")
    told = at.run((tool, "--query-gpu=name,driver_version", "--format=csv,noheader")) if tool else None
    gpus = [line.strip() for line in (told or "").splitlines() if "," in line]
    if gpus:
        return Finding(name, "ok", "; ".join(gpus))
    if _has_driver(at):
        return Finding(
            name, "blocked", "the kernel has the driver, but nvidia-smi names no GPU",
            "in a container: pass the GPU in (docker run --gpus all)",
        )  # fmt: skip
    return Finding(name, "missing", "no NVIDIA GPU or no driver for it", _NO_GPU)


def energy_state(at: Surroundings = HERE) -> Finding:
    """Whether NVML tells a GPU's energy: joules a token need it."""
    name = "NVML (GPU energy)"
    try:
        import pynvml
    except ImportError:
        return Finding(name, "missing", "the Python package is not installed", "pip install nvidia-ml-py")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Finding(
            name, "missing", f"NVML does not start ({error})", _NO_GPU if not _has_driver(at) else "see nvidia-smi"
        )
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError as error:
        return Finding(name, "blocked", f"this GPU does not tell its energy ({error})")
    finally:
        pynvml.nvmlShutdown()
    return Finding(name, "ok", "the GPU counts its energy")


def _has_driver(at: Surroundings) -> bool:
    return at.text(DRIVER) is not None


def _admins_only(at: Surroundings) -> bool:
    """The driver has had several names for it; the file names it without a prefix or with one."""
    for line in (at.text(DRIVER_PARAMETERS) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip().endswith(_ADMINS_ONLY) and value.strip() != "0":
            return True
    return False


def _is_admin(at: Surroundings) -> bool:
    """By capability and not by user: root in a container may lack it."""
    for line in (at.text("/proc/self/status") or "").splitlines():
        key, _, value = line.partition(":")
        if key == "CapEff":
            return bool(int(value, 16) >> _CAP_SYS_ADMIN & 1)
    return False
