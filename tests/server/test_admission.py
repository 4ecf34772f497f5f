"""Admission on a clock of the test's own: both bounds hold whatever happens, and Retry-After follows the rate."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.core.errors import BadRequest, Overloaded
from ridgeline.server.admission import Admission, Place
from ridgeline.server.limits import Limits


@dataclass
class Now:
    s: float = 100.0

    def __call__(self) -> float:
        return self.s


def admission(now: Now, requests: int = 8, tokens: int = 100, per_key: int | None = None) -> Admission:
    return Admission(Limits(queued_requests=requests, queued_tokens=tokens, concurrent_per_key=per_key), now)


ACTS = st.lists(
    st.tuples(st.sampled_from(["enter", "weigh", "began", "leave", "wait"]), st.integers(0, 40), st.integers(1, 60)),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(ACTS)
def test_no_order_of_events_breaks_a_bound_or_leaves_something_behind(acts: list[tuple[str, int, int]]) -> None:
    now = Now()
    queue = admission(now, per_key=12)
    places: list[tuple[Place, int]] = []
    told: list[Overloaded | BadRequest] = []
    for act, which, amount in acts:
        try:
            if act == "enter":
                requests = which % 5 + 1
                places.append((queue.enter(requests, f"key-{which % 2}"), requests))
            elif act == "wait":
                now.s += amount / 10
            elif places:
                place, requests = places[which % len(places)]
                if act == "weigh" and not place._weighed and not place._over:
                    place.weigh([amount] * requests)
                elif act == "began" and place._weighed:
                    place.began(amount % requests)
                elif act == "leave":
                    place.leave()
        except (Overloaded, BadRequest) as error:
            told.append(error)
        assert 0 <= queue.queued_requests <= 8
        assert 0 <= queue.queued_tokens <= 100
    assert all(1 <= one.retry_after_s <= 60 if isinstance(one, Overloaded) else one.param == "prompt" for one in told)
    for place, _ in places:
        place.leave()
    assert (queue.queued_requests, queue.queued_tokens) == (0, 0)
    assert not queue._by_key


def test_a_request_waits_until_its_first_token_and_no_longer() -> None:
    queue = admission(Now(), requests=2)
    first, second = queue.enter(1), queue.enter(1)
    with pytest.raises(Overloaded, match="2 requests are waiting") as caught:
        queue.enter(1)
    assert (caught.value.kind, caught.value.reason) == ("requests", "queued_requests")
    first.weigh([5])
    first.began(0)
    first.began(0)
    assert (queue.queued_requests, queue.queued_tokens) == (1, 0)
    queue.enter(1)
    second.leave()
    queue.check()


def test_tokens_have_a_bound_of_their_own() -> None:
    queue = admission(Now(), tokens=10)
    queue.enter(1).weigh([7])
    late = queue.enter(1)
    with pytest.raises(Overloaded, match="7 tokens are waiting") as caught:
        late.weigh([4])
    assert (caught.value.kind, caught.value.reason) == ("tokens", "queued_tokens")
    late.leave()
    queue.enter(1).weigh([3])
    with pytest.raises(Overloaded, match="10 tokens"):
        queue.check()


def test_what_can_never_wait_is_the_clients_mistake() -> None:
    queue = admission(Now(), requests=4, tokens=10, per_key=2)
    with pytest.raises(BadRequest, match="best_of: 5 generations; this server lets at most 4 wait") as caught:
        queue.enter(5, field="best_of")
    assert caught.value.param == "best_of"
    with pytest.raises(BadRequest, match="may have 2 under way"):
        queue.enter(3, "key")
    with pytest.raises(BadRequest, match="messages: 11 tokens; this server lets at most 10 wait"):
        queue.enter(1).weigh([11], "messages")


def test_a_key_has_its_share_and_others_have_theirs() -> None:
    queue = admission(Now(), per_key=2)
    place = queue.enter(2, "a")
    with pytest.raises(Overloaded, match="this API key has 2 requests under way") as caught:
        queue.enter(1, "a")
    assert caught.value.reason == "key"
    queue.enter(2, "b")
    queue.enter(3, None)
    place.leave()
    queue.enter(2, "a")


def retry_after_s(queue: Admission, requests: int = 1) -> int:
    with pytest.raises(Overloaded) as caught:
        queue.enter(requests)
    return caught.value.retry_after_s


@pytest.mark.parametrize(("every_s", "requests", "expected"), [(0.1, 1, 1), (4.0, 1, 4), (4.0, 3, 12), (50.0, 2, 60)])
def test_retry_after_is_when_places_are_expected(every_s: float, requests: int, expected: int) -> None:
    now = Now()
    queue = admission(now, requests=8, tokens=10**6)
    for _ in range(40):
        place = queue.enter(1)
        place.weigh([1])
        now.s += every_s
        place.began(0)
        place.leave()
        now.s += 1000  # nobody waits, which is no sign of slowness
    for _ in range(8):
        queue.enter(1)
    assert retry_after_s(queue, requests) == pytest.approx(expected, rel=0.34)


def test_without_a_rate_it_takes_as_long_again() -> None:
    now = Now()
    queue = admission(now, requests=1)
    now.s += 500  # idle
    queue.enter(1)
    assert retry_after_s(queue) == 1
    now.s += 20
    assert retry_after_s(queue) == 20
    now.s += 300
    assert retry_after_s(queue) == 60
