"""From the configuration's fields to a command's options, and back to a Config. Knows no command.

Every option of `serve` and `generate` is made from the fields of core/options.py; a TOML file (--config) has the same
names. The command line wins over the file, the file over the defaults.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.options import SECTIONS, ModelOptions, kind_of


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
            rest = {k: v for k, v in given.items() if k not in names}
            flags = _flags({k: v for k, v in given.items() if k in names})
            command(
                Config.from_mapping(
                    preset | ({} if config_file is None else read_toml(config_file, "--config ")) | flags
                ),
                **rest,
            )

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        signature = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra + [file]
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature}
        return run

    return decorate


def model_flags(model: ModelOptions) -> list[str]:
    """The same options for a child of this program."""
    given = {f.name: value for f in fields(model) if (value := getattr(model, f.name)) != f.default}
    return [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), str(value))]


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
        if kind is bool:
            text += " Here: off." if f.name in preset and not default else ""
            text += "" if default is False else f" Off: --no-{flag[2:]}."
            made.append(_parameter(f.name, kind, flag, text, part, metavar=None))
            # A parameter of its own, because "--x/--no-x" in one takes half of a narrow help page.
            made.append(_parameter(_NO + f.name, kind, "--no-" + flag[2:], "", part, metavar=None))
        else:
            metavar = "|".join(f.metadata["choices"]) or None
            if metavar and len(metavar) > _WIDEST_CHOICES:  # the help names them, and has room to
                metavar = "<choice>"
            made.append(_parameter(f.name, kind, flag, text, part, metavar))
    return made


_NO = "no_"
_WIDEST_CHOICES = 30


def _parameter(name: str, kind: Any, flag: str, text: str, part: str, metavar: str | None) -> inspect.Parameter:
    """An option that is None where it is not given; hidden without a text."""
    shown = typer.Option(
        flag, help=text, metavar=metavar, show_default=False, rich_help_panel=_PANELS[part], hidden=not text
    )
    annotation = Annotated[Optional[kind], shown]  # noqa: UP045
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given on the command line, by option; `--x` and `--no-x` are one."""
    flags: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value is False:  # a flag that is not there
            continue
        off = name.startswith(_NO)
        option = name.removeprefix(_NO)
        if off and option in flags:
            raise ConfigError(f"--{option.replace('_', '-')} and its --no- form exclude each other")
        flags[option] = not off if isinstance(value, bool) else value
    return flags


_PANELS = {"model": "Model", "batching": "Batching", "limits": "Limits", "server": "Server", "clients": "Clients"}


def read_toml(path: Path, flag: str) -> dict[str, Any]:
    """Options from a file, unchecked. flag: what named it, for the error. Raises ConfigError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{flag}{path}: {error}") from error
    return {name.replace("-", "_"): value for name, value in values.items()}
