"""Restarts: sooner, later, never; on a clock that the test moves."""

from __future__ import annotations

from ridgeline.engine.supervisor import Restarts


def test_the_delays_double_up_to_half_a_minute_and_the_bound_ends_them() -> None:
    restarts = Restarts(8, clock=lambda: 0.0)
    assert [restarts.next_delay_s() for _ in range(9)] == [1, 2, 4, 8, 16, 30, 30, 30, None]
    assert Restarts(0).next_delay_s() is None


def test_a_minute_of_service_makes_the_next_delay_short_again() -> None:
    now = [0.0]
    restarts = Restarts(10, clock=lambda: now[0])
    assert [restarts.next_delay_s() for _ in range(3)] == [1, 2, 4]
    restarts.serving()
    now[0] += 59
    assert restarts.next_delay_s() == 8
    restarts.serving()
    now[0] += 60
    assert restarts.next_delay_s() == 1


def test_restarts_of_an_hour_ago_no_longer_count() -> None:
    now = [0.0]
    restarts = Restarts(2, clock=lambda: now[0])
    assert restarts.next_delay_s() == 1
    now[0] = 1800.0
    assert restarts.next_delay_s() == 2
    assert restarts.next_delay_s() is None
    now[0] = 3600.0
    assert restarts.next_delay_s() is not None
    assert restarts.next_delay_s() is None
