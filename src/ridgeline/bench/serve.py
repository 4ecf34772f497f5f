"""Serve: the measurement of a server, from waiting for it to the table and the run file. Knows no argv."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ridgeline.bench.clock import WallClock
from ridgeline.bench.datasets import Example
from ridgeline.bench.duel import Ratio, left_out, ratios
from ridgeline.bench.fleet import Load, send
from ridgeline.bench.measures import Measures, measure
from ridgeline.bench.order import Order
from ridgeline.bench.records import Shape
from ridgeline.bench.remote import RequestFailed
from ridgeline.bench.share import Share, Target, connect, warm_up
from ridgeline.bench.tables import print_measures, print_ratios
from ridgeline.bench.told import told
from ridgeline.bench.waiting import display_for, wait_until_ready
from ridgeline.bench.words import plural
from ridgeline.bench.workload import words
from ridgeline.core.errors import Unavailable
from ridgeline.core.plaintext import harmless
from ridgeline.core.records import provenance, write_run
from ridgeline.core.report import reported

FORMAT = 1
EXIT_INTERRUPTED = 130
PROBE_WORDS = 64


@dataclass(slots=True)
class Session:
    """What has become known so far.

    examples: of the workload's file. models, loads: of the server and of its baseline; a load for each round.
    """

    tokens_per_word: float = 1.0
    examples: Sequence[Example] = ()
    models: list[dict[str, Any]] = field(default_factory=list)
    loads: list[list[Load]] = field(default_factory=list)
    interrupted: bool = False

    def measures(self, order: Order) -> list[list[Measures]]:
        """[server][round], rounds without any request left out."""
        return [[m for load in loads if (m := measure(load.outcomes, order.limits_ms))] for loads in self.loads]

    def ratios(self, order: Order) -> dict[str, Ratio] | None:
        """None without a baseline, and where a round is missing."""
        found = self.measures(order)
        if order.against is None or [len(rounds) for rounds in found] != [order.rounds, order.rounds]:
            return None
        return ratios(found[0], found[1])


def run(order: Order, console: Console | None = None, command: list[str] | None = None) -> int:
    """Measures, prints and writes. The exit code: 0, every request was answered or refused; 1, a server that does not
    come, failed requests or a file that cannot be written; 130, Ctrl-C, with what there was."""
    console = console or Console()
    about = provenance(command)  # now, as the working tree may be another one when the run is over
    session, failed = Session(), False
    try:
        targets = prepare(order, session, console)
        drive(order, targets, session, console)
    except Unavailable as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        if not any(session.loads):
            return 1
        failed = True
    except KeyboardInterrupt:
        session.interrupted = True
        if not any(session.loads):
            console.print("Interrupted before anything was measured.", highlight=False)
            return EXIT_INTERRUPTED
    _tell(order, session, console)
    written = _write(order, session, console, about)
    if session.interrupted:
        return EXIT_INTERRUPTED
    rounds = [m for measures in session.measures(order) for m in measures]
    failed = failed or any(load.lost for loads in session.loads for load in loads)
    return 0 if written and not failed and any(m.answered for m in rounds) and not any(m.failed for m in rounds) else 1


def prepare(order: Order, session: Session, console: Console) -> list[Target]:
    """Each server ready, known by its model's name, and warm. Raises Unavailable."""
    session.examples = order.workload.read()  # one that cannot be read says so before anything is sent
    targets: list[Target] = []
    for url in filter(None, (order.url, order.against)):
        target = asyncio.run(_meet(order, url, session, console))
        if order.workload.counts_words and not targets:
            session.tokens_per_word = asyncio.run(tokens_per_word(order, target))
        targets.append(target)
    for target in targets:
        asyncio.run(warm_up(order, target, session.tokens_per_word, session.examples))
    return targets


async def _meet(order: Order, url: str, session: Session, console: Console) -> Target:
    clock = WallClock()
    async with connect(order, Target(url, {}), clock) as remote:
        with display_for(console) as display:
            await wait_until_ready(remote, display, clock, order.wait_s, order.stall_s)
        model = await remote.model()
    session.models.append(model)
    session.loads.append([])
    name = order.model or model.get("id")
    introduction = harmless(f"{name or 'a model without a name'} at {url}")
    console.print(introduction, markup=False, highlight=False, soft_wrap=True)
    return Target(url, {} if name is None else {"model": name})


