"""The online face: hub, tokenizer, engine and HTTP joined into a serving process. Loads no torch; holds no state.

The server answers from its first moment; what is slow (a download, the engine's start) happens behind it and is
reported on /ready, a download also on the terminal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.checkpoint import read_generation
from ridgeline.core.config import Config
from ridgeline.core.progress import Progress
from ridgeline.engine.channel import Channel, ProcessChannel, Report, ThreadChannel
from ridgeline.engine.messages import EngineInfo
from ridgeline.hub import Access, choose
from ridgeline.server.app import create_app
from ridgeline.server.daemon import in_daemon_thread
from ridgeline.server.readiness import PROBE_TIMEOUT_S, Readiness
from ridgeline.server.serve import run_server
from ridgeline.server.service import Service, running_engine
from ridgeline.terminal import Terminal
from ridgeline.text.chat import ChatTemplate
from ridgeline.text.tokenizer import Tokenizer


def serve(config: Config, access: Access, terminal: Terminal, started: float) -> int:
    """Serve until a signal; the exit code. started: time.perf_counter() at entry."""
    say = terminal.say

    @contextlib.asynccontextmanager
    async def bring_up(report: Report) -> AsyncIterator[Service]:
        def progress(at: Progress) -> None:
            report(at.phase, at.done, at.total)
            terminal.progress(at)

        try:
            found = await in_daemon_thread(partial(choose, config.model, access, progress))
        finally:
            terminal.done()
        report("starting the engine", 0, 0)
        order = EngineOrder(config, found.name, found.weights)
        generation = read_generation(found.text_folder)
        tokenizer = await in_daemon_thread(partial(Tokenizer.load, found.text_folder))
        tokenizer.check(order.spec())
        chat = ChatTemplate.load(found.text_folder)
        for note in filter(None, (found.note, generation.note)):
            say(note)
        channel = make_channel(order)
        async with running_engine(channel, report) as (engine, info):
            name = config.model.served_model_name or found.name
            for line in start_log(info, name, time.perf_counter() - started):
                say(line)
            yield Service(
                engine=engine,
                info=info,
                tokenizer=tokenizer,
                eos_ids=generation.eos_ids,
                defaults=generation.defaults,
                name=name,
                root=found.name,
                created=int(time.time()),
                seed=config.model.seed,
                note=found.note,
                chat=chat,
                lenient=config.server.lenient,
            )

    app = create_app(bring_up, Readiness(timeout_s=PROBE_TIMEOUT_S + longest_window_s(config)))
    return run_server(app, config.server.host, config.server.port, lambda url: say(f"listening on {url}"))


def longest_window_s(config: Config) -> float:
    """How long a policy may keep a lone request back: the probe for readiness waits in the same queue."""
    return config.batching.batch_window_ms / 1000


def make_channel(order: EngineOrder) -> Channel:
    make = partial(make_engine, order)
    return ThreadChannel(make) if order.config.server.in_process else ProcessChannel(make)


def start_log(info: EngineInfo, name: str, total_s: float) -> list[str]:
    """What was started, what it costs in memory, and where the time to ready went."""
    laps = ", ".join(f"{lap} {ms / 1000:.2f} s" for lap, ms in info.start_ms.items())
    return [
        *info.notes,
        f"model '{name}' in {info.dtype} on {info.device}; batching: {info.batching}",
        info.memory_plan,
        f"ready after {total_s:.2f} s ({laps})",
    ]
