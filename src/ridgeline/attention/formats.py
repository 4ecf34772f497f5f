"""Formats of the KV cache: in which number format keys and values are kept. Knows no backend and no layout."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch


class KvFormat(Protocol):
    """exact: what the model computes is kept as it is."""

    exact: ClassVar[bool]

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:
        """model: the format of its weights."""
        ...


class AsModel:
    """The format of the weights."""

    exact = True

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:
        return model


class Bfloat16:
    """16 bits with the range of float32 and 8 bits of precision."""

    exact = False

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:  # noqa: ARG004
        return torch.bfloat16


class Float16:
    """16 bits with 11 bits of precision; what exceeds 65504 is cut to it."""

    exact = False

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:  # noqa: ARG004
        return torch.float16


class Int8:
    """8 bits, and a scale for every token and head; needs a backend that has them (native, paged)."""

    exact = False

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:  # noqa: ARG004
        return torch.int8


class Float8:
    """8 bits as floats (e4m3), and a scale for every token and head; for GPUs that compute with them (paged)."""

    exact = False

    @staticmethod
    def stored(model: torch.dtype) -> torch.dtype:  # noqa: ARG004
        return torch.float8_e4m3fn
