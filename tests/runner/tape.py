"""A CPU that captures: the operations of a call are written down with their tensors, and a replay runs them again.

As on a GPU nothing but those tensors counts in a replay: what the host decided in the captured call stays decided, and
an operation that asks the device for a value may not be in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ridgeline.device.cpu import CpuDevice

ASKS = {"_local_scalar_dense", "nonzero", "unique", "unique2", "masked_select", "is_nonzero", "equal"}
WARM_UPS = 3


@dataclass
class Tape(TorchDispatchMode):
    calls: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(func._schema.name).rpartition("::")[2]
        assert name not in ASKS, f"{name}: a captured step waits for nothing"
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        for func, args, kwargs, made in self.calls:
            again = func(*args, **kwargs)
            given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
            for old, new in zip(tensors(made), tensors(again), strict=True):
                if old.untyped_storage().data_ptr() not in given:
                    old.copy_(new)


class TapingDevice(CpuDevice):
    captures = True

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        for _ in range(WARM_UPS):
            fn()
        tape = Tape()
        with tape:
            fn()
        return torch.inference_mode()(tape.replay)


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
