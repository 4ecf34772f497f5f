"""Sizing: how much an engine may do at once, from what the operator said and left open. Integers; knows no tensor."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import ModelSpec
from ridgeline.menu import chosen
from ridgeline.scheduler.policies import Policy

ITL_GOAL_MS = 50.0
"""20 tokens a second, more than people read."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """slots: requests that run at once. budget: tokens of a step at most."""

    policy: Policy
    slots: int
    max_len: int
    budget: int


def engine_limits(config: Config, spec: ModelSpec, step_tokens: int) -> EngineLimits:
    """Fill in what the operator left open. Raises ConfigError for limits that exclude each other.

    step_tokens: of a step, as many as the device can make use of.
    """
    max_len = config.model.max_model_len or spec.max_positions
    if max_len > spec.max_positions:
        raise ConfigError(f"--max-model-len {max_len}: this model has only {spec.max_positions} positions")
    policy: Policy = chosen("batching", config.batching.batching).of(config.batching)
    slots = config.limits.max_num_seqs
    if policy.max_batch is not None:
        slots = min(slots, policy.max_batch)
    chunked = config.batching.chunked_prefill is not False
    keeps: bool = chosen("kv_cache", config.batching.kv_cache).keeps
    budget = config.limits.max_num_batched_tokens
    if budget is None and not policy.divisible:
        budget = slots * max_len  # a batch that nobody joins must fit as a whole, or the budget would make it smaller
    elif budget is None:
        # A prompt that is computed whole must fit beside those who decode, or it waits, and all behind it, for few.
        budget = max(step_tokens, slots, 0 if chunked and keeps else max_len + slots)
    return EngineLimits(policy, slots, max_len, budget)


def pace_goal_ns(config: Config, limits: EngineLimits) -> float | None:
    """How long a step with rows that decode may take for the prompts in it; None: as long as the budget makes it.

    Steps that follow from a time are not the same in the next run, so determinism of runs has none.
    """
    asked, options = config.limits.itl_target_ms, config.batching
    keeps: bool = chosen("kv_cache", options.kv_cache).keeps
    if not (limits.policy.divisible and keeps and options.chunked_prefill is not False):
        return None
    if asked is None:
        own = config.limits.max_num_batched_tokens is not None or config.model.determinism == "run"
        asked = None if own else ITL_GOAL_MS
    return None if asked is None else asked * 1e6


def useful_sequences(config: Config, slots: int, *, given: bool) -> int:
    """How many sequences of the longest the KV cache should hold at most. given: the operator said how much memory.

    Earlier requests whose blocks may be found again get as much room as those that run: more would help, but a server
    should not take all memory of its machine unasked. Without a cache every launch in flight has scratch of its own.
    """
    if not chosen("kv_cache", config.batching.kv_cache).keeps:
        return slots * config.batching.launches_in_flight
    if not shares(config):
        return slots
    return sys.maxsize if given else 2 * slots


def shares(config: Config) -> bool:
    """Whether blocks of earlier requests are found again."""
    options = config.batching
    keeps: bool = chosen("kv_cache", options.kv_cache).keeps
    return keeps if options.prefix_cache is None else options.prefix_cache
