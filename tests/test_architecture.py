"""The house's rules that a test can hold: imports go down, the outside enters through one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ridgeline

ROOT = Path(ridgeline.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# package or module -> what it may import of ours; itself always. docs/architecture.md has the same table.
MAY = {
    "menu": set[str](),
    "core": {"menu"},
    "device": {"core"},
    "text": {"core"},
    "hub": {"core"},
    "kv": {"core"},
    "scheduler": {"core", "kv"},
    "ops": {"core", "device"},
    "attention": {"core", "ops", "device"},
    "models": {"core", "attention", "ops", "device"},
    "runner": {"core", "device", "ops", "attention", "models"},
    "engine": {"core", "scheduler", "kv"},
    "sizing": {"core", "menu", "scheduler"},
    "ahead": {"core", "menu", "engine"},
    "attending": {"core", "menu", "device", "ops", "attention", "runner"},
    "replaying": {"core", "menu", "device", "ops", "attention", "runner"},
    "running": {
        "core",
        "menu",
        "sizing",
        "attending",
        "replaying",
        "device",
        "ops",
        "attention",
        "models",
        "runner",
        "engine",
    },
    "build": {
        "core",
        "menu",
        "running",
        "kv",
        "scheduler",
        "sizing",
        "attending",
        "replaying",
        "device",
        "ops",
        "attention",
        "models",
        "runner",
        "engine",
    },
    "server": {"core", "text", "engine"},
    "terminal": {"core"},
    "online": {"core", "menu", "text", "hub", "ahead", "attending", "build", "engine", "server", "terminal"},
    "llm": {"core", "text", "hub", "build", "engine", "terminal"},
    "talk": {"core", "text", "llm"},
    "bench": {"core"},
    "lab": {
        "core",
        "menu",
        "bench",
        "build",
        "llm",
        "engine",
        "hub",
        "terminal",
        "text",
        "device",
        "ops",
        "models",
        "runner",
        "sizing",
        "attending",
    },
}
TORCH = {"attending", "replaying", "running", "device", "ops", "attention", "models", "runner", "build", "lab"}
LIBRARIES = {
    "core": {"numpy"},
    "menu": set[str](),
    "kv": {"numpy"},
    "scheduler": {"numpy"},
    "engine": {"numpy", "msgspec"},
    "server": {"starlette", "uvicorn", "msgspec", "numpy", "prometheus_client"},
    "talk": {"aiohttp", "prompt_toolkit"},
    "bench": {"aiohttp", "msgspec", "rich", "uvloop"},
    "lab": {"huggingface_hub", "matplotlib", "numpy", "plotly", "psutil", "pynvml", "rich", "transformers"},
    "sizing": set[str](),
    "terminal": {"rich"},
    "ahead": set[str](),
    "online": set[str](),
    "llm": {"numpy"},
    "hub": {"huggingface_hub", "httpx", "tqdm"},
    "text": {"tokenizers", "jinja2", "numpy"},
}
FREE = {"cli", "__init__", "__main__"}  # cli may import everything; __init__ is the lazy public face
HARDWARE = {"device", "ops", "attention"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield f"{node.module}"
            if node.module == "ridgeline":
                yield from (f"ridgeline.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    if here in FREE:
        return
    for name in imported(ast.parse(path.read_text())):
        top, _, rest = name.partition(".")
        if top == "ridgeline" and rest and not rest.startswith("__"):
            there = rest.split(".")[0]
            assert there == here or there in MAY[here], f"{here} may not import {name}"
        elif top in ("torch", "triton", "safetensors"):
            assert here in TORCH, f"{here} may not import {top}"
        elif here in LIBRARIES and top != "ridgeline":
            allowed = LIBRARIES[here] | set(sys.stdlib_module_names)
            assert top in allowed, f"{here} may not import {top}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_outside_enters_through_the_cli(path: Path) -> None:
    if room(path) == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Global), "no module state"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "sys"):
            assert node.attr not in ("environ", "getenv", "putenv", "argv"), f"line {node.lineno}: only cli reads it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_hardware_words_stay_home(path: Path) -> None:
    if room(path) in HARDWARE:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("cuda", "xpu", "mps"), f"line {node.lineno}: torch.{node.attr}"


def test_every_room_is_in_the_table() -> None:
    assert {room(path) for path in FILES} - FREE == set(MAY)


@pytest.mark.parametrize(
    "code",
    [
        "import ridgeline, ridgeline.cli",
        "import ridgeline.online, ridgeline.build, ridgeline.hub.download",
        "import ridgeline.talk.loop, ridgeline.talk.remote, ridgeline.cli.chatting",
        "import ridgeline.bench.client, ridgeline.bench.serve, ridgeline.lab.tradeoffs.tradeoffs",
    ],
)
def test_the_front_loads_no_torch(code: str) -> None:
    check = f"{code}\nimport sys\nprint([m for m in sys.modules if m.split('.')[0] in ('torch', 'triton')])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
