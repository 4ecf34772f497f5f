"""Determinism: what a result may depend on, as an object that picks the parts. Knows parts by what they promise.

A part (an attention backend, a scheme of weights) is row-invariant if what it gives a row is bitwise the same whatever
the other rows are, in whatever chunk the row comes. It says so itself (`row_invariant`); tests hold it to that.
"""

from __future__ import annotations

from typing import Protocol

from ridgeline.device.base import Device
from ridgeline.models.linear import Scheme
from ridgeline.models.tiled import Tiled


class Determinism(Protocol):
    def admits(self, part: object) -> bool:
        """Whether this part, or this class of parts, may be used."""
        ...

    def scheme(self, scheme: Scheme, device: Device) -> Scheme:
        """The scheme itself, or what it must be wrapped in."""
        ...


class Off:
    """Whatever is fastest: a result may depend, in its last bits, on what else is in the batch."""

    def admits(self, _: object) -> bool:
        return True

    def scheme(self, scheme: Scheme, _: Device) -> Scheme:
        return scheme


class Run(Off):
    """The same launches give the same bits: no sum is made in an order that chance decides, no kernel is chosen by
    timing it. No part does otherwise today, so nothing is chosen differently than with `off`."""


class Batch:
    """A result is bitwise the same whatever else is in the batch: only row-invariant parts, and tiles for matrices."""

    def admits(self, part: object) -> bool:
        """One that says nothing promises nothing."""
        return bool(getattr(part, "row_invariant", False))

    def scheme(self, scheme: Scheme, device: Device) -> Scheme:
        return scheme if self.admits(scheme) else Tiled(scheme, device)
