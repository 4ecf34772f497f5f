"""Formats of the KV cache: in which number format keys and values are kept. Knows no backend and no layout."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch


class KvFormat(Protocol):
    """exact: what the model computes is kept as it is. scale_bits: of a scale that a token and head has; 0: none."""

    exact: ClassVar[bool]
    scale_bits: ClassVar[int]

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:
        """model: the format of its weights."""
        ...


class AsModel:
    """The format of the weights."""

    exact, scale_bits = True, 0

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:
        return model


class Bfloat16:
    """16 bits with the range of float32 and 8 bits of precision."""

    exact, scale_bits = False, 0

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:  # noqa: ARG004
        return torch.bfloat16


class Float16:
    """16 bits with 11 bits of precision; what exceeds 65504 is cut to it."""

    exact, scale_bits = False, 0

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:  # noqa: ARG004
        return torch.float16


class Int8:
    """8 bits, and a scale for every token and head; needs a backend that has them (native)."""

    exact, scale_bits = False, 32

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:  # noqa: ARG004
        return torch.int8
