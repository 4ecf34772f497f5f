"""The container files have the properties that docs/docker.md promises. No image is built here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "docker" / name for name in ("Dockerfile.cpu", "Dockerfile.cuda")]
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def instructions(path: Path) -> list[tuple[str, str]]:
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines) if word]


@each
def test_it_has_what_the_page_promises(path: Path) -> None:
    steps = instructions(path)
    stages = [i for i, (word, _) in enumerate(steps) if word == "FROM"]
    assert len(stages) == 2
    last = dict(steps[stages[-1] :])
    assert last["USER"] == "1000"
    assert last["EXPOSE"] == "8000"
    assert last["VOLUME"] == "/cache"
    assert "/health" in last["HEALTHCHECK"]
    assert last["ENTRYPOINT"].startswith('["ridgeline", "serve"'), "the exec form: signals reach the server"
    assert '"--host", "0.0.0.0"' in last["ENTRYPOINT"]
    assert "HF_HOME=/cache/" in last["ENV"]
    assert "RIDGELINE_CACHE_DIR=/cache/" in last["ENV"]
    torch = [rest for word, rest in steps if word == "RUN" and "torch" in rest]
    assert ["whl/cpu" in rest for rest in torch] == [path.suffix == ".cpu"]


@each
def test_what_it_copies_is_there_and_not_ignored(path: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        rest.split()[:-1] for word, rest in instructions(path) if word == "COPY" and not rest.startswith("--from")
    ]
    assert copied
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists()
        assert source.removeprefix("./") in allowed


@each
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}") or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (there is no wheel for this platform)")
    done = subprocess.run([program, "--no-color", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout + done.stderr == ""
