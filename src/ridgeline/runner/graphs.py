"""Graphs: which launches are replays of a captured step, of how many rows, and when one is captured. Knows no model.

A graph is of a number of rows (the rest of them is nobody's), where there are prompts of a number of token positions,
and of a way to choose tokens. It is captured after the first launch that would have used it, between two steps, so
service never waits for graphs that nobody needs; a launch takes a larger one meanwhile, or the way of any other plan.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from ridgeline.attention.base import AnyAttention, MixedAttention, SteadyAttention
from ridgeline.core.types import Plan
from ridgeline.ops.turns import turns_of
from ridgeline.runner.asks import DRAWN, LIKELIEST, NOT_ASKED, REPORTED, SHAPED
from ridgeline.runner.forward import Model
from ridgeline.runner.inputs import Packing
from ridgeline.runner.launched import Launched, Replayed, ReplayedMixed
from ridgeline.runner.memory import TURNS
from ridgeline.runner.mixed import TOKENS_A_SPAN, MixedSteps, Shape, spans_of
from ridgeline.runner.ring import Ring
from ridgeline.runner.sampler import choose_shaped, draw_or_greedy
from ridgeline.runner.scores import ScoreRing
from ridgeline.runner.slots import SlotTables
from ridgeline.runner.steady import ChooseThere, SteadySteps

SEATS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows of graphs; above these every 128. At most a third of a large batch is nobody's."""
_STRIDE = 128
MIXED_SEATS = (8, 64, 256)
TOKENS = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Token positions of steps with prompts; a step of more keeps a GPU busier than the host."""
_LARGER = 3


class Replays(Protocol):
    """What a runner asks before it packs a plan."""

    def launch(self, plan: Plan) -> Launched | None:
        """None: the plan must go another way, now or always. The slot tables are those that the plan begins with."""
        ...

    def between(self) -> None:
        """Between two steps: make ready what the last launches lacked, one thing at a time."""
        ...

    def idle(self) -> bool:
        """Nothing is to do: make ready one thing that launches may need. False: all is."""
        ...

    def rehearse(self) -> None:
        """Before the first plan: what would otherwise be compiled while a request waits."""
        ...


class NoGraphs:
    """Every step is packed on the host and launched operation after operation."""

    def __init__(self, *_given: object) -> None: ...

    def launch(self, plan: Plan) -> None:
        """No plan is a replay."""

    def between(self) -> None:
        """Nothing is captured."""

    def idle(self) -> bool:
        return False

    def rehearse(self) -> None:
        """The warm-up has launched the same operations."""


@dataclass(frozen=True, slots=True)
class Key:
    """A captured step. tokens: positions that its rows compute together; 0: one each. needs: as in runner/asks.py."""

    seats: int
    tokens: int
    needs: int


class Graphs:
    """A step in which every row computes one token and makes one is the replay of a captured step; so is one with
    prompts or parts of them, where attention can plan it and rows lie end to end.

    For the former nothing is uploaded where the rows are those of the last one; for the latter the host lays out the
    rows. A step whose rows want log-probabilities of their prompts goes the other way. On a CPU nothing is captured,
    and the step runs as it would be.
    """

    def __init__(self, model: Model, attention: AnyAttention, tables: SlotTables, packing: Packing) -> None:
        assert isinstance(attention, SteadyAttention), f"{type(attention).__name__} cannot plan on the device alone"
        self._tables, self._packing = tables, packing
        where, slots = tables.device.torch_device, tables.sizes.slots
        turns = turns_of(tables, tables.device)
        self._ring, self._scores = Ring(slots, where), ScoreRing(slots, model.spec.vocab, where)
        self._steps = SteadySteps(model, attention, tables, turns, self._ring)
        self._sizes, self._mixed_sizes, self._tokens = seats_of(slots), mixed_seats_of(slots), list[int]()
        if packing.ragged and isinstance(attention, MixedAttention):
            self._tokens, self._tile = tokens_of(tables.sizes.step_tokens), attention.tile
            most = Shape.of(slots, self._tokens[-1], self._tile)
            self._mixed = MixedSteps(model, attention, tables, turns, self._ring, most)
        self._choose = _ways(model, tables, self._ring, self._scores)
        self._graphs: dict[Key, Callable[[], None]] = {}
        self._wanted: Key | None = None

    def launch(self, plan: Plan) -> Launched | None:
        needed = self._needed(plan)
        found = None if needed is None else self._found(needed)
        if found is None:
            return None
        key, replay = found
        if key.tokens:
            self._mixed.give(plan, self._shape(key))
        else:
            self._steps.seat(plan.rows)
        turns = plan.horizon
        first = self._ring.begin(turns)
        for _ in range(turns):
            replay()
        made = self._tables.device.download(self._ring.made(first, turns, key.seats))
        asked = key.needs == REPORTED and bool((self._tables.asks.logprobs[plan.rows] > NOT_ASKED).any())
        scores = self._scores.made(plan, self._tables, first, turns, key.seats) if asked else None
        if key.tokens:
            return ReplayedMixed(plan.serial, plan.counts, plan.promise, key.tokens, made, scores)
        return Replayed(plan.serial, len(plan.rows), made, scores)

    def between(self) -> None:
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self._capture(wanted)

    def idle(self) -> bool:
        missing = next((key for key in self._beforehand() if key not in self._graphs), None)
        if missing is not None:
            self._capture(missing)
        return missing is not None

    def rehearse(self) -> None:
        """The smallest step of either kind, as it would be captured, but in memory that is given back: the first graphs
        to be captured are the largest. A step of few rows and one of many have other kernels."""
        smallest = [Key(self._sizes[0], 0, LIKELIEST), Key(self._sizes[0], 0, DRAWN)]
        smallest += [Key(self._mixed_sizes[0], tokens, LIKELIEST) for tokens in self._tokens[:1]]
        for key in smallest:
            self._ring.lose()
            self._harmless(key)()
        self._ring.lose()

    def _beforehand(self) -> Iterator[Key]:
        """What is worth capturing before anybody needs it. The largest first: what it computes on the way has room for
        all others."""
        for seats in reversed(self._sizes):
            yield from (Key(seats, 0, needs) for needs in (DRAWN, LIKELIEST))
        for tokens in reversed(self._tokens):
            for seats in reversed(self._mixed_sizes):
                yield from (Key(seats, tokens, needs) for needs in (DRAWN, LIKELIEST))
        for seats in reversed(self._sizes):
            yield Key(seats, 0, SHAPED)

    def _needed(self, plan: Plan) -> Key | None:
        """The step that fits the plan best; None: none can."""
        asks, rows, counts = self._tables.asks, plan.rows, plan.counts
        needs = int(asks.needs[rows].max())
        if counts.max() == 1 and plan.promise.min() > 0:
            seats = self._sizes[bisect_left(self._sizes, self._packing.seats(plan))]
            return Key(seats, 0, needs) if plan.horizon <= TURNS else None
        asked = (asks.prompt_logprobs[rows] > NOT_ASKED) & (plan.starts < asks.prompts[rows] - 1)
        tokens = max(int(counts.sum()), TOKENS_A_SPAN * spans_of(plan))
        if plan.horizon > 1 or not self._tokens or tokens > self._tokens[-1] or asked.any():
            return None
        seats = self._mixed_sizes[bisect_left(self._mixed_sizes, len(rows))]
        return Key(seats, self._tokens[bisect_left(self._tokens, tokens)], needs)

    def _found(self, best: Key) -> tuple[Key, Callable[[], None]] | None:
        """A graph that will do, with its key. One that fits better is captured next."""
        self._wanted = None if best in self._graphs else best
        for key in self._fitting(best):
            replay = self._graphs.get(key)
            if replay is not None:
                return key, replay
        return None

    def _fitting(self, best: Key) -> Iterator[Key]:
        """From the best on; of steps with prompts a few sizes, because much more of nobody's costs more than launching
        one operation after the other."""
        sizes = self._mixed_sizes if best.tokens else self._sizes
        at = bisect_left(self._tokens, best.tokens)
        for tokens in self._tokens[at : at + _LARGER] if best.tokens else (0,):
            for seats in sizes[bisect_left(sizes, best.seats) :]:
                yield from (Key(seats, tokens, needs) for needs in range(best.needs, REPORTED + 1))

    def _capture(self, key: Key) -> None:
        self._ring.lose()
        self._graphs[key] = self._tables.device.capture(self._harmless(key))

    def _harmless(self, key: Key) -> Callable[[], None]:
        """The step, of nobody until somebody is seated."""
        choose = self._choose[key.needs]
        if not key.tokens:
            self._steps.rehearse()
            return partial(self._steps.step, key.seats, choose)
        shape = self._shape(key)
        self._mixed.rehearse(shape)
        return partial(self._mixed.step, shape, choose)

    def _shape(self, key: Key) -> Shape:
        return Shape.of(key.seats, key.tokens, self._tile)


def _ways(model: Model, tables: SlotTables, ring: Ring, scores: ScoreRing) -> tuple[ChooseThere, ...]:
    """How tokens are chosen, by what is needed."""

    def shaped(hidden: Tensor, slots: Tensor) -> Tensor:
        return choose_shaped(tables, model.logits(hidden), slots)

    def reported(hidden: Tensor, slots: Tensor) -> Tensor:
        logits = model.logits(hidden)
        chosen = choose_shaped(tables, logits, slots)
        scores.write(logits, chosen, ring.turn)
        return chosen

    return (
        lambda hidden, _: model.greedy(hidden),
        lambda hidden, slots: draw_or_greedy(tables, model.logits(hidden), slots),
        shaped,
        reported,
    )


def seats_of(slots: int) -> list[int]:
    """Rows of the graphs that serve up to so many rows."""
    sizes = [*SEATS, *range(SEATS[-1] + _STRIDE, slots, _STRIDE)]
    return [size for size in sizes if size < slots] + [slots]


def mixed_seats_of(slots: int) -> list[int]:
    """Fewer: what is nobody's of a step with prompts costs its part of the head and of the choice, and nothing else."""
    sizes = [*MIXED_SEATS, *range(2 * MIXED_SEATS[-1], slots, MIXED_SEATS[-1])]
    return [size for size in sizes if size < slots] + [slots]


def count_of(slots: int, step_tokens: int) -> int:
    """Graphs that there can be."""
    return (REPORTED + 1) * (len(seats_of(slots)) + len(tokens_of(step_tokens)) * len(mixed_seats_of(slots)))


def tokens_of(step_tokens: int) -> list[int]:
    """Positions of the graphs that serve steps of up to so many."""
    return [size for size in TOKENS if size < step_tokens] + [min(step_tokens, TOKENS[-1])]
