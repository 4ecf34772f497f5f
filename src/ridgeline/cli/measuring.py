"""The commands that measure a running server, as a client."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def client(
    mode: Annotated[str, typer.Option(help="concurrent: draw N requests over time. benchmark: 1 to 16 in flight.")],
    url: Annotated[str, typer.Option(help="The server.")] = "http://localhost:8000",
    num_requests: Annotated[int, typer.Option(help="concurrent: how many requests.")] = 16,
    delay_ms: Annotated[float, typer.Option(help="concurrent: milliseconds from one request to the next.")] = 10.0,
    max_tokens: Annotated[int, typer.Option(help="New tokens of a request, about.")] = 32,
    prompt: Annotated[Optional[str], typer.Option(help="Every request's prompt. Default: varied ones.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Same seed, same requests.")] = 0,
    wait_s: Annotated[float, typer.Option(help="Seconds to wait for a server that is not there yet.")] = 0.0,
    timeout_s: Annotated[float, typer.Option(help="Seconds a request may take.")] = 300.0,
    json: Annotated[Optional[Path], typer.Option(help="Write a run file.", dir_okay=False)] = None,  # noqa: UP045
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain characters only.")] = False,
) -> None:
    """See what batching does to requests, and measure it, on any running server.

    Example: python client.py --mode concurrent --num-requests 16 --delay-ms 10
    """
    from ridgeline.bench.client import run
    from ridgeline.bench.options import ClientOptions

    options = ClientOptions(
        mode=mode,
        url=url,
        num_requests=num_requests,
        delay_ms=delay_ms,
        max_tokens=max_tokens,
        prompt=prompt,
        seed=seed,
        no_color=no_color,
        json_path=json,
        wait_s=wait_s,
        timeout_s=timeout_s,
    )
    raise SystemExit(run(options))
