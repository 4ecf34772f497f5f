"""Run file: everything that a client run saw, as one JSON document.

    {"format": 1,
     "started_at": "2025-01-31T12:00:00+00:00",        ISO 8601, UTC
     "options": {"mode", "url", "num_requests", "delay_ms", "max_tokens", "prompt", "seed", "levels", ...},
     "provenance": {...},                              of this client: core/records.py
     "server": {...} | null,                           the first entry of /v1/models as it came
     "interrupted": false,                             true: ended by Ctrl-C; requests under way are missing
     "requests": [                                     in the order of sending, warm-up and failures included
       {"number": 1, "in_flight": 4 | null, "purpose": "measured" | "warm-up",
        "shape": {"prompt", "max_tokens"}, "sent_s": 0.0, "latency_ms": 812.5,
        "reply": {"prompt_tokens", "tokens", "timings": {...} | null} | null,
        "error": null | "HTTP 503: ..."}]}

`timings` and its `batch` have the fields of ServerTimings and ServedBatch in records.py; so do the units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ridgeline.bench.options import ClientOptions
from ridgeline.bench.records import Outcome

FORMAT = 1


def document(
    options: ClientOptions,
    started_at: datetime,
    provenance: Mapping[str, Any],
    server: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    *,
    interrupted: bool,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "started_at": started_at.isoformat(timespec="seconds"),
        "options": _told(options),
        "provenance": dict(provenance),
        "server": dict(server) or None,
        "interrupted": interrupted,
        "requests": [asdict(o) for o in sorted(outcomes, key=lambda o: o.number)],
    }


def _told(options: ClientOptions) -> dict[str, Any]:
    found = asdict(options)
    del found["api_key"]
    return found | {"json_path": None if options.json_path is None else str(options.json_path)}
