"""Agreement: whether rungs made the same tokens, and whether rounding explains where they did not. Knows no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ridgeline.lab.ladder.work import Request

# Between the log-probabilities of two tokens; less may be rounding. 16-bit formats round logits of some tens by
# hundredths (float16) and tenths (bfloat16).
TIES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.25}

Gap = Callable[[Sequence[int], int, int], float]
"""How far apart the reference holds two tokens after a prefix: |log p(a) - log p(b)|."""


@dataclass(frozen=True, slots=True)
class Check:
    """Of a rung in a round. compared: outputs. ties: of them, parted at a tie. wrong: parted where there was none.
    first: the first of those, in words."""

    compared: int
    ties: int
    wrong: int
    first: str | None

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Reference:
    """The tokens that rungs must make: each request's are those of the lowest rung that served it."""

    gap: Gap
    tie: float
    outputs: dict[int, list[int]]

    def learn(self, outputs: Sequence[list[int]]) -> None:
        for at, tokens in enumerate(outputs):
            self.outputs.setdefault(at, tokens)

    def check(self, requests: Sequence[Request], outputs: Sequence[list[int]]) -> Check:
        """The outputs of another rung for the same requests, or the first of them."""
        compared = ties = wrong = 0
        first = None
        for at, tokens in enumerate(outputs):
            if at not in self.outputs:
                continue
            compared += 1
            expected = self.outputs[at]
            if tokens == expected:
                continue
            said = self._parted(requests[at], expected, tokens)
            if said is None:
                ties += 1
                continue
            wrong += 1
            first = first or f"request {at}, {said}"
        return Check(compared, ties, wrong, first)

    def _parted(self, request: Request, expected: list[int], tokens: list[int]) -> str | None:
        """None where two outputs part at a tie; otherwise what is wrong."""
        at = next((i for i, (a, b) in enumerate(zip(expected, tokens, strict=False)) if a != b), None)
        if at is None:
            return f"{len(tokens)} tokens instead of {len(expected)}"
        a, b = expected[at], tokens[at]
        apart = self.gap([*request.prompt, *expected[:at]], a, b)
        if apart <= self.tie:
            return None
        return f"token {at}: {b} instead of {a}, {apart:.3g} nats apart where up to {self.tie:g} may be rounding"


def check_round(
    rungs: Sequence[str],
    outputs: Mapping[str, Sequence[list[int]]],
    requests: Sequence[Request],
    references: Mapping[str, Reference],
    peer: str,
) -> dict[str, Check]:
    """Of every rung in a round but the references themselves. rungs: names, from the lowest.

    references: by name of the rung whose tokens they are: the lowest engine and each lossy rung, because whoever
    stands on a lossy rung computes with its numbers. peer: judged by the lowest engine, whose reference it is not.
    """
    found: dict[str, Check] = {}
    current: Reference | None = None
    waiting = peer if peer in rungs else None
    for name in rungs:
        if name == peer:
            continue
        if name in references:
            current = references[name]
            current.outputs.clear()
        assert current is not None, "the lowest engine is a reference"
        if name not in references:
            found[name] = current.check(requests, outputs[name])
        if name in references or not found[name].wrong:
            current.learn(outputs[name])
        if waiting is not None:
            found[waiting] = current.check(requests, outputs[waiting])
            waiting = None
    return found
