"""What a decode step does on a CPU beside products and attention: native code that looks up what rows compute, chooses
likeliest tokens, and plays recorded calls. Knows no model."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ridgeline.device import jit
from ridgeline.device.base import Device
from ridgeline.device.recording import Recording, call, hold
from ridgeline.device.team import team
from ridgeline.ops import calls

SOURCE = calls.FOLDER / "steps.cpp"


class _Seats(ctypes.Structure):
    """As native/steps.cpp has it."""

    _fields_ = (
        ("tokens", ctypes.c_void_p),
        ("blocks", ctypes.c_void_p),
        ("tokens_width", ctypes.c_int64),
        ("blocks_width", ctypes.c_int64),
        ("block_size", ctypes.c_int64),
    )


class Native:
    """The compiled library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """library: of SOURCE."""
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._library = library
        self._play: Any = library.ridgeline_play
        self._play.argtypes, self._play.restype = (pointer, size), ctypes.c_int
        self._seat: Any = library.ridgeline_seat
        self._seat.argtypes, self._seat.restype = (*(pointer,) * 5, size), ctypes.c_int
        self._likeliest: Any = library.ridgeline_likeliest
        self._likeliest.argtypes, self._likeliest.restype = (pointer, pointer, size, size, size, pointer), ctypes.c_int

    def player(self, made: Recording) -> Callable[[], None]:
        """Makes all its calls again. It raises MemoryError."""
        whole = made.whole()
        at, count, play = ctypes.addressof(whole), len(whole), self._play

        def run(held: object = (made, whole)) -> None:  # noqa: ARG001 - as long as somebody may call
            if play(at, count):
                raise MemoryError("no memory for the activations of a step")

        return run

    def seat(self, tokens: Tensor, blocks: Tensor, block_size: int, slots: Tensor, positions: Tensor) -> list[Tensor]:
        """tokens: [slots, max_len] int32; blocks: [slots, width] int32; slots, positions: [rows] int64. Returns each
        slot's token at its position, and where its keys and values go, [rows] int64 each."""
        assert tokens.is_contiguous(), tokens.stride()
        assert blocks.is_contiguous(), blocks.stride()
        told = hold(
            _Seats(tokens.data_ptr(), blocks.data_ptr(), tokens.shape[1], blocks.shape[1], block_size),
        )
        ids, writes = torch.empty_like(slots), torch.empty_like(slots)
        given = (slots.data_ptr(), positions.data_ptr(), ids.data_ptr(), writes.data_ptr(), len(slots))
        call(self._seat, ctypes.addressof(told), *given)
        return [ids, writes]

    def likeliest(self, logits: Tensor) -> Tensor:
        """As ops.sample.greedy. logits: [rows, vocab], float32 or bfloat16."""
        assert logits.dtype in (torch.float32, torch.bfloat16), logits.dtype
        rows, vocab = logits.shape
        logits = logits.contiguous()
        chosen = torch.empty(rows, dtype=torch.int64)
        is_bfloat16 = int(logits.dtype is torch.bfloat16)
        call(self._likeliest, team(self._library), logits.data_ptr(), is_bfloat16, rows, vocab, chosen.data_ptr())
        return chosen


def build(cache: Path | None) -> ctypes.CDLL:
    """As calls.library has it."""
    return calls.library(SOURCE, cache)


def likeliest(logits: Tensor) -> Tensor:
    """As OPS has it."""
    return _of_this_process().likeliest(logits)


def has_native_code(device: Device) -> bool:
    return jit.serves(device, _of_this_process)


@cache
def _of_this_process() -> Native:
    """Raises CannotBuild."""
    return Native(build(None))
