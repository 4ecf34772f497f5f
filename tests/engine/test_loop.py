"""The loop with several launches in flight: everybody's tokens, an abort in between, batches that wait for a window."""

from __future__ import annotations

import queue
import time

import numpy as np
import pytest

from ridgeline.core.types import End, NewRequest, Sampling
from ridgeline.engine.loop import EngineLoop, Inbox
from ridgeline.engine.messages import Abort, Out, Step, Submit
from ridgeline.scheduler.policies import Continuous, Dynamic, Policy, PrefillFirst, Static
from tests.engine.engines import engine_with, scripted_runner
from tests.scripted import naive

REQUESTS, NEW = 7, 12


class Front:
    """Reads what the loop delivers; gives up request 1 at its first token, and leaves after the last end."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.tokens: dict[int, list[int]] = {key: [] for key in range(REQUESTS)}
        self.ends: dict[int, End] = {}

    def deliver(self, message: Out) -> None:
        assert isinstance(message, Step)
        events, at = message.events(), 0
        for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
            assert key not in self.ends, "a token after the end"
            if key == 1 and not self.tokens[key]:
                self.inbox.put(Abort(1))
            self.tokens[key] += events.tokens[at : at + count].tolist()
            at += count
        self.ends |= {end.key: end for end in events.ends}
        if len(self.ends) == REQUESTS:
            self.inbox.put(None)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    "policy",
    [Continuous(), PrefillFirst(), Static(3), Dynamic(2_000_000, 3)],
    ids=["continuous", "prefill-first", "static", "dynamic"],
)
def test_a_loop_of_any_depth_serves_every_policy(policy: Policy, depth: int) -> None:
    inbox: Inbox = queue.SimpleQueue()
    front = Front(inbox)
    sampling = Sampling(stop_ids=(5,))
    for key in range(REQUESTS):
        prompt = np.array([key, 2, key], np.int32)
        inbox.put(Submit.of(NewRequest(key, prompt, NEW, sampling, time.perf_counter_ns())))
    engine = engine_with(scripted_runner(), policy, depth)
    EngineLoop(engine, inbox, front.deliver).run()
    for key, tokens in front.tokens.items():
        want = naive([key, 2, key], NEW, sampling)
        assert tokens == (want[: len(tokens)] if front.ends[key].reason == "abort" else want)
    assert front.ends[1].reason == "abort"
    while engine.step() is not None:
        pass
    assert engine.counters().kv_blocks == 0


class Chores:
    """Upkeep that has something to do three times; what comes meanwhile comes first."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox, self.left, self.stepped = inbox, 3, 0

    def between(self) -> None:
        self.stepped += 1

    def idle(self) -> bool:
        if self.left == 2:
            self.inbox.put(Submit.of(NewRequest(0, np.array([1, 2], np.int32), NEW, Sampling(), 0)))
        if not self.left:
            self.inbox.put(None)
            return False
        self.left -= 1
        return True


def test_an_idle_loop_does_what_is_left_to_do_and_looks_for_messages_between() -> None:
    inbox: Inbox = queue.SimpleQueue()
    chores, delivered = Chores(inbox), list[tuple[int, Out]]()
    engine = engine_with(scripted_runner(), Continuous(), 1)
    engine.upkeep = chores
    EngineLoop(engine, inbox, lambda message: delivered.append((chores.left, message))).run()
    assert chores.left == 0
    assert chores.stepped >= NEW
    assert delivered[0][0] == 1, "the request came while one thing was left"
    tokens = [token for _, message in delivered if isinstance(message, Step) for token in message.events().tokens]
    assert tokens == naive([1, 2], NEW, Sampling())