async def tokens_per_word(order: Order, target: Target) -> float:
    """How many tokens the server makes of a word, by the usage of one short request; 1 where it does not say."""
    clock = WallClock()
    longest = max(1, min(PROBE_WORDS, order.workload.input_len.low))
    async with connect(order, target, clock) as remote:
        try:
            reply = await remote.complete(Shape(words(random.Random(order.seed), longest), 1), clock.now())
        except RequestFailed:
            return 1.0
    return reply.prompt_tokens / longest if reply.counted and reply.prompt_tokens else 1.0


def drive(order: Order, targets: list[Target], session: Session, console: Console) -> None:
    """One round, or order.rounds of both servers: A B, B A, A B, ... Each has prompts of its own, the same for both."""
    rounds = order.rounds if order.against is not None else 1
    with _progress(order, console) as start:
        for i in range(rounds):
            turns = list(zip(targets, session.loads, strict=True))
            for target, loads in turns if i % 2 == 0 else reversed(turns):  # what the first leaves behind hits both
                which = f"{target.url}, round {i + 1} of {rounds}" if rounds > 1 else target.url
                share = Share(order, target, order.seed + i, session.tokens_per_word, session.examples)
                load = send(share, start(which))
                loads.append(load)
                if load.interrupted:
                    session.interrupted = True
                    return


@contextmanager
def _progress(order: Order, console: Console) -> Iterator[Callable[[str], Callable[[int], None]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True), TimeElapsedColumn())
    # Slower than rich's own pace, because drawing takes the client's core.
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("", total=order.num_requests)

        def start(description: str) -> Callable[[int], None]:
            bar.reset(task, description=description, total=order.num_requests)
            return lambda ended: bar.update(task, completed=ended)

        yield start


def _tell(order: Order, session: Session, console: Console) -> None:
    urls = [url for url in (order.url, order.against) if url]
    for url, loads in zip(urls, session.loads, strict=True):
        if len(urls) > 1:
            console.print(f"\n{url}, the last of {plural(len(loads), 'round')}", highlight=False)
        if loads and session.interrupted:
            ended = sum(len(load.outcomes) for load in loads)
            console.print(f"Interrupted; {plural(ended, 'request')} had ended.", highlight=False)
        known = [(m, load) for load in loads if (m := measure(load.outcomes, order.limits_ms))]
        if known:
            print_measures(console, *known[-1], order.limits_ms)
    found = session.ratios(order)
    if order.against is not None and found is not None:
        console.print()
        print_ratios(console, found, left_out(*session.measures(order)), order.url, order.against)


def _write(order: Order, session: Session, console: Console, about: dict[str, Any]) -> bool:
    """Whether the run file is where it was asked for; True where none was."""
    if order.json_path is None:
        return True
    try:
        run = document(order, session, about)
        write_run(order.json_path, reported(run, told(run)))
    except OSError as error:
        console.print(f"the run file could not be written: {error}", markup=False, highlight=False, soft_wrap=True)
        return False
    console.print(f"Run file: {order.json_path}", markup=False, highlight=False, soft_wrap=True)
    return True


def document(order: Order, session: Session, about: dict[str, Any]) -> dict[str, Any]:
    """The run file: provenance, config (without the key), the rounds of every server and the ratios."""
    urls = [url for url in (order.url, order.against) if url]
    found = session.ratios(order)
    return {
        "format": FORMAT,
        "provenance": about,
        "config": config(order),
        "interrupted": session.interrupted,
        "results": {
            "tokens_per_word": session.tokens_per_word,
            "servers": [
                {"url": url, "model": model or None, "rounds": [_round(load, order) for load in loads]}
                for url, model, loads in zip(urls, session.models, session.loads, strict=True)
            ],
            "ratios": None if found is None else {name: asdict(r) for name, r in found.items()},
        },
    }


def config(order: Order) -> dict[str, Any]:
    found = asdict(order)
    del found["api_key"]
    found["json_path"] = None if order.json_path is None else str(order.json_path)
    found["workload"]["prompts"] = None if order.workload.prompts is None else str(order.workload.prompts)
    return found


def _round(load: Load, order: Order) -> dict[str, Any]:
    m = measure(load.outcomes, order.limits_ms)
    told: dict[str, Any] = {"cpu_shares": load.cpu_shares, "client_bound": load.client_bound, "measures": None}
    if m is not None:
        told["measures"] = asdict(m) | {
            "tokens_per_s": m.tokens_per_s,
            "requests_per_s": m.requests_per_s,
            "goodput_per_s": m.goodput_per_s,
        }
    if order.rows:
        told["requests"] = [asdict(o) for o in load.outcomes]
    return told
