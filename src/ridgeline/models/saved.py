"""A GPT-2 whose matrices are saved as integers: which tensors its file has, and how they are read. Knows no processor's
order of bytes: codes and scales are packed as they are read (docs/quantisation.md describes the form).

Every byte is untrusted: whatever does not fit the spec is a ModelError that names the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ridgeline.core.errors import ConfigError, ModelError
from ridgeline.core.quantisation import SAVED
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.gpt2_weights import CheckpointSource, tensor_names
from ridgeline.models.linear import Scheme
from ridgeline.models.quantised import Integers
from ridgeline.models.weights import Checkpoint, Progress
from ridgeline.ops.packed import GROUP, MAX_WIDTH, Packed

Part = tuple[str, str, tuple[int, ...]]
"""A tensor of a file: name, format, shape."""

CODES, MULTIPLIERS, SCALES = "codes", "multipliers", "scales"


@dataclass(frozen=True, slots=True)
class Matrix:
    """Of a model, by its place. name: of its weight. turned: checkpoints hold it as [d_in, d_out]."""

    name: str
    d_out: int
    d_in: int
    turned: bool = True

    def parts(self, bits: int) -> tuple[Part, ...]:
        """What stands for it: codes and scales of outputs, and with 4 bits multipliers. Halves of a byte follow each
        other, the low one first."""
        scales = (f"{self.name}.{SCALES}", "F32", (self.d_out,))
        if bits == 8:
            return (f"{self.name}.{CODES}", "I8", (self.d_out, self.d_in)), scales
        codes = (f"{self.name}.{CODES}", "U8", (self.d_out, _half(self.d_in)))
        groups = _half(-(-self.d_in // GROUP))
        return codes, (f"{self.name}.{MULTIPLIERS}", "U8", (self.d_out, groups)), scales


def matrices(spec: ModelSpec) -> Iterator[Matrix]:
    """Those that are multiplied by."""
    d, inner = spec.d_model, spec.d_inner
    yield Matrix("wte.weight" if spec.tied_head else "lm_head.weight", spec.vocab, d, turned=False)
    for layer in range(spec.layers):
        sizes = {"attn.c_attn": (3 * d, d), "attn.c_proj": (d, d), "mlp.c_fc": (inner, d), "mlp.c_proj": (d, inner)}
        yield from (Matrix(f"h.{layer}.{part}.weight", *size) for part, size in sizes.items())


def left_alone(spec: ModelSpec) -> list[str]:
    """Tensors that stay as they are in the model that is saved: biases, norms, and tables that are only looked up."""
    taken = {matrix.name for matrix in matrices(spec)}
    return [name for name in tensor_names(spec) if name not in taken]


def halves(values: Tensor) -> Tensor:
    """values: [rows, count], uint8 from 0 to 15. Two in a byte, [rows, count / 2 and perhaps one]."""
    even = torch.nn.functional.pad(values, (0, values.shape[1] % 2))
    return even[:, ::2] | even[:, 1::2] << 4


def _whole(pairs: Tensor, count: int) -> Tensor:
    """halves() back, [rows, count]."""
    return torch.stack((pairs & 15, pairs >> 4), 2).flatten(1)[:, :count]


def _half(count: int) -> int:
    return -(-count // 2)


class SavedSource:
    """Matrices come packed, everything else as in any checkpoint."""

    def __init__(self, checkpoint: Checkpoint, device: Device, bits: int) -> None:
        self._checkpoint, self._bits = checkpoint, bits
        self._rest = CheckpointSource(checkpoint, device, None)

    def matrix(self, name: str, d_out: int, d_in: int) -> Packed:
        if d_in > MAX_WIDTH:
            raise ModelError(f"tensor {name} has {d_in} inputs, but {MAX_WIDTH} at most can be multiplied")
        *integers, scales = (
            self._checkpoint.tensor(part, shape, (format_,))
            for part, format_, shape in Matrix(name, d_out, d_in).parts(self._bits)
        )
        if not bool((scales.isfinite() & (scales >= 0)).all()):
            raise ModelError(f"tensor {name}.{SCALES} has a scale that is negative or no number; save the model again")
        if self._bits == 8:
            return Packed.of_codes(integers[0], None, scales)
        codes, multipliers = integers
        return Packed.of_codes(_whole(codes, d_in), _whole(multipliers, -(-d_in // GROUP)), scales)

    def head(self, name: str, rows: int, width: int) -> Packed:
        return self.matrix(name, rows, width)

    def table(self, name: str, rows: int, width: int) -> Tensor:
        return self._rest.table(name, rows, width)

    def vector(self, name: str, width: int) -> Tensor:
        return self._rest.vector(name, width)


def multiplies_saved(name: str, scheme: Scheme | Integers, device: Device) -> Integers:
    """The scheme, if it is one that multiplies by what is saved. name: the model's. Raises ConfigError."""
    if isinstance(scheme, Integers):
        return scheme
    if device.torch_device.type != "cpu":
        raise ConfigError(
            f"{name} is saved in the form that a CPU multiplies by; take --device cpu, or the model that it was made "
            "from"
        )
    raise ConfigError(
        f"{name} is saved in integers, which --determinism batch serves with compiled kernels only; install a C++ "
        "compiler, or take another level"
    )


def load_saved(spec: ModelSpec, folder: Path, scheme: Integers, device: Device, progress: Progress | None) -> GPT2:
    """A GPT-2 that was saved in the scheme's form. Raises ModelError."""
    bits, group = SAVED[scheme.name]
    assert bits == scheme.code_bits, scheme.name
    assert group in (None, GROUP), group
    checkpoint = Checkpoint(folder, progress=progress)
    expected = [part[0] for matrix in matrices(spec) for part in matrix.parts(bits)] + left_alone(spec)
    checkpoint.require(expected, lambda _: False)
    return GPT2(spec, SavedSource(checkpoint, device, bits), scheme, device.compute)
