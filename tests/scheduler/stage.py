"""A scheduler on a stage: scripted device, a clock that the test sets, one launch in flight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ridgeline.core.types import BatchRecord, End, Events, NewRequest, Plan, Sampling
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import NoPrefix, PrefixIndex
from ridgeline.scheduler.policies import Policy
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from tests.scripted import ScriptedRunner, padded


class Stage:
    """now: the clock; a step takes `step_ns` between its plan and its commit, or what that makes of the plan."""

    def __init__(
        self,
        policy: Policy,
        *,
        slots: int = 8,
        max_len: int = 32,
        num_blocks: int = 64,
        block_size: int = 4,
        budget: int = 256,
        step_ns: int | Callable[[Plan], int] = 10,
        chunked: bool = True,
        prefix: PrefixIndex | None = None,
    ) -> None:
        self.scheduler = Scheduler(
            policy,
            Ledger(
                slots=slots, max_len=max_len, num_blocks=num_blocks, block_size=block_size, prefix=prefix or NoPrefix()
            ),
            SchedulerLimits(slots=slots, max_len=max_len, budget=budget, chunked=chunked),
        )
        self.runner = ScriptedRunner(
            slots=slots, max_len=max_len, num_blocks=num_blocks, block_size=block_size, accounting=padded
        )
        self.now, self.step_ns = 0, step_ns
        self.plans: list[Plan] = []
        self.ends: dict[int, End] = {}
        self.tokens: dict[int, list[int]] = {}
        self._keys = 0

    def submit(
        self, prompt: int = 4, new: int = 3, at: int | None = None, sampling: Sampling | None = None, salt: str = ""
    ) -> int:
        """A request that has just arrived, `prompt` tokens long; its key."""
        key, self._keys = self._keys, self._keys + 1
        arrival_ns = self.now if at is None else at
        ids = np.arange(prompt, dtype=np.int32) % 13
        end = self.scheduler.submit(NewRequest(key, ids, new, sampling or Sampling(), arrival_ns, cache_salt=salt))
        assert end is None
        self.tokens[key] = []
        return key

    def step(self) -> Plan | None:
        """Plan now, commit step_ns later."""
        plan = self.scheduler.plan(self.now)
        self.scheduler.check()
        if plan is None:
            return None
        self.plans.append(plan)
        output = self.runner.collect(self.runner.launch(plan))
        self.now += self.step_ns if isinstance(self.step_ns, int) else self.step_ns(plan)
        self._sink(self.scheduler.commit(output, self.now))
        self.scheduler.check()
        return plan

    def run(self) -> None:
        """Until there is nothing to do; sleeps where the policy says until when."""
        while True:
            if self.step() is not None:
                continue
            if self.scheduler.wake_ns is None:
                return
            self.now = self.scheduler.wake_ns

    def abort(self, key: int) -> End:
        end = self.scheduler.abort(key, self.now)
        self.scheduler.check()
        assert end is not None
        return end

    def batch(self, key: int) -> BatchRecord:
        batch = self.ends[key].timings.batch
        assert batch is not None
        return batch

    def _sink(self, events: Events) -> None:
        at = 0
        for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
            self.tokens[key] += events.tokens[at : at + count].tolist()
            at += count
        self.ends.update({end.key: end for end in events.ends})
