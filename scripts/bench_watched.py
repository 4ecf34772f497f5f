"""What it costs to be watched: a server with its recorder and a page's streams open, against one with neither.

    python -m scripts.bench_watched --out records/RUN/run.json

Both serve the bundled model on a CPU, 32 requests in flight; `ridgeline bench serve` drives them in turns and says how
the rates differ. The watcher does what an open page does: it reads /v1/live, and asks for the newest 300 steps of
/v1/recording once a second, as `follow live` does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.servers import serving

EVERY_S = 1.0
TIMEOUT_S = 10
STEPS = 300


@contextmanager
def watched(url: str) -> Iterator[dict[str, int]]:
    """Somebody looks at a server's page meanwhile; how often news came of it."""
    stop, seen = threading.Event(), {"live": 0, "recording": 0}

    def live() -> None:
        with urllib.request.urlopen(f"{url}/v1/live", timeout=TIMEOUT_S) as stream:
            for line in stream:
                seen["live"] += line.startswith(b"data:")
                if stop.is_set():
                    return

    def recording() -> None:
        while not stop.wait(EVERY_S):
            with urllib.request.urlopen(f"{url}/v1/recording?steps={STEPS}", timeout=TIMEOUT_S) as answer:
                seen["recording"] += len(answer.read()) > 0

    threads = [threading.Thread(target=work, daemon=True) for work in (live, recording)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=96, help="of a round")
    parser.add_argument("--out", type=Path, required=True, help="the run file")
    arguments = parser.parse_args()
    common = ("--model", "demo", "--device", "cpu")
    with serving(*common) as on, serving(*common, "--recorder", "off") as off, watched(on.url) as seen:
        load = {
            "--concurrency": 32, "--num-requests": arguments.requests, "--workload": "uniform", "--prompt-kind": "ids",
            "--vocab": 4096, "--input-len": "16:64", "--output-len": "32:64", "--rounds": arguments.rounds,
            "--json": arguments.out,
        }  # fmt: skip
        words = [str(word) for pair in load.items() for word in pair]
        command = [sys.executable, "-m", "ridgeline", "bench", "serve", "--url", on.url, "--against", off.url, *words]
        done = subprocess.run(command, check=False)
    print(f"the watcher heard {seen['live']} times how the server is, and saw {seen['recording']} recordings")
    if done.returncode or not (seen["live"] and seen["recording"]):
        raise SystemExit("the run failed, or nobody watched")


if __name__ == "__main__":
    main()
