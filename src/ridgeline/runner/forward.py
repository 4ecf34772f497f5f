"""Forward: from a batch to logits. Later wrappers (captured graphs, compiled models) are callables of the same kind."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from ridgeline.attention.base import AnyAttention
from ridgeline.attention.batch import Batch
from ridgeline.core.spec import ModelSpec
from ridgeline.models.gpt2 import Attend


class Model(Protocol):
    """A family's decoder."""

    spec: ModelSpec

    def hidden(self, batch: Batch, attend: Attend) -> Tensor: ...

    def logits(self, hidden: Tensor) -> Tensor: ...


class Forward(Protocol):
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of the wanted positions, [W, vocab], and the hidden state of all, [N, d_model]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [positions, d_model]. Returns [positions, vocab], for positions that the batch did not want."""
        ...


class Eager:
    """Operation after operation, as the model says."""

    def __init__(self, model: Model, attention: AnyAttention) -> None:
        self._model, self._attention = model, attention

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        meta: Any = self._attention.plan(batch)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self._attention(layer, q, k, v, meta)

        hidden = self._model.hidden(batch, attend)
        if not batch.wanted.shape[0]:  # only chunks that are not the last: nobody reads a logit
            return hidden.new_empty((0, self._model.spec.vocab)), hidden
        return self._model.logits(hidden[batch.wanted]), hidden

    def logits(self, hidden: Tensor) -> Tensor:
        return self._model.logits(hidden)
