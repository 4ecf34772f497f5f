"""A small run of trade-offs, as tradeoffs.json has it."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def latency(batching: str, window_ms: int | None, limit: int | None, rate: float, tokens: float, e2e: float) -> Row:
    parts = [batching, *([f"{window_ms} ms"] if window_ms is not None else []), *([f"max {limit}"] if limit else [])]
    return {
        "setting": ", ".join(parts), "batching": batching, "window_ms": window_ms, "limit": limit,
        "rate_per_s": rate, "requests": 9, "answered": 9, "requests_per_s": rate, "tokens_per_s": tokens,
        "ttft_p50_ms": e2e / 3, "tpot_p50_ms": 5.0, "e2e_p50_ms": e2e, "e2e_p95_ms": 2 * e2e, "rows_a_step": None,
        "is_full": False, "client_bound": False,
    }  # fmt: skip


def padding(high: int, deviation: float, wasted: float) -> Row:
    return {
        "asked_low": 1, "asked_high": high, "prompt_mean": 64.0, "prompt_deviation": deviation,
        "spread": deviation / 64, "batches": 4, "rows_a_batch": 8.0, "positions": 1000,
        "padding": round(1000 * wasted), "wasted": wasted,
    }  # fmt: skip


def memory(batch: int, ready_mib: int, loaded_mib: int) -> Row:
    return {
        "batch": batch, "answered": batch, "ready_bytes": ready_mib << 20, "loaded_bytes": loaded_mib << 20,
        "ready_gpu_bytes": None, "gpu_bytes": None, "on_gpu": False,
        "weights_bytes": 10 << 20, "workspace_bytes": 20 << 20, "kv_bytes": batch << 20,
    }  # fmt: skip


def document(**results: Any) -> Row:
    rows: Row = {
        "model": {"id": "demo"},
        "latency": [
            latency("one", None, None, 1.0, 100.0, 80.0),
            latency("dynamic", 0, 8, 1.0, 90.0, 120.0),
            latency("dynamic", 20, 8, 1.0, 95.0, 140.0),
            latency("dynamic", 100, 8, 1.0, 85.0, 230.0),
            latency("continuous", None, 8, 4.0, 400.0, 160.0),
        ],
        "padding": [padding(64, 0.0, 0.0), padding(124, 35.0, 0.41)],
        "memory": [memory(1, 300, 303), memory(32, 300, 326)],
    }
    return {
        "format": 1,
        "provenance": {
            "started": "2026-01-01T00:00:00+00:00", "command": ["ridgeline", "tradeoffs", "<b>"], "commit": None,
            "dirty": False, "cpu": "a processor", "cores": 2, "system": "Linux", "gpus": [],
            "libraries": {"ridgeline": "1"},
        },
        "config": {},
        "interrupted": False,
        "error": None,
        "results": rows | results,
    }  # fmt: skip
