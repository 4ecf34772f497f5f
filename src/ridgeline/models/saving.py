"""From a checkpoint to a folder of the same model in integers, a matrix at a time. Knows no server and no hub.

The header of a safetensors file comes first and says where everything lies; all sizes follow from the spec, so tensors
are written as they are made and the model is never in memory as a whole.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ridgeline.core.errors import ConfigError
from ridgeline.core.folder import CONFIG, DESCRIPTION, SINGLE
from ridgeline.core.jsonfile import read_object
from ridgeline.core.quantisation import FIELD, described
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device
from ridgeline.models.gpt2_weights import CheckpointSource, opened
from ridgeline.models.quantised import Integers
from ridgeline.models.saved import Matrix, Part, halves, left_alone, matrices
from ridgeline.models.weights import BYTES_OF_FORMAT, Checkpoint, Progress
from ridgeline.ops.packed import Packed

_ALIGNED = 64  # so that tensors lie as memory maps like them


def save(spec: ModelSpec, source: Path, target: Path, scheme: Integers, device: Device, progress: Progress) -> int:
    """Write the model of folder `source` into the new folder `target`. Returns the bytes of its weights.

    Raises ConfigError where target is taken or cannot be written, ModelError for what is wrong with source. What was
    begun is deleted then.
    """
    checkpoint = opened(spec, source, progress)
    try:
        target.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"--out {target}: is there already; name a folder that is not") from error
    except OSError as error:
        raise ConfigError(f"--out {target}: cannot be made ({error.strerror})") from error
    try:
        _describe(source, target, scheme)
        with (target / SINGLE).open("wb") as file:
            return _write(file, spec, checkpoint, scheme, device)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ConfigError(f"--out {target}: cannot be written ({error.strerror})") from error
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _describe(source: Path, target: Path, scheme: Integers) -> None:
    for name in DESCRIPTION:
        if name != CONFIG and (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    config = read_object(source / CONFIG) | {FIELD: described(scheme.name)}
    (target / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write(file: BinaryIO, spec: ModelSpec, checkpoint: Checkpoint, scheme: Integers, device: Device) -> int:
    rest: list[Part] = [(name, checkpoint.format(name), checkpoint.shape(name)) for name in left_alone(spec)]
    planned = [matrix.parts(scheme.code_bits) for matrix in matrices(spec)]
    file.write(_header([part for parts in planned for part in parts] + rest))
    source = CheckpointSource(checkpoint, device, None)
    for matrix, parts in zip(matrices(spec), planned, strict=True):
        for (name, _, shape), tensor in zip(parts, _tensors(_packed(matrix, source, scheme)), strict=True):
            assert tensor.shape == shape, name
            file.write(_bytes(tensor))
    for name, _, shape in rest:
        file.write(_bytes(checkpoint.tensor(name, shape)))
    return file.tell()


def _packed(matrix: Matrix, source: CheckpointSource, scheme: Integers) -> Packed:
    read = source.matrix if matrix.turned else source.head
    return scheme.packed(matrix.name, read(matrix.name, matrix.d_out, matrix.d_in))


def _tensors(packed: Packed) -> Iterator[Tensor]:
    """In the order of Matrix.parts."""
    codes, multipliers = packed.codes()
    if multipliers is None:
        yield codes
    else:
        yield halves(codes)
        yield halves(multipliers)
    yield packed.scales[: packed.d_out]


def _header(parts: Sequence[Part]) -> bytes:
    """A safetensors file up to its first tensor."""
    told: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, format_, shape in parts:
        end = at + math.prod(shape) * BYTES_OF_FORMAT[format_]
        told[name] = {"dtype": format_, "shape": shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(told).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> Any:
    """What file.write takes, without a copy."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy()
