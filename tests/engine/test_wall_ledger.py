"""Where 64 concurrent requests' time went: exact sums, and the same as a slow reading of the recording says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from ridgeline.core.flight import ADMITTED, ARRIVED, DECODE, ENDED, PHASES, PREEMPTED, PREFILL, RECOMPUTED, STALLS
from ridgeline.core.types import End, NewRequest, Output, Plan, Sampling
from ridgeline.engine.blackbox import BlackBox
from ridgeline.engine.engine import Engine
from ridgeline.engine.recorder import FlightRecorder
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import HashPrefix, NoPrefix, PrefixIndex
from ridgeline.scheduler.policies import Continuous, Dynamic, Gathered, OneAtATime, Policy, PrefillFirst, Static
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from tests.engine.engines import INFO
from tests.scripted import Launched, ScriptedRunner

REQUESTS, MAX_LEN, BLOCK_SIZE = 64, 64, 4
POLICIES: dict[str, Callable[[], Policy]] = {
    "one": OneAtATime,
    "static": lambda: Static(8),
    "dynamic": lambda: Dynamic(30_000, 8),
    "prefill-first": PrefillFirst,
    "continuous": Continuous,
    "gathered": lambda: Gathered(part=3, patience=3),
}


class Clock:
    """Every look at it takes time, so that no moment is left out unseen."""

    def __init__(self, rng: random.Random) -> None:
        self.now, self._rng = 10**15, rng

    def __call__(self) -> int:
        self.now += self._rng.randint(1, 300)
        return self.now


class Timed(ScriptedRunner):
    clock: Clock

    def launch(self, plan: Plan) -> Launched:
        self.clock.now += 900
        return super().launch(plan)

    def collect(self, launched: Launched) -> Output:
        self.clock.now += 5_000 + 211 * len(launched.plan.rows)
        return super().collect(launched)


@dataclass
class Run:
    """One engine, 64 requests at once. ends: by key; asked: what was submitted, by key."""

    kind: str
    seed: int
    asked: dict[int, NewRequest] = field(default_factory=dict)
    ends: dict[int, End] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(f"{self.kind} {self.seed}")
        policy = POLICIES[self.kind]()
        slots = policy.max_batch or 12
        blocks, budget = rng.choice([20, 40, 200]), rng.choice([slots, 24, 64]) if policy.divisible else slots * MAX_LEN
        horizon = rng.choice([1, 1, 4])
        prefix: PrefixIndex = HashPrefix() if rng.random() < 0.5 else NoPrefix()
        ledger = Ledger(slots=slots, max_len=MAX_LEN, num_blocks=blocks, block_size=BLOCK_SIZE, prefix=prefix)
        self.scheduler = Scheduler(policy, ledger, SchedulerLimits(slots, MAX_LEN, budget, horizon, spare=0))
        runner = Timed(slots=slots, max_len=MAX_LEN, num_blocks=blocks, block_size=BLOCK_SIZE)
        runner.clock = self.clock = Clock(rng)
        self.recorder = FlightRecorder.create()
        depth = rng.choice([1, 2, 3])
        self.engine = Engine(self.scheduler, runner, self.clock, self.recorder, depth)

    def submit(self, key: int) -> None:
        rng = self.rng
        prompt = np.array([rng.randrange(13) for _ in range(rng.randint(1, 34))], np.int32)
        made = np.array([1] * rng.choice([0, 0, 0, 3]), np.int32)  # after a restart
        stops = rng.choice([(), (5,)])
        request = NewRequest(
            key, prompt, rng.randint(5, 25), Sampling(stop_ids=stops), self.clock(), output_ids=made,
        )  # fmt: skip
        self.asked[key] = request
        assert self.engine.submit(request) is None

    def go(self) -> None:
        coming = list(range(REQUESTS))
        for key in coming[:40]:
            self.submit(key)
        del coming[:40]
        idle = 0
        while len(self.ends) < REQUESTS or self.scheduler.in_flight:
            alone = len(self.ends) == len(self.asked)  # the last few come to an empty house
            if coming and (alone or (len(coming) > 4 and self.rng.random() < 0.3)):
                self.submit(coming.pop(0))
            if self.rng.random() < 0.04:
                key = self.rng.choice(list(self.asked))
                if (end := self.engine.abort(key)) is not None:
                    self.ends[key] = end
            events = self.engine.step()
            self.scheduler.check()
            self.told()
            if events is None:
                idle += 1
                self.clock.now = max(self.clock.now, self.engine.wake_ns or 0)
                assert idle < 500, "stuck"
            else:
                self.ends |= {end.key: end for end in events.ends}
        assert self.engine.step() is None

    def told(self) -> None:
        """Whoever runs or waits is told as exactly."""
        for key, times in self.engine.timings(self.asked).items():
            assert key not in self.ends
            assert times.parts.total_ns == times.finished_ns - times.arrival_ns


@pytest.mark.parametrize("kind", POLICIES)
def test_the_parts_of_64_requests_are_all_of_their_time(kind: str) -> None:
    seen: Counter[str] = Counter()
    first = random.randrange(10**6)
    print(f"seeds from {first}")
    for seed in range(first, first + 6):
        run = Run(kind, seed)
        run.go()
        _verify(run, seen)
    wanted = {"prefill", "decode", "queued", "aborted", "resumed"}
    wanted |= {"window"} if kind == "dynamic" else set()
    wanted |= {"preempted", "recomputed", "others"} if kind in ("continuous", "prefill-first", "gathered") else set()
    assert wanted <= (+seen).keys(), f"the traffic lost its variety: {seen}"


def _verify(run: Run, seen: Counter[str]) -> None:
    recording = BlackBox(run.recorder).recording(INFO, "recite")
    assert recording is not None
    steps, rows, lives, offsets = recording.steps, recording.rows, recording.lives, recording.offsets.tolist()
    assert steps.serial.tolist() == list(range(1, run.scheduler.steps + 1))
    collected = steps.collected_ns.tolist()
    durations = [c - max(n, b) for n, c, b in zip(steps.launched_ns.tolist(), collected, [0, *collected], strict=False)]
    keys, starts, counts, made = (column.tolist() for column in (rows.key, rows.start, rows.count, rows.made))
    phases = rows.phase.tolist()
    told = list(zip(lives.key.tolist(), lives.at_ns.tolist(), lives.what.tolist(), strict=True))
    ended = {key: at_ns for key, at_ns, what in told if what == ENDED}
    device, dropped = Counter[int](), 0
    in_step: dict[int, dict[int, int]] = {key: {} for key in run.asked}  # key -> step -> row
    for i, took in enumerate(durations):
        there = range(offsets[i], offsets[i + 1])
        tokens = [counts[r] + max(0, made[r] - 1) for r in there]
        shares = [took * count // sum(tokens) for count in tokens]
        shares[-1] += took - sum(shares)
        for r, share in zip(there, shares, strict=True):
            if ended[keys[r]] < collected[i]:
                dropped += share
            else:
                device[keys[r]] += share
                in_step[keys[r]][i] = r
    assert sum(device.values()) + dropped == sum(durations)
    for key, request in run.asked.items():
        times = run.ends[key].timings
        mine = [(at_ns, what) for one, at_ns, what in told if one == key]
        want, classes = _slow(mine, collected, in_step[key], phases)
        parts = times.parts
        assert parts.total_ns == times.finished_ns - times.arrival_ns
        assert times.device_ns == device[key]
        got = {name: getattr(parts, f"{name}_ns") for name in ("prefill", "others", "decode", "recomputed")}
        assert got == {name: want[name] for name in got}
        waited = parts.window_ns + parts.queued_ns + parts.preempted_ns
        assert waited == want["queued"] + want["preempted"]
        assert parts.window_ns == times.held_ns
        assert parts.preempted_ns <= want["preempted"]
        assert classes == _classes(request, mine, collected, in_step[key], starts, counts, made)
        seen.update(name for name, ns in got.items() if ns)
        seen.update(window=parts.window_ns > 0, queued=parts.queued_ns > 0, preempted=parts.preempted_ns > 0)
        seen.update(aborted=run.ends[key].reason == "abort", resumed=len(request.output_ids) > 0)
    seen.update(f"stall {STALLS[stall]}" for stall in steps.stall.tolist())


def _slow(
    lives: list[tuple[int, int]], collected: list[int], mine: dict[int, int], phases: list[int]
) -> tuple[Counter[str], dict[int, int]]:
    """One request's time, moment by moment; and the phase of each of its rows by step."""
    moments = sorted([(t, 1, w) for t, w in lives] + [(c, 0, i) for i, c in enumerate(collected)])
    parts, at, state = Counter[str](), lives[0][0], "queued"
    assert lives[0][1] == ARRIVED
    for moment, is_life, what in moments:
        if moment < at:
            continue
        if not is_life:
            if state == "seated":
                parts[PHASES[phases[mine[what]]] if what in mine else "others"] += moment - at
                at = moment
        elif what == ADMITTED:
            parts[state] += moment - at
            at, state = moment, "seated"
        elif what == PREEMPTED:
            state = "preempted"
        elif what == ENDED:
            parts["others" if state == "seated" else state] += moment - at
            break
    return parts, {i: phases[row] for i, row in mine.items()}


def _classes(
    request: NewRequest, lives: list[tuple[int, int]], collected: list[int], mine: dict[int, int],
    starts: list[int], counts: list[int], made: list[int],
) -> dict[int, int]:  # fmt: skip
    """The same from the positions that were computed, one by one."""
    before = set(range(len(request.prompt_ids) + len(request.output_ids) - 1)) if len(request.output_ids) else set()
    now, classes = set[int](), dict[int, int]()
    preempted = [t for t, what in lives if what == PREEMPTED]
    for i, row in sorted(mine.items()):
        while preempted and preempted[0] < collected[i]:
            preempted.pop(0)
            before, now = before | now, set()
        positions = set(range(starts[row], starts[row] + counts[row] + max(0, made[row] - 1)))
        fresh = positions - now
        decodes = not fresh or min(fresh) >= len(request.prompt_ids)
        classes[i] = RECOMPUTED if fresh & before else DECODE if decodes else PREFILL
        now |= positions
    return classes
