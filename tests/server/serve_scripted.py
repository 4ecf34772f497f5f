"""The scripted server as a program of its own, for tests that send it signals.

held: the engine stops after two steps. slow: its steps take 5 ms.
"""

from __future__ import annotations

import sys

from ridgeline.server.app import create_app
from ridgeline.server.serve import run_server
from tests.server.live import Stage

if __name__ == "__main__":
    stage = Stage()
    stage.release.set()
    if "held" in sys.argv:
        stage.runner.hold()
        stage.runner.let(2)
    if "slow" in sys.argv:
        stage.runner.step_s = 0.005
    sys.exit(
        run_server(
            create_app(stage.bring_up), "127.0.0.1", 0, lambda url: print(url, flush=True),
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    )  # fmt: skip
