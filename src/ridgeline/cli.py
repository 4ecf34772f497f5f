"""The only reader of argv and environment. Heavy imports happen inside commands, so that --help is quick.

Every option of `serve` and `generate` is made from the fields of core/config.py; a TOML file (--config) has the same
names. The command line wins over the file, the file over the defaults.
"""

from __future__ import annotations

import inspect
import io
import os
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ridgeline import __version__
from ridgeline.core.config import SECTIONS, Config, kind_of
from ridgeline.core.errors import BadRequest, ConfigError, RidgelineError
from ridgeline.hub.access import Access

PHASE1 = {"batching": "dynamic", "batch_window_ms": 50.0, "max_batch_size": 8, "packing": "padded", "port": 8000}

app = typer.Typer(
    name="ridgeline",
    help="Serve language models, and see what the hardware limit was and where the rest of the time went.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def options(
    *parts: str, defaults: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these config sections, and --config. It is called with a Config."""
    preset = dict(defaults or {})

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]  # the first is the Config
        extra = [p for part in parts for p in _parameters(part, preset)]
        file = inspect.Parameter("config_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_CONFIG_FILE)
        names = {p.name for p in extra}

        def run(*, config_file: Path | None, **given: Any) -> None:
            flags = {k: v for k, v in given.items() if k in names and v is not None}
            rest = {k: v for k, v in given.items() if k not in names}
            command(Config.from_mapping(preset | _read_toml(config_file) | flags), **rest)

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        signature = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra + [file]
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature}
        return run

    return decorate


_CONFIG_FILE = Annotated[
    Optional[Path],  # noqa: UP045  (typer reads it at run time)
    typer.Option("--config", help="A TOML file with the same options, for example: max-num-seqs = 64", dir_okay=False),
]


def _parameters(part: str, preset: Mapping[str, Any]) -> list[inspect.Parameter]:
    section, made = SECTIONS[part], []
    for f in fields(section):
        flag, default = "--" + f.name.replace("_", "-"), preset.get(f.name, f.default)
        kind: Any = kind_of(section, f.name)
        text = f.metadata["help"] + (f" Default: {default}." if default is not None and kind is not bool else "")
        metavar = "|".join(f.metadata["choices"]) or None
        flags = (flag, "--no-" + flag[2:]) if kind is bool else (flag,)
        annotation = Annotated[
            Optional[kind],  # noqa: UP045
            typer.Option(
                "/".join(flags), help=text, metavar=metavar, show_default=False, rich_help_panel=_PANELS[part]
            ),
        ]
        made.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return made


_FROM_MODEL = "Default: as the model's generation config says."
_PANELS = {"model": "Model", "batching": "Batching", "limits": "Limits", "server": "Server"}


def _read_toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {path}: {error}") from error
    return {name.replace("-", "_"): value for name, value in values.items()}


@app.command()
@options("model", "batching", "limits", "server")
def serve(config: Config) -> None:
    """Serve a model over HTTP (OpenAI-compatible), with a playground page at /.

    Example: ridgeline serve --model demo --port 8000
    """
    _serve(config)


@app.command()
@options("model", "batching", "limits")
def generate(
    config: Config,
    prompt: Annotated[list[str], typer.Argument(help="One prompt or several; several run as one batch.")],
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 64,
    temperature: Annotated[Optional[float], typer.Option(help=f"0 is greedy. {_FROM_MODEL}")] = None,  # noqa: UP045
    top_k: Annotated[Optional[int], typer.Option(help=f"The k likeliest; 0 is off. {_FROM_MODEL}")] = None,  # noqa: UP045
    top_p: Annotated[Optional[float], typer.Option(help=f"The likeliest with that sum. {_FROM_MODEL}")] = None,  # noqa: UP045
) -> None:
    """Continue a prompt and print the text.

    Example: ridgeline generate --model demo "Once upon a time"
    """
    from ridgeline.llm import LLM
    from ridgeline.terminal import Terminal

    llm = LLM(config=config, access=hub_access(), terminal=Terminal())
    asked: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    params = replace(llm.default_params, **{name: value for name, value in asked.items() if value is not None})
    for text, result in zip(prompt, llm.generate(prompt, params), strict=True):
        print(text + result.text)


@app.command()
def version() -> None:
    """Print the versions that matter in a bug report."""
    import platform
    from importlib import metadata

    print(f"ridgeline {__version__}")
    print(f"python {platform.python_version()} on {platform.platform()}")
    for library in ("torch", "numpy", "tokenizers", "safetensors", "huggingface-hub", "starlette", "uvicorn"):
        print(f"{library} {metadata.version(library)}")


def hub_access() -> Access:
    """How the hub is reached, as the environment says (the names are the Hugging Face libraries' own)."""
    cache = os.environ.get("HF_HUB_CACHE")
    return Access(
        endpoint=os.environ.get("HF_ENDPOINT") or None,
        cache_dir=Path(cache).expanduser() if cache else None,  # None: as the hub's library has it (HF_HOME, ...)
        token=os.environ.get("HF_TOKEN") or None,
        offline=os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"),
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _serve(config: Config) -> None:
    started = time.perf_counter()
    from ridgeline import online
    from ridgeline.terminal import Terminal

    raise SystemExit(online.serve(config, hub_access(), Terminal(), started))


def phase1_server() -> None:
    """server.py: `serve` with phase 1's defaults."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @single.command()
    @options("model", "batching", "limits", "server", defaults=PHASE1)
    def server(config: Config) -> None:
        """Phase 1: a batched GPT-2 server with dynamic batching. Takes every flag of `ridgeline serve`."""
        _serve(config)

    _run(single)


def phase1_client() -> None:
    """client.py: see what batching does to requests, and measure it."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command()(client)
    _run(single)


def client(
    mode: Annotated[str, typer.Option(help="concurrent: draw N requests over time. benchmark: 1 to 16 in flight.")],
    url: Annotated[str, typer.Option(help="The server.")] = "http://localhost:8000",
    num_requests: Annotated[int, typer.Option(help="concurrent: how many requests.")] = 16,
    delay_ms: Annotated[float, typer.Option(help="concurrent: milliseconds from one request to the next.")] = 10.0,
    max_tokens: Annotated[int, typer.Option(help="New tokens of a request, about.")] = 32,
    prompt: Annotated[Optional[str], typer.Option(help="Every request's prompt. Default: varied ones.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Same seed, same requests.")] = 0,
    wait_s: Annotated[float, typer.Option(help="Seconds to wait for a server that is not there yet.")] = 0.0,
    timeout_s: Annotated[float, typer.Option(help="Seconds a request may take.")] = 300.0,
    json: Annotated[Optional[Path], typer.Option(help="Write a run file.", dir_okay=False)] = None,  # noqa: UP045
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain characters only.")] = False,
) -> None:
    """See what batching does to requests, and measure it, on any running server.

    Example: python client.py --mode concurrent --num-requests 16 --delay-ms 10
    """
    from ridgeline.bench.client import run
    from ridgeline.bench.options import ClientOptions

    options = ClientOptions(
        mode=mode,
        url=url,
        num_requests=num_requests,
        delay_ms=delay_ms,
        max_tokens=max_tokens,
        prompt=prompt,
        seed=seed,
        no_color=no_color,
        json_path=json,
        wait_s=wait_s,
        timeout_s=timeout_s,
    )
    raise SystemExit(run(options))


def main() -> None:
    _run(app)


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
    except BadRequest as error:
        _say(f"error: {error}")
        raise SystemExit(2) from None
    except RidgelineError as error:
        _say(f"error: {error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
