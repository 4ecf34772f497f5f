"""Causes: a distance is named only as far as a count explains it, and never more than once."""

from __future__ import annotations

import random

import pytest

from ridgeline.lab.ledger.causes import CAUSES, REST, Accountant
from ridgeline.lab.ledger.entries import Entry, Step
from tests.lab.machines import MACHINE
from tests.lab.steps import FORMATS, entry, host, step

BOOKS = Accountant(MACHINE, FORMATS)


def causes(of: Entry, **facts: object) -> dict[str, float]:
    made = step(of, **facts)
    return BOOKS.places(made, made.places).causes


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        # Three launches more than predicted, 10 us each, and 20 us for which nothing speaks.
        (entry("norm", 60_000, calls=4), {"launch gaps": 30_000, REST: 20_000}),
        # 2 MB more in 4 calls, 1 MB or less each: the L3 brings 10 bytes a ns.
        (entry("norm", 350_000, operand_bytes=2_000_000, calls=4), {"launch gaps": 30_000, "extra passes": 200_000}),
        # As many bytes in one call come from memory, 1 byte a ns: more than there is to explain.
        (entry("norm", 350_000, operand_bytes=2_000_000), {"extra passes": 340_000}),
        # The hardware moved 100 kB more than the operands have.
        (entry("norm", 300_000, bytes=50_000, counted_bytes=150_000), {"cache misses": 100_000, REST: 140_000}),
        # One row fills no tile; what else is known comes first.
        (entry("mlp", 100_000, bytes=50_000, calls=2), {"launch gaps": 10_000, "small tiles": 30_000}),
        (entry("attention", 100_000, bytes=50_000), {REST: 40_000}),
        (host(90_000, calls=4), {"launch gaps": 40_000, "host wait": 50_000}),
    ],
)
def test_a_cause_is_what_a_count_explains(place: Entry, expected: dict[str, float]) -> None:
    found = causes(place)
    assert {name: ns for name, ns in found.items() if name in expected} == pytest.approx(expected)
    residual = place.timed_ns.median - place.predicted.ns
    assert sum(found.values()) == pytest.approx(residual)


def test_many_rows_fill_their_tiles() -> None:
    place = entry("mlp", 100_000, bytes=50_000)
    assert causes(place, batch=32) == {REST: pytest.approx(40_000)}
    # The head sees one position of a prompt, the blocks see all.
    assert causes(place, phase="prefill", context=64) == {REST: pytest.approx(40_000)}
    head = entry("head", 100_000, bytes=50_000)
    assert causes(head, phase="prefill", context=64) == {"small tiles": pytest.approx(40_000)}


def test_padding_is_its_share_of_the_time() -> None:
    place = entry("attention", 100_000, bytes=50_000)
    assert causes(place, batch=3, padding=1) == pytest.approx({"padding": 25_000, REST: 15_000})
    assert "padding" not in causes(entry("sampling", 100_000), batch=3, padding=1)


def test_less_than_the_floor_has_no_causes() -> None:
    made = step(entry("mlp", 40_000, bytes=50_000, calls=9))
    account = BOOKS.places(made, made.places)
    assert account.below_floor
    assert account.causes == {}
    assert account.residual_ns == -20_000


def test_shares_of_the_ceilings_are_of_predicted_work() -> None:
    made = step(entry("mlp", 100_000, bytes=50_000, operand_bytes=90_000), host(900_000))
    account = BOOKS.places(made, made.places[:1])
    assert (account.mbu, account.mfu) == pytest.approx((0.5, 0.5))
    assert BOOKS.step(made).mbu == pytest.approx(0.05)
    assert BOOKS.places(made, made.places[1:]).mbu is None


def test_places_never_explain_more_than_there_is() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(200):
        places = [
            entry(
                region,
                rng.uniform(0, 300_000),
                bytes=rng.randrange(100_000),
                calls=rng.randrange(1, 9),
                operand_bytes=rng.randrange(3_000_000),
                counted_bytes=rng.choice([None, rng.randrange(3_000_000)]),
            )
            for region in ("embedding", "qkv", "attention", "mlp", "head", "sampling")
        ]
        made = step(*places, host(rng.uniform(0, 100_000)), padding=rng.randrange(3), batch=rng.choice([1, 40]))
        _check(made)


def _check(made: Step) -> None:
    for account in (BOOKS.step(made), *(BOOKS.places(made, entries) for entries in made.regions.values())):
        assert all(ns > 0 for ns in account.causes.values())
        assert set(account.causes) <= {*CAUSES, REST}
        assert sum(account.causes.values()) == pytest.approx(max(0.0, account.residual_ns), abs=1)
