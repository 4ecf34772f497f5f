"""The online face: hub, tokenizer, engine and HTTP joined into a serving process. Loads no torch; holds no state.

The server answers from its first moment; what is slow (a download, the engine's start) happens behind it and is
reported on /ready, a download also on the terminal.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ridgeline.ahead import engine_process
from ridgeline.attending import Opening
from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.checkpoint import Generation, read_generation
from ridgeline.core.config import Config
from ridgeline.core.progress import Progress
from ridgeline.core.stopwatch import Stopwatch, budget_table
from ridgeline.engine.blackbox import BlackBox, CrashReports
from ridgeline.engine.channel import Channel, ProcessChannel, Report, ThreadChannel
from ridgeline.engine.messages import EngineInfo
from ridgeline.engine.process import EngineProcess
from ridgeline.engine.recorder import Recorder
from ridgeline.engine.supervisor import Restarts
from ridgeline.hub import Access, Resolved, choose
from ridgeline.menu import chosen
from ridgeline.server import logs
from ridgeline.server.app import create_app
from ridgeline.server.auth import ADMIN, CLIENT, Keys, Kind, read_keys
from ridgeline.server.daemon import in_daemon_thread
from ridgeline.server.manners import Manners
from ridgeline.server.serve import run_server
from ridgeline.server.service import Service, running_engine
from ridgeline.terminal import Terminal
from ridgeline.text.chat import ChatTemplate
from ridgeline.text.tokenizer import Tokenizer

log = logging.getLogger("ridgeline")

_IMPORT = "import torch"  # a lap of make_engine


class Operator(Protocol):
    """Who is told how the start goes: a person at a terminal, or a log."""

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, at: Progress) -> None: ...

    def done(self) -> None: ...


class AtTerminal:
    """A person reads every line, so a warning needs no other place than the rest."""

    def __init__(self, terminal: Terminal) -> None:
        self.say = self.warn = terminal.say
        self.progress, self.done = terminal.progress, terminal.done


class LogLines:
    """Sentences as log records; progress bars are for terminals."""

    def say(self, text: str) -> None:
        log.info(text)

    def warn(self, text: str) -> None:
        log.warning(text)

    def progress(self, at: Progress) -> None:
        """A log has no bar; /ready tells."""

    def done(self) -> None:
        """There is no bar to take away."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What every engine of this server shares, the first and those that follow one that died."""

    found: Resolved
    order: EngineOrder
    tokenizer: Tokenizer
    generation: Generation
    chat: ChatTemplate | None


@dataclass(frozen=True, slots=True)
class ListedKeys:
    """Keys from the environment, separated by commas; None: the variable is not set."""

    api: str | None = None
    admin: str | None = None


async def prepare(
    config: Config, access: Access, operator: Operator, report: Report, clock: Stopwatch, profiles: Path, cache: Path
) -> Prepared:
    """Choose the model, download it if need be, and read what the front needs of it. Raises ConfigError.

    profiles: where traces of the engine go, if somebody asks for one. cache: as `serve` has it.
    """

    def progress(at: Progress) -> None:
        report(at.phase, at.done, at.total)
        operator.progress(at)

    try:
        found = await in_daemon_thread(partial(choose, config.model, access, progress))
    finally:
        operator.done()
    clock.lap("model look-up")
    # Whoever promises something about bits waits for the kernels: they round differently from what stands in for them.
    opening: Opening = "open_soon" if config.model.determinism == "off" else "open"
    order = EngineOrder(config, found.name, found.weights, profiles, cache, opening=opening)
    generation = read_generation(found.text_folder)
    tokenizer = await in_daemon_thread(partial(Tokenizer.load, found.text_folder))
    tokenizer.check(order.spec())
    chat = ChatTemplate.load(found.text_folder)
    for note in filter(None, (found.note, generation.note)):
        operator.say(note)
    clock.lap("tokenizer")
    return Prepared(found, order, tokenizer, generation, chat)


