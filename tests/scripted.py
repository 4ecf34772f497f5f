"""A runner without tensors: its tokens are a function of the whole prefix, read back through a fake KV cache.

    runner = ScriptedRunner(slots=4, max_len=64, num_blocks=32, block_size=4)
    output = runner.collect(runner.launch(plan))
    naive(prompt, max_tokens, sampling)         # what a request's output must be, whatever ran beside it

A KV entry is a hash of the whole prefix that it was computed from, so an entry that is wrong, stale or somebody else's
shows at once as an AssertionError. Of Sampling, stop_ids and min_tokens are honoured, the seed where temperature is
above 0, and the wishes for log-probabilities. Knows no scheduler: anything that makes plans can drive it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ridgeline.core.logprobs import TokenLogprob
from ridgeline.core.types import Ints, Join, Output, Plan, Sampling, Scores

VOCABULARY = tuple(range(13))
_START, _MASK = 7, (1 << 61) - 1

Accounting = Callable[[int, Sequence[int]], int]


def ragged(seats: int, counts: Sequence[int]) -> int:
    """Positions a device processes that packs rows end to end."""
    return sum(counts)


def padded(seats: int, counts: Sequence[int]) -> int:
    """Positions a device processes that makes all seats as long as the longest row."""
    return seats * max(counts)


def mix(state: int, token: int) -> int:
    return (state * 6364136223846793005 + token * 1442695040888963407 + 11) & _MASK


def choose(state: int, made: int, sampling: Sampling, vocabulary: Sequence[int]) -> int:
    """The token after the prefix with this hash; `made`: tokens that are out already."""
    if sampling.temperature > 0:
        state = mix(state, sampling.seed)
    first = (state >> 23) % len(vocabulary)
    for token in (*vocabulary[first:], *vocabulary[:first]):
        if made >= sampling.min_tokens or token not in sampling.stop_ids:
            return token
    raise AssertionError("every token is a stop id, and none may be chosen yet")


def naive(
    prompt: Sequence[int], max_tokens: int, sampling: Sampling, vocabulary: Sequence[int] = VOCABULARY
) -> list[int]:
    """The output of one request, computed alone."""
    state, output = _START, list[int]()
    for token in prompt:
        state = mix(state, int(token))
    while len(output) < max_tokens and not (output and output[-1] in sampling.stop_ids):
        output.append(choose(state, len(output), sampling, vocabulary))
        state = mix(state, output[-1])
    return output


def likeliest(state: int, vocabulary: Sequence[int] = VOCABULARY) -> list[tuple[int, float]]:
    """All tokens after the prefix with this hash and their log-probabilities, which float32 holds exactly."""
    first = (state >> 23) % len(vocabulary)
    rest, base = (*vocabulary[first:], *vocabulary[:first]), (state >> 9) % 64 / 64
    return [(token, -base - rank / 4) for rank, token in enumerate(rest)]


def naive_logprobs(
    ids: Sequence[int], most: int, first: int = 1, vocabulary: Sequence[int] = VOCABULARY
) -> list[TokenLogprob]:
    """Of the tokens from the first on."""
    state, found = _START, list[TokenLogprob]()
    for position, token in enumerate(ids):
        if position >= first:
            odds = likeliest(state, vocabulary)
            found.append(TokenLogprob(int(token), dict(odds)[int(token)], tuple(odds[:most])))
        state = mix(state, int(token))
    return found


@dataclass(slots=True)
class _Seat:
    """One request on the device. chain[i]: hash of its first i + 1 tokens, whether computed yet or not; ids: they.

    scored: positions of the prompt whose successors were scored.
    """

    join: Join
    ids: list[int]
    chain: list[int]
    computed: int
    scored: int = 0
    over: bool = False

    @property
    def length(self) -> int:
        return len(self.chain)

    @property
    def made(self) -> int:
        return self.length - len(self.join.prompt_ids)


@dataclass(frozen=True, slots=True)
class Launched:
    plan: Plan
    output: Output | None  # None: it runs when it is collected


@dataclass(frozen=True, slots=True)
class _Write:
    seat: _Seat
    place: tuple[Ints, Ints]
    values: Ints


class ScriptedRunner:
    """launch(plan) and collect(launched), in the order of the plans.

    vocabulary: the token ids it makes. accounting: what a step of so many seats and counts costs (ragged, padded).
    lazy: a launch runs only when it is collected, so a plan that aliases what the scheduler goes on writing shows.
    ghosts: what a launch wrote for a request that has left since is written again by every launch made before it is
    collected, as if they overlapped in time, so a block that is given away too early shows.
    """

    def __init__(
        self,
        *,
        slots: int,
        max_len: int,
        num_blocks: int,
        block_size: int,
        vocabulary: Sequence[int] = VOCABULARY,
        accounting: Accounting = ragged,
        lazy: bool = False,
        ghosts: bool = False,
    ) -> None:
        self._vocabulary, self._accounting = vocabulary, accounting
        self._lazy, self._ghosts = lazy, ghosts and not lazy
        self._block_size = block_size
        self._table: Ints = np.zeros((slots, -(-max_len // block_size)), np.int64)
        self._kv: Ints = np.zeros((num_blocks, block_size), np.int64)
        self._seats: dict[int, _Seat] = {}
        self._written: dict[int, list[_Write]] = {}  # by launch in flight

    def launch(self, plan: Plan) -> Launched:
        return Launched(plan, None if self._lazy else self._run(plan))

    def collect(self, launched: Launched) -> Output:
        self._written.pop(launched.plan.serial, None)
        return self._run(launched.plan) if launched.output is None else launched.output

    def _run(self, plan: Plan) -> Output:
        self._update(plan)
        seated = {id(seat) for seat in self._seats.values()}
        ghosts = [w for writes in self._written.values() for w in writes if id(w.seat) not in seated]
        if self._ghosts:
            self._written[plan.serial] = []
        slots = plan.rows.tolist()
        made: list[list[int]] = [[] for _ in slots]
        firsts = [self._seats[slot].length for slot in slots]
        scores = list[Scores]()
        positions = padding = 0
        for turn in range(plan.horizon):
            spans = list(self._spans(plan, turn, made))
            if turn and not spans:
                break
            counts = plan.counts.tolist() if turn == 0 else [1] * len(spans)
            processed = self._accounting(plan.seats, counts)
            positions += processed
            padding += processed - sum(end - start for _, start, end in spans)
            self._compute(plan, [(slots[i], start, end) for i, start, end in spans], ghosts)
            if turn == 0:
                scores += self._prompt_scores(slots, spans)
            for i, _, end in spans:
                seat = self._seats[slots[i]]
                seat.computed = end
                if end == seat.length:
                    made[i].append(self._sample(seat))
        width = max(map(len, made))
        scores += self._scores(slots, firsts, made)
        return Output(
            serial=plan.serial,
            counts=np.array([len(m) for m in made], np.int64),
            tokens=np.array([m + [0] * (width - len(m)) for m in made], np.int32),
            finished=np.array(
                [bool(m) and m[-1] in self._stops(s) for s, m in zip(slots, made, strict=True)], np.bool_
            ),
            positions=positions,
            padding=padding,
            scores=tuple(scores),
        )

    def _prompt_scores(self, slots: list[int], spans: list[tuple[int, int, int]]) -> Iterator[Scores]:
        seats = [self._seats[slot] for slot in slots]
        most = max(seat.join.sampling.prompt_logprobs or 0 for seat in seats)
        for row, start, end in spans:
            seat = seats[row]
            begin, until = max(start, seat.scored), min(end, len(seat.join.prompt_ids) - 1)
            if seat.join.sampling.prompt_logprobs is not None and begin < until:
                yield self._score(seat, row, True, begin + 1, until + 1, most)
                seat.scored = until

    def _scores(self, slots: list[int], firsts: list[int], made: list[list[int]]) -> Iterator[Scores]:
        seats = [self._seats[slot] for slot in slots]
        most = max(seat.join.sampling.logprobs or 0 for seat in seats)
        for row, (seat, first, new) in enumerate(zip(seats, firsts, made, strict=True)):
            if seat.join.sampling.logprobs is not None and new:
                yield self._score(seat, row, False, first, first + len(new), most)

    def _score(self, seat: _Seat, row: int, prompt: bool, first: int, end: int, most: int) -> Scores:
        """Of the tokens [first, end); as many of the likeliest as anybody in the launch wants."""
        odds = [likeliest(state, self._vocabulary) for state in seat.chain[first - 1 : end - 1]]
        tokens = seat.ids[first:end]
        return Scores(
            owner=row,
            prompt=prompt,
            first=first,
            tokens=np.array(tokens, np.int32),
            values=np.array([dict(these)[token] for these, token in zip(odds, tokens, strict=True)], np.float32),
            top_ids=np.array([[token for token, _ in these[:most]] for these in odds], np.int32),
            top_values=np.array([[value for _, value in these[:most]] for these in odds], np.float32),
        )

    def _update(self, plan: Plan) -> None:
        for slot in plan.leaves:
            self._seats.pop(slot, None)
        for join in plan.joins:
            assert join.slot not in self._seats, "the slot is taken"
            ids, chain, state = [*join.prompt_ids.tolist(), *join.output_ids.tolist()], [], _START
            for token in ids:
                state = mix(state, token)
                chain.append(state)
            self._table[join.slot, : len(join.blocks)] = join.blocks
            self._seats[join.slot] = _Seat(join, ids, chain, len(join.blocks) * self._block_size)
        slots, index, blocks = plan.new_blocks
        self._table[slots, index] = blocks

    def _spans(self, plan: Plan, turn: int, made: list[list[int]]) -> Iterator[tuple[int, int, int]]:
        """(row, start, end) of what this turn computes."""
        for i, slot in enumerate(plan.rows.tolist()):
            seat, promise = self._seats[slot], int(plan.promise[i])
            if seat.over:
                continue
            if turn == 0:
                start, end = int(plan.starts[i]), int(plan.starts[i] + plan.counts[i])
                assert start in (0, seat.computed), "a row starts where it stands, or anew"
                assert start < end <= seat.length, "a row computes tokens that exist"
                assert (end == seat.length) == (promise > 0), "a row makes tokens if it reaches its end"
                assert seat.length + promise <= seat.join.limit, "nothing is promised past the limit"
                yield i, start, end
            elif len(made[i]) < promise:
                yield i, seat.computed, seat.length

    def _compute(self, plan: Plan, work: list[tuple[int, int, int]], ghosts: list[_Write]) -> None:
        for slot, start, _ in work:  # what was there before ...
            self._attend(slot, start, "attends what is not its own prefix")
        for slot, start, end in work:  # ... what is written now ...
            seat = self._seats[slot]
            place, values = self._place(slot, start, end), np.array(seat.chain[start:end], np.int64)
            self._kv[place] = values
            if self._ghosts:
                self._written[plan.serial].append(_Write(seat, place, values))
        for write in ghosts:
            self._kv[write.place] = write.values
        for slot, _, end in work:  # ... and what is attended to
            self._attend(slot, end, "somebody wrote over it")

    def _place(self, slot: int, start: int, end: int) -> tuple[Ints, Ints]:
        at = np.arange(start, end)
        return self._table[slot, at // self._block_size], at % self._block_size

    def _attend(self, slot: int, end: int, complaint: str) -> None:
        assert self._kv[self._place(slot, 0, end)].tolist() == self._seats[slot].chain[:end], complaint

    def _sample(self, seat: _Seat) -> int:
        state = seat.chain[-1]
        token = choose(state, seat.made, seat.join.sampling, self._vocabulary)
        seat.ids.append(token)
        seat.chain.append(mix(state, token))
        seat.over = token in seat.join.sampling.stop_ids or seat.length >= seat.join.limit
        return token

    def _stops(self, slot: int) -> tuple[int, ...]:
        return self._seats[slot].join.sampling.stop_ids
