"""Step time: what a step takes on one machine, from the costs of its shape and two steps that were timed there. Knows
no hardware and times nothing.

ns = fixed + position * positions + read * cached tokens that are read: the weights, the arithmetic, the cache. It adds
what may overlap, so it errs on the side of too long: right for those who keep a promise by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.core.cost import Formats, Row, StepShape, step_costs, total
from ridgeline.core.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class TimedSteps:
    """Two steps of one sequence: a prompt of so many tokens, and the decode step after it."""

    prompt_tokens: int
    prompt_ns: int
    decode_ns: int


@dataclass(frozen=True, slots=True)
class StepTime:
    """fixed_ns: of every step. position_ns: of a position that is computed. read_ns: of a cached token that a decoding
    row looks back at."""

    fixed_ns: float
    position_ns: float
    read_ns: float

    @staticmethod
    def fitted(spec: ModelSpec, formats: Formats, context: int, timed: TimedSteps) -> StepTime:
        """context: of the prompts to come, half of the longest on average; a position's share of attention grows with
        it. The decode step gives the bytes a second that are really reached, the prompt the arithmetic."""
        first = timed.prompt_tokens
        decode = total(step_costs(spec, StepShape.decode(1, first + 1), formats))
        prompt = total(step_costs(spec, StepShape.prefill(first), formats))
        ns_per_flop = max(0, timed.prompt_ns - timed.decode_ns) / max(1, prompt.flops - decode.flops)
        one_more = StepShape((Row(1, context),), wanted=0)
        position_ns = total(step_costs(spec, one_more, formats)).flops * ns_per_flop
        cached = spec.layers * 2 * (spec.d_model * formats.kv_bits + spec.heads * formats.kv_scale_bits) / 8
        return StepTime(
            fixed_ns=max(0.0, timed.decode_ns - position_ns),
            position_ns=position_ns,
            read_ns=cached * timed.decode_ns / decode.streamed_bytes,
        )

    def ns(self, positions: int, context: int) -> float:
        """A step of so many positions; context: of the rows that decode in it, all together."""
        return self.fixed_ns + positions * self.position_ns + context * self.read_ns
