"""The command that shows and empties Ridgeline's cache. Knows no kind of content: every entry can be made again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli.environment import cache_dir
from ridgeline.core.errors import ConfigError

# Whatever else lies there was put there by somebody: the variable may name a folder that is not Ridgeline's alone.
OURS = ("chat-history", "kernels", "ceilings", "profiles", "trials")


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete what Ridgeline made in it, after a question.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Show the folder where Ridgeline keeps what it can make again. Models lie in the Hugging Face cache instead."""
    if yes and not clear:
        raise ConfigError("--yes: means nothing without --clear; leave it out")
    folder = cache_dir()
    try:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        print(folder)
        for entry in entries:
            print(f"  {_bytes_in(entry) / 1e6:10.1f} MB  {entry.name}")
        if not entries:
            print("  empty")
        ours = [entry for entry in entries if entry.name in OURS]
        if clear and len(ours) < len(entries):
            print(f"what is not Ridgeline's stays; its own are {', '.join(OURS)}")
        if clear and ours and (yes or typer.confirm(f"Delete {', '.join(entry.name for entry in ours)}?")):
            for entry in ours:
                _delete(entry)
            print("deleted")
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror or error}; check its permissions") from error


def _bytes_in(entry: Path) -> int:
    files = entry.rglob("*") if entry.is_dir() and not entry.is_symlink() else [entry]
    return sum(path.lstat().st_size for path in files if path.is_symlink() or path.is_file())


def _delete(entry: Path) -> None:
    """A link goes, never what it points to."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
