"""Stand-ins on the PATH: a `perf` and an `ncu` that run the real child and write what a recording has, and a child
that computes nothing. They check that they are called as the real ones have it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

RECORDINGS = Path(__file__).parent / "recordings"
STEP_CYCLES, START_CYCLES = 1000, 777_777

PERF = """#!{python}
import os, pathlib, signal, subprocess, sys, threading
mode, recording = {mode!r}, pathlib.Path({recording!r}).read_text()
own, cut, command = sys.argv[1:], 0, []
attached, interrupted = "-p" in own, threading.Event()
signal.signal(signal.SIGINT, lambda *_: interrupted.set())
cut = len(own) if attached else own.index("--")
own, command = own[:cut], own[cut + 1:]
assert own[:2] == ["stat", "-x,"], own
def option(name):
    return own[own.index(name) + 1] if name in own else None
if mode == "denied":
    sys.stderr.write(recording)
    sys.exit(255)
if mode == "old" and "--control" in own:
    sys.stderr.write("  Error: unknown option `control'\\n")
    sys.exit(129)
events = option("-e").split(",")
found = {{}}
for line in recording.splitlines():
    fields = line.split(",")
    if len(fields) > 2 and fields[2]:
        found[fields[2].split(":")[0]] = line
if option("-o") is None:
    if events[0] not in found:
        sys.stderr.write("event syntax error\\n")
        sys.exit(129)
    sys.stderr.write(found[events[0]] + "\\n")
    sys.exit(0)
heard, listener = [], None
if option("--control"):
    assert option("-D") == "-1", own
    listen, answer = (int(fd) for fd in option("--control").removeprefix("fd:").split(","))
    def hear():
        while len(heard) < 2:
            heard.append(os.read(listen, 64).decode().strip())
            os.write(answer, b"ack\\n\\0")
    listener = threading.Thread(target=hear, daemon=True)
    listener.start()
code = 0 if attached else subprocess.run(command, close_fds=False).returncode
if code:
    sys.exit(code)
if attached:
    os.kill(int(option("-p")), 0)
    interrupted.wait(30)
if listener:
    listener.join(30)
    assert heard == ["enable", "disable"], heard
steps = 1 if attached else int(command[command.index("--steps") + 1])
cycles = steps * {step_cycles} + (0 if listener else {start_cycles})
lines = [line for name, line in found.items() if name in events and name != "cycles"]
lines += ["%d,,cycles:u,100,100.00,," % cycles]
if mode == "cut":
    lines = ["1843.21,mse"]
pathlib.Path(option("-o")).write_text("# started on a day\\n\\n" + "\\n".join(lines) + "\\n")
"""

NCU = """#!{python}
import pathlib, subprocess, sys
mode, recordings = {mode!r}, pathlib.Path({recording!r})
own = sys.argv[1:]
cut = own.index({python!r})
own, command = own[:cut], own[cut:]
def option(name):
    return own[own.index(name) + 1]
assert option("--profile-from-start") == "off" and option("--clock-control") == "none", own
output, metrics = pathlib.Path(option("--log-file")), option("--metrics").split(",")
if mode == "denied":
    output.write_text((recordings / "ncu-denied.txt").read_text())
    sys.exit(1)
if any("gmma" in name for name in metrics):
    output.write_text((recordings / "ncu-unknown-metric.txt").read_text())
    sys.exit(9)
code = subprocess.run(command, close_fds=False).returncode
group = "traffic" if option("--cache-control") == "none" else "pipes"
output.write_text((recordings / f"ncu-raw-{{group}}.csv").read_text())
sys.exit(code)
"""

CHILD = """
import argparse, json, time
from pathlib import Path
from ridgeline.lab.counters.perf import Control
parser = argparse.ArgumentParser()
for name in ("phase", "batch", "context", "steps", "watch", "report", "control"):
    parser.add_argument("--" + name)
given = parser.parse_args()
def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
burn(0.2)
if given.control:
    with Control(*map(int, given.control.split(","))).counting():
        burn(0.01 * int(given.steps))
energy = {"joules": None, "watts": None, "source": None, "reason": "no counter", "note": None}
found = {"device": "a device", "device_type": DEVICE, "step_ns": 5_000_000, "energy": energy}
Path(given.report).write_text(json.dumps(found))
"""


def put(folder: Path, tool: str, mode: str = "works", recording: str = "") -> None:
    """An executable of that name in the folder. mode: works, denied, and of perf old (without --control) or cut
    (its output ends early)."""
    text = {"perf": PERF, "ncu": NCU}[tool].format(
        python=sys.executable,
        mode=mode,
        recording=str(RECORDINGS / recording),
        step_cycles=STEP_CYCLES,
        start_cycles=START_CYCLES,
    )
    folder.mkdir(exist_ok=True)
    (folder / tool).write_text(text)
    (folder / tool).chmod(0o755)


def environment(*folders: Path) -> dict[str, str]:
    """This one's, with these folders before the system's own programs and nothing else on the PATH."""
    kept = {name: value for name, value in os.environ.items() if name != "RIDGELINE_API_KEYS"}
    return kept | {"PATH": os.pathsep.join([*map(str, folders), "/usr/bin", "/bin"]), "OMP_NUM_THREADS": "1"}


def idle_child(device: str) -> tuple[str, ...]:
    """A child that says it ran on this kind of device: 0.2 s of CPU time before it is counted, 10 ms a step."""
    return sys.executable, "-c", f"DEVICE = {device!r}\n{CHILD}"
