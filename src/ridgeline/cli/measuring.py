"""The commands that measure a running server, as a client."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ridgeline.cli.environment import api_key, check_key
from ridgeline.core.errors import ConfigError

if TYPE_CHECKING:
    from ridgeline.bench.workload import Workload

bench = typer.Typer(
    help="Measure any OpenAI-compatible server over HTTP, or an engine in this process.", no_args_is_help=True
)


@bench.callback()
def _bench() -> None:
    """Measure any OpenAI-compatible server over HTTP, or an engine in this process."""


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
        api_key=api_key(),
        seed=seed,
        no_color=no_color,
        json_path=json,
        wait_s=wait_s,
        timeout_s=timeout_s,
    )
    raise SystemExit(run(options, command=sys.argv))


_LOAD, _WORK, _BODY, _OUT = "Load", "Workload", "Requests", "Output"


@bench.command("serve")
def bench_serve(
    url: Annotated[str, typer.Option(help="The server.")] = "http://localhost:8000",
    against: Annotated[Optional[str], typer.Option(help="A second server: the baseline, measured in turn.")] = None,  # noqa: UP045
    rounds: Annotated[int | None, typer.Option(help="--against: rounds of both, at least 5. Default: 7.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Closed loop: requests in flight.", rich_help_panel=_LOAD)
    ] = None,
    request_rate: Annotated[
        float | None,
        typer.Option(help="Open loop: requests a second, whatever the server does.", rich_help_panel=_LOAD),
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(
            help="Open loop: poisson, constant or burst (a second's at once). Default: poisson.", rich_help_panel=_LOAD
        ),
    ] = None,
    num_requests: Annotated[
        int | None,
        typer.Option(help="End after so many requests. Default: 100, without --duration-s.", rich_help_panel=_LOAD),
    ] = None,
    duration_s: Annotated[
        float | None, typer.Option(help="Send nothing after so many seconds.", rich_help_panel=_LOAD)
    ] = None,
    warmup_requests: Annotated[int, typer.Option(help="Sent before, and not counted.", rich_help_panel=_LOAD)] = 4,
    client_processes: Annotated[
        int, typer.Option(help="Processes that send the load together.", rich_help_panel=_LOAD)
    ] = 1,
    workload: Annotated[
        str, typer.Option(help="fixed, uniform, lognormal, file, sharegpt or shared-prefix.", rich_help_panel=_WORK)
    ] = "fixed",
    input_len: Annotated[
        str | None,
        typer.Option(help="Prompt tokens, about: 128, or a range 32:512. Default: 128.", rich_help_panel=_WORK),
    ] = None,
    output_len: Annotated[
        str | None,
        typer.Option(
            help="New tokens: 64, or a range. sharegpt: bounds of the answers' own. Default: 64; sharegpt: 1:2048.",
            rich_help_panel=_WORK,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="file: a prompt a line, or JSON lines. sharegpt: its JSON.", rich_help_panel=_WORK),
    ] = None,
    prompt_kind: Annotated[
        str | None,
        typer.Option(help="text, or ids for a server that takes token ids. Default: text.", rich_help_panel=_WORK),
    ] = None,
    vocab: Annotated[
        int | None, typer.Option(help="ids: they are below it. Default: 50257.", rich_help_panel=_WORK)
    ] = None,
    prefix_groups: Annotated[
        int | None, typer.Option(help="shared-prefix: how many prefixes. Default: 4.", rich_help_panel=_WORK)
    ] = None,
    prefix_len: Annotated[
        int | None,
        typer.Option(
            help="shared-prefix: tokens of a prefix; --input-len is the tail's. Default: 256.", rich_help_panel=_WORK
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same requests.", rich_help_panel=_WORK)] = 0,
    model: Annotated[Optional[str], typer.Option(help="Default: the server's first.", rich_help_panel=_BODY)] = None,  # noqa: UP045
    ignore_eos: Annotated[bool, typer.Option(help="Ask for answers of the full length.", rich_help_panel=_BODY)] = True,
    greedy: Annotated[bool, typer.Option(help="Send temperature 0.", rich_help_panel=_BODY)] = True,
    usage: Annotated[
        bool, typer.Option(help="Ask for token counts (stream_options.include_usage).", rich_help_panel=_BODY)
    ] = True,
    extra_body: Annotated[
        str,
        typer.Option(
            help="Further fields of every request, as a JSON object; the run file has them.", rich_help_panel=_BODY
        ),
    ] = "{}",
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="Its first line is the key. Default: OPENAI_API_KEY.", dir_okay=False, rich_help_panel=_BODY),
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="Seconds a request may take.", rich_help_panel=_BODY)] = 600.0,
    wait_s: Annotated[float, typer.Option(help="Seconds to wait for a server that is not there yet.")] = 0.0,
    goodput: Annotated[
        list[str] | None,
        typer.Option(help="A limit in ms: ttft:200, tpot:50, e2e:2000. Several are all kept.", rich_help_panel=_OUT),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write a run file.", dir_okay=False, rich_help_panel=_OUT)] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="A row for every request in the run file.", rich_help_panel=_OUT)
    ] = False,
) -> None:
    """Measure TTFT, TPOT, ITL, throughput and goodput of a server; or compare two.

    Example: ridgeline bench serve --url http://localhost:8000 --request-rate 4 --num-requests 100
    """
    from ridgeline.bench.order import Order, parse_limits
    from ridgeline.bench.serve import run

    _nothing_unused(
        ("--rounds", rounds, against is not None, "--against"),
        ("--arrivals", arrivals, request_rate is not None, "--request-rate"),
        ("--rows", rows or None, json is not None, "--json"),
    )
    order = Order(
        url=url,
        against=against,
        workload=_workload(workload, input_len, output_len, prompts, prompt_kind, vocab, prefix_groups, prefix_len),
        **_given(rounds=rounds, arrivals=arrivals),
        concurrency=concurrency,
        request_rate=request_rate,
        num_requests=100 if num_requests is None and duration_s is None else num_requests,
        duration_s=duration_s,
        warmup_requests=warmup_requests,
        limits_ms=parse_limits(goodput or []),
        ignore_eos=ignore_eos,
        greedy=greedy,
        include_usage=usage,
        extra_body=_json_object(extra_body),
        model=model,
        api_key=_key(api_key_file),
        seed=seed,
        client_processes=client_processes,
        timeout_s=timeout_s,
        wait_s=wait_s,
        json_path=json,
        rows=rows,
    )
    raise SystemExit(run(order, command=sys.argv))


def _workload(
    kind: str,
    input_len: str | None,
    output_len: str | None,
    prompts: Path | None,
    prompt_kind: str | None,
    vocab: int | None,
    prefix_groups: int | None,
    prefix_len: int | None,
) -> Workload:
    from ridgeline.bench.lengths import Lengths
    from ridgeline.bench.workload import ANSWER_LEN, FROM_FILE, Workload

    is_made, made = kind not in FROM_FILE, "a workload whose prompts are made, not read from a file"
    is_shared, shared = kind == "shared-prefix", "--workload shared-prefix"
    _nothing_unused(
        ("--input-len", input_len, is_made, made),
        ("--prompt-kind", prompt_kind, is_made, made),
        ("--vocab", vocab, prompt_kind == "ids", "--prompt-kind ids"),
        ("--prefix-groups", prefix_groups, is_shared, shared),
        ("--prefix-len", prefix_len, is_shared, shared),
    )
    given = _given(prompt_kind=prompt_kind, vocab=vocab, prefix_groups=prefix_groups, prefix_len=prefix_len)
    if input_len is not None:
        given["input_len"] = Lengths.parse("--input-len", input_len)
    if output_len is not None:
        given["output_len"] = Lengths.parse("--output-len", output_len)
    elif kind == "sharegpt":
        given["output_len"] = ANSWER_LEN
    return Workload(kind=kind, prompts=prompts, **given)


def _given(**options: Any) -> dict[str, Any]:
    """Without those that the command line leaves to their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _nothing_unused(*rules: tuple[str, Any, bool, str]) -> None:
    """(flag, its value or None, whether it means something, what it belongs to). Raises ConfigError."""
    for flag, value, means_something, partner in rules:
        if value is not None and not means_something:
            raise ConfigError(f"{flag}: means nothing without {partner}; leave it out")


def _json_object(text: str) -> dict[str, Any]:
    try:
        body = jsonlib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--extra-body: not JSON ({error})") from error
    if not isinstance(body, dict):
        raise ConfigError('--extra-body: expected a JSON object, for example {"top_k": 40}')
    return body


def _key(path: Path | None) -> str | None:
    """A command line is seen by everybody on the machine, so the key itself is no option."""
    if path is None:
        return api_key()
    try:
        key = path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {path}: it cannot be read ({error})") from error
    return check_key(f"--api-key-file {path}, first line", key)
