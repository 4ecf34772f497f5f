"""The command that compares two measurements, or measures two configurations in turn."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridgeline.cli.options import options, read_toml
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.options import SECTIONS, kind_of

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder
    from ridgeline.lab.compare.contest import Result, Work

EXIT_INTERRUPTED = 130
_RUNS, _TURNS = "Run files", "Configurations"
_ENGINE = ("model", "batching", "limits")


@options(*_ENGINE)
def compare(
    config: Config,
    a: Annotated[str, typer.Argument(help="The baseline: a run file, a TOML file, or options: batching=static.")],
    b: Annotated[str, typer.Argument(help="What is compared with it, of the same sort.")],
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare runs of different machines.", rich_help_panel=_RUNS)
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds of both, at least 5. Default: 7.", rich_help_panel=_TURNS)
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Requests of a round, all at once. Default: 16.", rich_help_panel=_TURNS, min=1)
    ] = None,
    input_len: Annotated[
        str | None, typer.Option(help="Prompt tokens: 32, or a range. Default: 16:64.", rich_help_panel=_TURNS)
    ] = None,
    output_len: Annotated[
        str | None, typer.Option(help="New tokens: 32, or a range. Default: 16:64.", rich_help_panel=_TURNS)
    ] = None,
    shared_prefix: Annotated[
        int | None,
        typer.Option(help="Tokens that all prompts begin with. Default: 0.", rich_help_panel=_TURNS, min=0),
    ] = None,
    workload_seed: Annotated[
        int | None, typer.Option(help="Same seed, same requests. Default: 0.", rich_help_panel=_TURNS)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the comparison here.", dir_okay=False)] = None,
) -> None:
    """Say how B differs from A, as ratios with intervals: of two run files, or of two configurations measured now.

    Run files are of one kind and keep at least 5 repeats. Configurations run in turn in this process on the same
    requests; the options below hold for both, those in A and B for one.

    Example: ridgeline compare batching=static batching=continuous --model demo

    Example: ridgeline compare before/run.json after/run.json
    """
    work = {
        "--rounds": rounds, "--requests": requests, "--input-len": input_len, "--output-len": output_len,
        "--shared-prefix": shared_prefix, "--workload-seed": workload_seed,
    }  # fmt: skip
    sides = configuration(a), configuration(b)
    if sides[0] is not None and sides[1] is not None:
        if anyway:
            raise ConfigError("--anyway: means nothing for configurations, which are measured on this machine")
        raise SystemExit(_configurations(config, (a, b), (sides[0], sides[1]), work, json))
    if sides[0] is not None or sides[1] is not None:
        raise ConfigError(f"'{a}' and '{b}': give two run files or two configurations, not one of each")
    given = [flag for flag, value in work.items() if value is not None]
    given += ["--" + name.replace("_", "-") for name in _not_default(config)]
    if given:
        raise ConfigError(f"{given[0]}: means nothing for run files, which were measured before; leave it out")
    _run_files(Path(a), Path(b), anyway, json)


def configuration(text: str) -> dict[str, Any] | None:
    """The options that an argument names, by a TOML file or as `key=value,key=value`; None for a run file."""
    path = Path(text)
    if path.suffix == ".toml":
        return _of_an_engine(text, read_toml(path, ""))
    if "=" not in text or path.exists():
        return None
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        name = name.removeprefix("--").replace("-", "_")
        if not name or not equals or not value:
            raise ConfigError(
                f"'{text}': '{part}' is no option with its value; write for example batching=static,max-num-seqs=8"
            )
        if name in given:
            raise ConfigError(f"'{text}': {name} is there twice")
        given[name] = _value(name, value)
    return _of_an_engine(text, given)


def _of_an_engine(text: str, given: dict[str, Any]) -> dict[str, Any]:
    for name in given:
        part = next((part for part, section in SECTIONS.items() if name in section.__dataclass_fields__), None)
        if part is not None and part not in _ENGINE:
            raise ConfigError(f"'{text}': {name} is an option of the server; there is no server here")
    return given


_WORDS = {"on": True, "true": True, "off": False, "false": False}


def _value(name: str, text: str) -> Any:
    """As the option's type asks; what does not fit stays text, and the configuration says what it expected."""
    section = next((s for s in SECTIONS.values() if name in s.__dataclass_fields__), None)
    kind: Any = str if section is None else kind_of(section, name)
    if kind is bool:
        return _WORDS.get(text.lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text


def _not_default(config: Config) -> dict[str, Any]:
    parts = [(getattr(config, part), f) for part in _ENGINE for f in fields(SECTIONS[part])]
    return {f.name: getattr(part, f.name) for part, f in parts if getattr(part, f.name) != f.default}


def _run_files(a: Path, b: Path, anyway: bool, json: Path | None) -> None:
    from rich.console import Console

    from ridgeline.core.records import provenance
    from ridgeline.lab.compare.runs import compare, results, show
    from ridgeline.lab.runfiles import FORMAT, read

    about = provenance(sys.argv)
    runs = read(a), read(b)
    found = compare(*runs, anyway)
    show(Console(), found, *runs)
    named = {"a": str(a), "b": str(b), "anyway": anyway}
    document = {"format": FORMAT, "kind": "compare-runs", "provenance": about, "config": named}
    _write(json, document | {"results": results(found)})


def _configurations(
    config: Config,
    names: tuple[str, str],
    sides: tuple[Mapping[str, Any], Mapping[str, Any]],
    asked: Mapping[str, Any],
    json: Path | None,
) -> int:
    from rich.console import Console

    from ridgeline.bench.options import check_folder
    from ridgeline.cli.laboratory import progress_bar
    from ridgeline.core.records import provenance
    from ridgeline.lab.compare.contest import run
    from ridgeline.lab.compare.view import document, show

    check_folder(json)
    about, work = provenance(sys.argv), _work(asked)
    orders = _orders(config, sides)
    rounds = 7 if asked["--rounds"] is None else asked["--rounds"]
    with progress_bar() as progress:
        result: Result = run(*orders, work, rounds, progress)
    show(Console(), result, *names)
    _write(json, document(about, result, names, orders, work))
    return EXIT_INTERRUPTED if result.interrupted else 0


def _work(asked: Mapping[str, Any]) -> Work:
    from ridgeline.bench.lengths import Lengths
    from ridgeline.lab.compare.contest import Work

    given = {
        "requests": asked["--requests"],
        "prompt": asked["--input-len"] and Lengths.parse("--input-len", asked["--input-len"]),
        "new": asked["--output-len"] and Lengths.parse("--output-len", asked["--output-len"]),
        "shared": asked["--shared-prefix"],
        "seed": asked["--workload-seed"],
    }
    return Work(**{name: value for name, value in given.items() if value is not None})


def _orders(config: Config, sides: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[EngineOrder, EngineOrder]:
    """What to build. A model that both ask for is looked for once."""
    from ridgeline.cli.laboratory import order_of
    from ridgeline.lab.compare.contest import all_but_length

    base = _not_default(config)
    a, b = (Config.from_mapping({**base, **side}) for side in sides)
    first = order_of(a)
    if all_but_length(a) != all_but_length(b):
        return first, order_of(b)
    model = replace(first.config.model, max_model_len=b.model.max_model_len)
    return first, replace(first, config=replace(b, model=model))


def _write(path: Path | None, document: dict[str, Any]) -> None:
    from ridgeline.core.records import write_run

    if path is None:
        return
    try:
        write_run(path, document)
    except OSError as error:
        raise ConfigError(f"--json {path}: it cannot be written ({error.strerror or error})") from error
    print(f"Run file: {path}")
