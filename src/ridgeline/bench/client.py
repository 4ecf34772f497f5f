"""Client: waits for a server, loads it, tells what it saw. Knows no argv; the command line hands it ClientOptions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from rich.console import Console

from ridgeline.bench import runfile
from ridgeline.bench.clock import Clock, WallClock
from ridgeline.bench.load import Load
from ridgeline.bench.modes import CHOICES, Mode
from ridgeline.bench.options import ClientOptions
from ridgeline.bench.records import Outcome
from ridgeline.bench.remote import Remote, bearer
from ridgeline.bench.waiting import display_for, wait_until_ready
from ridgeline.bench.words import plural
from ridgeline.core.errors import Unavailable
from ridgeline.core.plaintext import harmless
from ridgeline.core.records import provenance, write_run

ERRORS_TOLD = 10
EXIT_INTERRUPTED = 130


@dataclass(slots=True)
class Session:
    """What has become known so far; what an interrupted run still has."""

    started_at: datetime
    provenance: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: bool = False


def run(
    options: ClientOptions,
    console: Console | None = None,
    clock: Clock | None = None,
    command: list[str] | None = None,
) -> int:
    """Does what options ask for and prints it. Returns the exit code.

    0: every request was answered. 1: no server, a failed server, any failed request, or a run file that could not be
    written. 130: Ctrl-C; what had ended by then is printed and written.
    """
    # None leaves the choice to rich, which honours NO_COLOR and sees whether this is a terminal.
    console = console or Console(no_color=options.no_color or None)
    session = Session(started_at=datetime.now(UTC), provenance=provenance(command))
    mode = CHOICES[options.mode](options)
    try:
        asyncio.run(_drive(options, mode, session, console, clock or WallClock()))
    except Unavailable as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        session.interrupted = True
    session.outcomes.sort(key=lambda o: o.number)
    _tell(session, mode, console)
    written = _write(options, session, console)
    if session.interrupted:
        return EXIT_INTERRUPTED
    return 0 if written and not any(o.error for o in session.outcomes) else 1


async def _drive(options: ClientOptions, mode: Mode, session: Session, console: Console, clock: Clock) -> None:
    connector = aiohttp.TCPConnector(limit=0)  # the load decides how many are in flight, not the pool
    async with aiohttp.ClientSession(connector=connector, headers=bearer(options.api_key)) as http:
        remote = Remote(http, options.url, options.timeout_s, clock)
        remote.always_send({"temperature": 0, "ignore_eos": True})  # comparable answers of the length asked for
        with display_for(console) as display:
            ready = await wait_until_ready(remote, display, clock, options.wait_s, options.stall_s)
        session.model = await remote.model()
        if "id" in session.model:
            remote.always_send({"model": session.model["id"]})
        if ready.ridgeline:
            remote.always_send({"timings": True})  # other servers may refuse a field that they do not know
        console.print(_introduction(session.model, options.url), markup=False, highlight=False, soft_wrap=True)
        with console.status("") as status:

            def show(outcome: Outcome) -> None:
                level = f", {outcome.in_flight} in flight" if outcome.in_flight else ""
                status.update(f"{len(session.outcomes)} of {mode.num_requests} requests have ended{level}")

            await mode.drive(Load(remote, clock, show, session.outcomes))


def _introduction(model: dict[str, Any], url: str) -> str:
    facts = model.get("ridgeline")
    if not isinstance(facts, dict):
        return harmless(f"{model.get('id', 'a model without a name')} at {url}\n")
    running = f"{facts.get('dtype')} on {facts.get('device')}, batching {facts.get('batching')}"
    line = f"{model.get('id')} at {url} ({running})\n"
    return harmless(f"{line}{facts['note']}\n" if facts.get("note") else line)


def _tell(session: Session, mode: Mode, console: Console) -> None:
    if session.interrupted:
        console.print(f"Interrupted; {plural(len(session.outcomes), 'request')} had ended.\n", highlight=False)
    if any(o.reply for o in session.outcomes):
        mode.report(console, session.outcomes)
    _tell_errors(session.outcomes, console)


def _tell_errors(outcomes: Sequence[Outcome], console: Console) -> None:
    kinds = Counter(o.error for o in outcomes if o.error)
    if not kinds:
        return
    console.print(f"\n{kinds.total()} of {plural(len(outcomes), 'request')} failed:", style="red", highlight=False)
    for kind, count in kinds.most_common(ERRORS_TOLD):
        console.print(f"  {count} x {kind}", markup=False, highlight=False, soft_wrap=True)
    if len(kinds) > ERRORS_TOLD:
        console.print(f"  and {len(kinds) - ERRORS_TOLD} other kinds", highlight=False)


def _write(options: ClientOptions, session: Session, console: Console) -> bool:
    """Whether the run file is where it was asked for; True where none was."""
    if options.json_path is None:
        return True
    content = runfile.document(
        options,
        session.started_at,
        session.provenance,
        session.model,
        session.outcomes,
        interrupted=session.interrupted,
    )
    try:
        write_run(options.json_path, content)
    except OSError as error:
        console.print(f"the run file could not be written: {error}", markup=False, highlight=False, soft_wrap=True)
        return False
    console.print(f"Run file: {options.json_path}", markup=False, highlight=False, soft_wrap=True)
    return True
