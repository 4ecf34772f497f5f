"""What is sent is what arrives."""

from __future__ import annotations

import numpy as np

from ridgeline.core.types import BatchRecord, End, Events, NewRequest, Sampling, Timings
from ridgeline.engine.messages import Abort, Counters, Step, Submit, decode_in, decode_out, encode, encode_events

BATCH = BatchRecord(3, 2, "window", 10, 60, 17, 5, 40, 6, 9)
TIMINGS = Timings(10, 50, 60, 70, 90, 5, 9, 1, BATCH)
COUNTERS = Counters(1, 2, 3, 4, 5)


def test_a_request_survives_the_way() -> None:
    sampling = Sampling(temperature=0.7, top_k=3, top_p=0.9, min_tokens=2, seed=2**64 - 1, stop_ids=(0, 50256))
    request = NewRequest(2**40, np.array([1, 2**31 - 1], np.int32), 9, sampling, 2**62, np.array([5], np.int32))
    message = decode_in(encode(Submit.of(request)))
    assert isinstance(message, Submit)
    got = message.request()
    assert got.prompt_ids.tolist() == [1, 2**31 - 1]
    assert got.output_ids.tolist() == [5]
    assert (got.key, got.max_tokens, got.sampling, got.arrival_ns) == (2**40, 9, sampling, 2**62)
    assert decode_in(encode(Abort(7))) == Abort(7)


def test_a_step_survives_the_way() -> None:
    ends = (End(8, "stop", 16, TIMINGS), End(9, "length", 0, TIMINGS))
    events = Events(np.array([8, 2**40]), np.array([2, 0]), np.array([50256, 7], np.int32), ends)
    message = decode_out(encode_events(events, COUNTERS))
    assert isinstance(message, Step)
    assert message.counters == COUNTERS
    got = message.events()
    assert (got.keys.tolist(), got.counts.tolist(), got.tokens.tolist()) == ([8, 2**40], [2, 0], [50256, 7])
    assert got.ends == ends
