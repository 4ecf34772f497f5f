"""The only reader of argv and environment. Heavy imports happen inside commands, so that --help is quick.

A command is a function in a file of its own noun; this file names them and turns errors into sentences.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

import typer

from ridgeline import __version__
from ridgeline.cli import (
    accounting,
    caching,
    calibrating,
    chatting,
    climbing,
    comparing,
    counting,
    doctoring,
    generating,
    learning,
    measuring,
    offline,
    piping,
    profiling,
    quantising,
    reporting,
    roofing,
    serving,
    stepping,
    timing,
    weighing,
)
from ridgeline.core.errors import BadRequest, ConfigError, RidgelineError
from ridgeline.core.plaintext import harmless

app = typer.Typer(
    name="ridgeline",
    help="Serve language models, and see what the hardware limit was and where the rest of the time went.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serving.serve)
app.command()(generating.generate)
app.command()(chatting.chat)
app.command()(quantising.quantize)
app.command()(caching.cache)
measuring.bench.command("step", cls=stepping.NumberLists)(stepping.step)
measuring.bench.command("offline")(offline.offline)
app.add_typer(measuring.bench, name="bench")
app.command()(weighing.tradeoffs)
app.command()(calibrating.calibrate)
app.command()(doctoring.doctor)
app.command()(profiling.profile)
app.command()(piping.pipeline)
app.command()(roofing.roofline)
app.command()(timing.micro)
app.command()(accounting.ledger)
app.command()(comparing.compare)
app.command()(counting.counters)
app.command("counted-steps", hidden=True)(counting.counted_steps)
app.command()(climbing.ladder)
app.command()(reporting.report)
app.command()(learning.learn)


@app.command()
def version() -> None:
    """Print the versions that matter in a bug report."""
    import platform
    from importlib import metadata

    print(f"ridgeline {__version__}")
    print(f"python {platform.python_version()} on {platform.platform()}")
    for library in ("torch", "numpy", "tokenizers", "safetensors", "huggingface-hub", "starlette", "uvicorn"):
        print(f"{library} {metadata.version(library)}")


def main() -> None:
    _run(app)


def phase1_server() -> None:
    """server.py: `serve` with phase 1's defaults."""
    _run(_single(serving.server))


def phase1_client() -> None:
    """client.py: see what batching does to requests, and measure it."""
    _run(_single(measuring.client))


def _single(command: Callable[..., None]) -> typer.Typer:
    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    program.command()(command)
    return program


def _run(program: typer.Typer) -> None:
    """Errors meant for the user are one sentence, not a traceback."""
    # The engine's process inherits it. By default torch's threads spin for a millisecond at every meeting point: with
    # one other busy program on the machine a step then takes 3 to 5 times as long (docs/LOG.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for stream in (sys.stdout, sys.stderr):  # what a terminal or pipe cannot show is replaced, not a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        program()
    except (BadRequest, ConfigError) as error:  # whoever called must act: 2, as for a wrong option
        _say(f"error: {error}")
        raise SystemExit(2) from None
    except RidgelineError as error:
        _say(f"error: {error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        _flush()


def _flush() -> None:
    """A reader that left early (`| head -1`) is no mistake of ours; the interpreter would complain at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    print(harmless(text), file=sys.stderr, flush=True)
