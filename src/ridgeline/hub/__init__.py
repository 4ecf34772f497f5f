"""A model's name -> a folder on disk: a local directory, the bundled demo, the hub's cache or a download.

Knows names and folders; reads no weights and no environment. The hub's library is imported only when a name has to be
looked up there, so that the bundled model and local directories start without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from ridgeline.core.errors import ModelError, did_you_mean
from ridgeline.core.folder import check_folder, why_no_weights
from ridgeline.core.options import ModelOptions
from ridgeline.core.progress import Progress
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.hub.access import Access, HubError

__all__ = ["Access", "Resolved", "choose", "ignore_progress", "resolve"]

DEMO, DEFAULT = "demo", "gpt2"
# Without a network the choice of a default must keep nobody waiting; a name that was asked for may take longer.
PROBE_DEFAULT_S, PROBE_NAMED_S = 2.0, 15.0


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a model is. name: what clients call it. note: one sentence for the operator, if there is one to say.

    weights: the checkpoint's folder, None for random weights. text_folder: where the tokenizer and the generation
    config are; a folder with weights has them.
    """

    weights: Path | None
    text_folder: Path
    name: str
    source: Literal["hub", "cache", "local", "bundled", "random"]
    note: str | None = None


def ignore_progress(_: Progress) -> None:
    """For callers that show none."""


def choose(options: ModelOptions, access: Access, progress: Callable[[Progress], None] = ignore_progress) -> Resolved:
    """The model that the options ask for. Raises ModelError, which says what to do."""
    if options.random_weights is None:
        return resolve(options.model, access, progress)
    demo = _bundled(note=None).text_folder
    note = f"random weights of the shape {options.random_weights}: for measuring; the text means nothing."
    return Resolved(None, demo, f"random-{options.random_weights}", "random", note)


def resolve(
    name: str | None, access: Access | None = None, progress: Callable[[Progress], None] = ignore_progress
) -> Resolved:
    """Find a model, downloading it if need be. Raises ModelError, which says what to do.

    name: 'demo', a directory, or a name on the hub; None is gpt2 if it is cached or can be downloaded, otherwise demo
    with a note that says why. A model asked for by name never becomes another. progress: called in the calling thread.
    """
    access = access or Access()
    if name is None:
        return _default(access, progress)
    if name == DEMO:
        return _bundled(note=None)
    path = Path(os.path.expanduser(name))
    if os.path.exists(path) and name:  # Unlike Path.exists, no error for names that no file can have.
        return _local(path)
    if (
        name.startswith((".", "/", "~"))
        or "\\" in name
        or name.endswith("/")
        or path.suffix in (".gguf", ".safetensors")
    ):
        raise ModelError(f"{name}: no such directory; give a directory with a model, a hub name such as gpt2, or demo")
    return _from_hub(name, access, PROBE_NAMED_S, progress)


def _default(access: Access, progress: Callable[[Progress], None]) -> Resolved:
    try:
        return _from_hub(DEFAULT, access, PROBE_DEFAULT_S, progress)
    except HubError as error:
        return _bundled(note=f"{error.reason}, so the small bundled model '{DEMO}' is served instead.")


def _bundled(note: str | None) -> Resolved:
    folder = resources.files("ridgeline") / "assets" / DEMO
    if not isinstance(folder, Path) or not folder.is_dir():
        raise ModelError(f"{folder}: this installation has no bundled model; reinstall ridgeline, or choose a --model")
    check_folder(folder)
    return Resolved(folder, folder, DEMO, "bundled", note)


def _local(path: Path) -> Resolved:
    if not path.is_dir():
        raise ModelError(f"{path}: {_why_no_folder(path)}")
    check_folder(path)
    return Resolved(path, path, path.resolve().name, "local")


def _why_no_folder(path: Path) -> str:
    if path.suffix == ".safetensors":
        return f"is a file; give the directory that it is in ({path.parent}), with config.json and the tokenizer"
    if path.suffix in (".gguf", ".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        return why_no_weights([path.name])
    return "is a file; give a directory with config.json, model.safetensors and a tokenizer"


def _from_hub(name: str, access: Access, probe_s: float, progress: Callable[[Progress], None]) -> Resolved:
    from ridgeline.hub.download import Download, cached_folder

    folder = cached_folder(name, access)
    if folder is not None:
        return Resolved(folder, folder, name, "cache")
    if access.offline:
        near = did_you_mean(name, [DEMO, *GPT2_SHAPES])
        raise HubError(f"{name} is not cached on this machine and offline was asked for", f"go online once{near}")
    folder = Download(name, access, probe_s).run(progress)
    return Resolved(folder, folder, name, "hub")
