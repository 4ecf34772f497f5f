"""GPT-2's weights: from a checkpoint, or random of its shape. Knows the names that checkpoints use."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ridgeline.core.errors import ModelError
from ridgeline.core.quantisation import foreign
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.linear import Scheme
from ridgeline.models.quantised import Integers
from ridgeline.models.weights import Checkpoint, Progress, as_weight

_HEAD = "lm_head.weight"
_MASK_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")


def load_gpt2(spec: ModelSpec, folder: Path, scheme: Scheme, device: Device, progress: Progress | None = None) -> GPT2:
    """A GPT-2 from safetensors, one tensor at a time. Raises ModelError for whatever does not fit the spec."""
    dtype = None if isinstance(scheme, Integers) else device.dtype
    return GPT2(spec, CheckpointSource(opened(spec, folder, progress), device, dtype), scheme, device.compute)


def opened(spec: ModelSpec, folder: Path, progress: Progress | None = None) -> Checkpoint:
    """A checkpoint that has what the spec asks for, and nothing that changes a GPT-2. Raises ModelError."""
    checkpoint = Checkpoint(folder, prefix="transformer.", progress=progress)
    if any(name.endswith(".qweight") for name in checkpoint.names()):
        raise ModelError(f"{folder}: {foreign('awq' if _is_awq(checkpoint) else 'gptq')}")
    checkpoint.require(set(tensor_names(spec)), lambda name: name == _HEAD or _MASK_BUFFER.fullmatch(name) is not None)
    if spec.tied_head and _HEAD in checkpoint.names():
        _check_tied(checkpoint, spec)
    return checkpoint


def _is_awq(checkpoint: Checkpoint) -> bool:
    """GPTQ says of every input which group it belongs to; AWQ does not."""
    return not any(name.endswith(".g_idx") for name in checkpoint.names())


def random_gpt2(spec: ModelSpec, seed: int, scheme: Scheme, device: Device) -> GPT2:
    """A GPT-2 that says nothing, at the full cost of its shape: normal weights of deviation 0.02, as GPT-2 began."""
    return GPT2(spec, RandomSource(seed, device), scheme, device.compute)


def tensor_names(spec: ModelSpec) -> Iterator[str]:
    yield from ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")
    for layer in range(spec.layers):
        for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
            yield f"h.{layer}.{part}.weight"
            yield f"h.{layer}.{part}.bias"
    if not spec.tied_head:
        yield _HEAD


class CheckpointSource:
    """GPT-2 checkpoints hold the matrices of a block as [d_in, d_out] and the tables as they are.

    dtype: what tensors become; None: they stay as they are stored, for a scheme that rounds them itself, so that they
    are rounded once.
    """

    def __init__(self, checkpoint: Checkpoint, device: Device, dtype: torch.dtype | None) -> None:
        self._checkpoint, self._device, self._dtype = checkpoint, device, dtype

    def matrix(self, name: str, d_out: int, d_in: int) -> Tensor:
        return self._copy(self._there(name, d_in, d_out).t())

    def head(self, name: str, rows: int, width: int) -> Tensor:
        return self.table(name, rows, width)

    def table(self, name: str, rows: int, width: int) -> Tensor:
        return self._copy(self._there(name, rows, width))

    def vector(self, name: str, width: int) -> Tensor:
        return self._copy(self._there(name, width))

    def _there(self, name: str, *shape: int) -> Tensor:
        """On the device as the file has it, so that a GPU turns and narrows it, which for every other matrix is most
        of the work."""
        return self._checkpoint.tensor(name, shape).to(self._device.torch_device)

    def _copy(self, tensor: Tensor) -> Tensor:
        return as_weight(tensor, self._dtype or tensor.dtype, self._device.torch_device)


class RandomSource:
    """Every tensor has its own seed, made of the seed and its name, so the order of asking does not matter."""

    def __init__(self, seed: int, device: Device) -> None:
        self._seed, self._device = seed, device

    def matrix(self, name: str, d_out: int, d_in: int) -> Tensor:
        where = self._device.torch_device
        generator = torch.Generator(where).manual_seed((self._seed ^ zlib.crc32(name.encode())) % 2**63)
        # Drawn in float32: a CPU draws 16-bit normals several times slower.
        drawn = torch.empty(d_out, d_in, device=where).normal_(0.0, 0.02, generator=generator)
        return drawn.to(self._device.dtype)

    def head(self, name: str, rows: int, width: int) -> Tensor:
        return self.matrix(name, rows, width)

    def table(self, name: str, rows: int, width: int) -> Tensor:
        return self.matrix(name, rows, width)

    def vector(self, name: str, width: int) -> Tensor:
        value = 1.0 if name.split(".")[-2].startswith("ln_") and name.endswith("weight") else 0.0
        return torch.full((width,), value, dtype=self._device.dtype, device=self._device.torch_device)


def _check_tied(checkpoint: Checkpoint, spec: ModelSpec) -> None:
    shape = (spec.vocab, spec.d_model)
    if not torch.equal(checkpoint.tensor(_HEAD, shape), checkpoint.tensor("wte.weight", shape)):
        raise ModelError(
            f"tensor {_HEAD} differs from wte.weight, but the config ties them (tie_word_embeddings: true); "
            "set it to false if the head was trained apart"
        )
