"""Forward: from a batch to logits. Later wrappers (captured graphs, compiled models) are callables of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from ridgeline.attention.base import AnyAttention
from ridgeline.attention.batch import Batch, Positions
from ridgeline.core.spec import ModelSpec
from ridgeline.models.gpt2 import Attend


class Model(Protocol):
    """A family's decoder. Its parts and those of its blocks have the names that core/cost gives their operations, so
    that they can be wrapped (runner/regions.py)."""

    spec: ModelSpec

    @property
    def blocks(self) -> Sequence[object]: ...

    def hidden(self, batch: Positions, attend: Attend) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...

    def greedy(self, hidden: Tensor) -> Tensor:
        """hidden: [rows, d_model]. The likeliest token of each row, [rows] int64, as ops.sample.greedy of its
        logits."""
        ...

    def products(self, x: Tensor) -> Sequence[Callable[[], object]]:
        """x: [rows, d_model], any values. The products of a step of so many rows, each by itself."""
        ...


class Forward(Protocol):
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of the wanted positions, [W, vocab], and the hidden state of all, [N, d_model]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [positions, d_model]. Returns [positions, vocab], for positions that the batch did not want."""
        ...


class Eager:
    """Operation after operation, as the model says. What it calls has public names, so that it can be wrapped
    (runner/places.py)."""

    def __init__(self, model: Model, attention: AnyAttention) -> None:
        self.model = model
        self.plan: Callable[[Batch], Any] = attention.plan
        self.attend: Callable[..., Tensor] = attention

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        meta: Any = self.plan(batch)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.attend(layer, q, k, v, meta)

        hidden = self.model.hidden(batch, attend)
        if not batch.wanted.shape[0]:  # only chunks that are not the last: nobody reads a logit
            return hidden.new_empty((0, self.model.spec.vocab)), hidden
        return self.model.logits(hidden[batch.wanted]), hidden

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.logits(hidden)
