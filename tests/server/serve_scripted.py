"""The scripted server as a program of its own, for tests that send it signals. Any argument holds the engine."""

from __future__ import annotations

import sys

from ridgeline.server.app import create_app
from ridgeline.server.serve import run_server
from tests.server.live import Stage

if __name__ == "__main__":
    stage = Stage()
    stage.release.set()
    if len(sys.argv) > 1:
        stage.runner.hold()
        stage.runner.let(2)
    sys.exit(run_server(create_app(stage.bring_up), "127.0.0.1", 0, lambda url: print(url, flush=True)))