def serve(
    config: Config,
    access: Access,
    terminal: Terminal,
    started_ns: int,
    listed: ListedKeys,
    cache: Path,
    ahead: EngineProcess | None,
) -> int:
    """Serve until a signal; the exit code. started_ns: when the process started, as time.perf_counter_ns counts.

    cache: Ridgeline's folder for what it keeps between runs. ahead: the first engine's process, if it was started
    before.
    """
    options = config.server
    logs.configure(options)
    operator: Operator = AtTerminal(terminal) if options.log_format == "text" else LogLines()
    say = operator.say
    keys = _keys(CLIENT, config.clients.api_key_file, listed.api, operator)
    admins = _keys(ADMIN, config.clients.admin_key_file, listed.admin, operator)
    profiles = Path(options.profile_dir) if options.profile_dir is not None else cache / "profiles"
    crashes = CrashReports(cache / "crashes")
    starting = Stopwatch(started_ns)
    starting.lap("python, imports")
    prepared: Prepared | None = None
    asked = itertools.count()

    @contextlib.asynccontextmanager
    async def bring_up(report: Report) -> AsyncIterator[Service]:
        nonlocal prepared
        first = prepared is None
        clock = starting if first else Stopwatch()
        if prepared is None:
            clock.lap("listening")
            prepared = await prepare(config, access, operator, report, clock, profiles.absolute(), cache)
        report("starting the engine", 0, 0)
        recorder: Recorder = chosen("recorder", options.recorder).create()
        channel = make_channel(replace(prepared.order, sink=recorder), ahead if first else None)
        async with running_engine(channel, report) as (engine, info):
            clock.lap("engine process")
            name = config.model.served_model_name or prepared.found.name
            budget = start_budget(clock, info)
            for line in start_log(info, name, budget) if first else [f"the engine is restored; {budget[0]}"]:
                say(line)
            service = Service(
                engine=engine,
                info=info,
                tokenizer=prepared.tokenizer,
                eos_ids=prepared.generation.eos_ids,
                defaults=prepared.generation.defaults,
                name=name,
                root=prepared.found.name,
                created=int(time.time()),
                seed=config.model.seed,
                asked=asked,
                note=prepared.found.note,
                chat=prepared.chat,
                lenient=config.clients.lenient,
                box=BlackBox(recorder),
            )
            yield service
            if engine.failure is not None:
                lost = service.recording(reason="crash", message=engine.failure.message)
                log.error("%s", await in_daemon_thread(partial(crashes.write, lost)))

    # In this process an engine that died may have left memory behind, and a debugger wants to see it die.
    restarts = Restarts(0 if options.in_process else options.engine_restarts)
    app = create_app(bring_up, restarts=restarts, manners=Manners.of(config, keys, admins))
    announce: Callable[[str], None] = lambda url: say(f"listening on {url}")  # noqa: E731
    return run_server(app, options.host, options.port, announce, say, options.drain_timeout)


def _keys(kind: Kind, file: str | None, listed: str | None, operator: Operator) -> Keys:
    """Raises ConfigError."""
    keys, warning = read_keys(Path(file) if file is not None else None, listed, kind)
    if warning is not None:
        operator.warn(warning)
    return keys


def make_channel(order: EngineOrder, ahead: EngineProcess | None) -> Channel:
    make = partial(make_engine, order)
    if order.config.server.in_process:
        return ThreadChannel(make)
    return ProcessChannel(make, ahead or engine_process(order.config))


def start_budget(clock: Stopwatch, info: EngineInfo) -> list[str]:
    """Where the time to ready went: the total, then a line an item; the items add up to it.

    What the engine's process imported beside the front counts only as far as the front waited for it; how long it took
    in all is the last line.
    """
    started = dict(info.start_ms)
    started[_IMPORT] = started.get(_IMPORT, 0.0) + info.ahead_waited_ms
    rest_ms = max(0.0, clock.laps_ms["engine process"] - sum(started.values()))
    laps_ms = clock.laps_ms | {"engine process": rest_ms} | started
    budget = [f"ready after {clock.total_ms / 1000:.2f} s", *budget_table(laps_ms, clock.total_ms)]
    if info.ahead_ms:
        beside_s, waited_s = (info.ahead_ms - info.ahead_waited_ms) / 1000, info.ahead_waited_ms / 1000
        budget.append(
            f"the engine's process took {info.ahead_ms / 1000:.2f} s to start and import torch: {beside_s:.2f} s of it "
            f"beside the lines above, {waited_s:.2f} s as '{_IMPORT}'"
        )
    return budget


def start_log(info: EngineInfo, name: str, budget: Sequence[str]) -> list[str]:
    """What was started, what it costs in memory, and where the time to ready went."""
    return [
        *info.notes,
        f"model '{name}' in {info.dtype} on {info.device}; batching: {info.batching}",
        info.memory_plan,
        *budget,
    ]
