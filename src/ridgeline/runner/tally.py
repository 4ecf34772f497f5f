"""Tally: tensor operations that a step really calls, and the bytes of their operands, by place. Knows no time.

It is the counter that every machine has: a step is run once under PyTorch's dispatcher, which sees every operation
after compound ones were taken apart; kernels that it does not see declare themselves (ops/declared.py). What it counts
is what the operations are given, not what the hardware moves: an operand that still lies in a cache counts like one
that comes from memory. It slows a step many times over, so a step is counted or timed, never both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ridgeline.ops.declared import listening
from ridgeline.runner.regions import HOST, PLACES

# They make memory or a description of it and move nothing.
_MOVES_NOTHING = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"})
# Their first operand is a table of which they read, or write, only the rows that are asked for.
_LOOKS_UP = frozenset({"embedding", "index_select", "index", "gather", "take"})
_PUTS = frozenset({"index_copy_", "index_put_", "scatter_"})
# What they write they do not read before.
_ONLY_WRITES = frozenset({"copy_", "fill_", "zero_"})


class Tally:
    """A watcher (runner/regions.py): `with tally.counting():` around a step. calls, operand_bytes: by PLACES."""

    def __init__(self) -> None:
        self.calls = [0] * len(PLACES)
        self.operand_bytes = [0] * len(PLACES)
        self._inside = [HOST]

    def enter(self, place: int) -> None:
        self._inside.append(place)

    def leave(self) -> None:
        self._inside.pop()

    @contextmanager
    def counting(self) -> Iterator[None]:
        with listening(self.add), _Seen(self):
            yield

    def add(self, size: int) -> None:
        place = self._inside[-1]
        self.calls[place] += 1
        self.operand_bytes[place] += size


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, tally: Tally) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tally = tally

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode compound operations arrive whole; their parts come back here one by one.
        with self:
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        made = func(*args, **kwargs)
        if not _is_view(func) and _name(func) not in _MOVES_NOTHING:
            self._tally.add(operand_bytes(func, args, kwargs, made))
        return made


def operand_bytes(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> int:
    """Bytes of tensors that this call reads and writes, each once. func: an overload of an aten operation.

    Of a table that rows are looked up in, the rows count; values that are broadcast count once.
    """
    name, size = _name(func), 0
    written: set[int] = set()
    rows = sum(map(_bytes, _tensors(made))) if name in _LOOKS_UP else None
    for index, (spec, value) in enumerate(_given(func, args, kwargs)):
        writes = spec.alias_info is not None and spec.alias_info.is_write
        for tensor in _tensors(value):
            if writes:
                written.add(id(tensor))
            if name in _PUTS and writes:
                continue  # the source, or what is written in its stead, stands for the rows
            whole = _bytes(tensor) if rows is None or index else rows
            reads = not writes or not (name in _ONLY_WRITES or spec.kwarg_only)
            size += whole * (reads + writes)
    if name in _PUTS:
        return size + _source_bytes(func, args, kwargs)
    return size + sum(_bytes(tensor) for tensor in _tensors(made) if id(tensor) not in written)


def _source_bytes(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """What an operation that puts values into some rows writes: as much as the values are."""
    named = {spec.name: value for spec, value in _given(func, args, kwargs)}
    source = next((named[name] for name in ("source", "values", "src") if name in named), None)
    return sum(map(_bytes, _tensors(source)))


def _given(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    for index, spec in enumerate(func._schema.arguments):
        if index < len(args):
            yield spec, args[index]
        elif spec.name in kwargs:
            yield spec, kwargs[spec.name]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _bytes(tensor: Tensor) -> int:
    count = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= length if stride or not length else 1  # a dimension of stride 0 is one value seen many times
    return count


def _is_view(func: Any) -> bool:
    """Whether a result is only another look at an operand."""
    infos = [spec.alias_info for spec in func._schema.arguments if spec.alias_info is not None]
    return bool(infos) and not any(info.is_write for info in infos)


def _name(func: Any) -> str:
    return str(func._schema.name).rpartition("::")[2]
