"""Random cases: requests, a policy, limits, and how the device behaves. Runs nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from ridgeline.core.types import NewRequest, Sampling
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.nocache import NoCache
from ridgeline.kv.prefix import HashPrefix, NoPrefix, PrefixIndex
from ridgeline.scheduler.policies import (
    Choice,
    Continuous,
    Dynamic,
    Gathered,
    OneAtATime,
    Policy,
    PrefillFirst,
    Static,
    View,
)
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from tests.scripted import VOCABULARY, Accounting, ScriptedRunner, naive, padded, ragged

WINDOW_NS = 5


class AnyOrder(Continuous):
    """Not on the menu: claims in any order, in one or two groups. A policy must not be able to corrupt state."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def groups(self, view: View, now_ns: int) -> Choice:  # noqa: ARG002
        claims = view.decode + view.partial + view.waiting()
        self._random.shuffle(claims)
        cut = self._random.choice([0, 0, len(claims) // 2])
        return Choice([claims[:cut], claims[cut:]])


@dataclass(frozen=True, slots=True)
class Case:
    requests: tuple[NewRequest, ...]  # by arrival; key: index
    aborts: dict[int, int]  # key -> when
    policy: Policy
    max_batch: int
    slots: int
    max_len: int
    block_size: int
    num_blocks: int
    budget: int
    horizon: int
    depth: int
    spare: float
    keeps: bool
    chunked: bool
    shared: bool
    accounting: Accounting
    lazy: bool
    ghosts: bool
    crash_at: int | None

    def scheduler(self) -> Scheduler:
        prefix: PrefixIndex = HashPrefix() if self.shared else NoPrefix()
        sizes = {"num_blocks": self.num_blocks, "block_size": self.block_size}
        ledger = (Ledger if self.keeps else NoCache)(slots=self.slots, max_len=self.max_len, prefix=prefix, **sizes)
        limits = SchedulerLimits(self.slots, self.max_len, self.budget, self.horizon, self.spare, self.chunked)
        return Scheduler(self.policy, ledger, limits)

    def runner(self) -> ScriptedRunner:
        return ScriptedRunner(
            slots=self.slots,
            max_len=self.max_len,
            num_blocks=self.num_blocks,
            block_size=self.block_size,
            accounting=self.accounting,
            lazy=self.lazy,
            ghosts=self.ghosts,
        )


_REQUEST = st.tuples(
    st.integers(0, 32),  # tokens of the common stem; over 24: a second turn, which extends the request before
    st.binary(min_size=1, max_size=6),
    st.integers(1, 15),  # max_tokens
    st.sampled_from([(), (3,), (5, 7)]),
    st.sampled_from([0, 0, 4]),  # min_tokens
    st.sampled_from([0.0, 0.0, 1.0]),
    st.sampled_from([0, 0, 0, 1, 3, 9, 20]),  # arrival
    st.sampled_from([None, None, None, 1, 2, 5, 11, 25]),  # aborted so long after
    st.sampled_from(["", "", "a", "b"]),  # cache_salt
)


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    stem = draw(st.binary(max_size=24))  # one draw for many tokens keeps cases cheap
    drawn = draw(st.lists(_REQUEST, min_size=1, max_size=8))
    requests: list[NewRequest] = []
    aborts: dict[int, int] = {}
    for key, values in enumerate(sorted(drawn, key=_arrival)):
        reuse, tail, new, stops, least, temperature, arrival, patience, salt = values
        scored = None if tail[0] % 8 else 0
        sampling = Sampling(temperature=temperature, min_tokens=least, seed=key, stop_ids=stops, prompt_logprobs=scored)
        prompt = [byte % len(VOCABULARY) for byte in (tail if reuse > 24 else stem[:reuse] + tail)]
        if reuse > 24 and requests:
            turn = requests[-1]
            first = turn.prompt_ids.tolist()
            prompt = [*first, *naive(first, turn.max_tokens, turn.sampling), *prompt]
        requests.append(NewRequest(key, np.array(prompt, np.int32), new, sampling, arrival, cache_salt=salt))
        if patience is not None:
            aborts[key] = arrival + patience
    slots, block_size = draw(st.integers(1, 6)), draw(st.sampled_from([1, 2, 3, 4, 8]))
    max_len = max(len(r.prompt_ids) + r.max_tokens for r in requests)
    max_batch = 1 if kind == "one" else max(draw(st.integers(1, slots)), draw(st.integers(1, slots)))
    seed = draw(st.integers(0, 99))
    policies: dict[str, Callable[[], Policy]] = {
        "continuous": lambda: Continuous() if seed < 50 else AnyOrder(seed),
        "prefill-first": PrefillFirst,
        "gathered": lambda: Gathered(part=1 + seed % 3, patience=seed % 5),
        "static": lambda: Static(max_batch),
        "dynamic": lambda: Dynamic(WINDOW_NS, max_batch),
        "one": OneAtATime,
    }
    policy = policies[kind]()
    keeps, chunked = draw(st.sampled_from([True, True, False])), draw(st.sampled_from([True, True, False]))
    whole = not (policy.divisible and keeps and chunked)
    least_budget = max(slots, max_len) if whole else slots
    return Case(
        requests=tuple(requests),
        aborts=aborts,
        policy=policy,
        max_batch=max_batch,
        slots=slots,
        max_len=max_len,
        block_size=block_size,
        num_blocks=-(-max_len // block_size) + draw(st.sampled_from([0, 0, 0, 1, 2, 20])),
        budget=least_budget + draw(st.sampled_from([0, 1, 3, 40, 200])),
        horizon=draw(st.sampled_from([1, 1, 2, 8])) if keeps else 1,
        depth=draw(st.integers(1, 3)),
        spare=draw(st.sampled_from([0, 0, 0.5])),
        keeps=keeps,
        chunked=chunked,
        shared=keeps and draw(st.booleans()),
        accounting=draw(st.sampled_from([ragged, padded])),
        lazy=draw(st.booleans()),
        ghosts=draw(st.booleans()),
        crash_at=draw(st.sampled_from([None, None, None, 3, 8])),
    )


def _arrival(request: tuple[object, ...]) -> int:
    arrival = request[6]
    assert isinstance(arrival, int)
    return arrival
