"""A live server on 127.0.0.1 around the real engine and scheduler, with a runner that recites a text.

Tokens are bytes, so every character that is not ASCII is cut in pieces. `gate` holds the engine between steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import OpenAI
from starlette.routing import Route
from starlette.types import ASGIApp
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from ridgeline.core.errors import ConfigError
from ridgeline.core.params import SamplingParams
from ridgeline.core.profile import PlaceTime
from ridgeline.core.types import Output, Plan, Sampling
from ridgeline.engine.blackbox import BlackBox
from ridgeline.engine.channel import Report, ThreadChannel
from ridgeline.engine.client import EngineClient
from ridgeline.engine.engine import Engine
from ridgeline.engine.messages import Abort, EngineInfo, In
from ridgeline.engine.profiling import NoProfiler, Profiler, Profiling
from ridgeline.engine.recorder import FlightRecorder, Recorder
from ridgeline.engine.supervisor import Restarts
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import NoPrefix
from ridgeline.scheduler.policies import Continuous, Policy
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from ridgeline.server.app import create_app
from ridgeline.server.auth import ADMIN, read_keys
from ridgeline.server.front import BringUp
from ridgeline.server.manners import Manners
from ridgeline.server.readiness import Readiness
from ridgeline.server.serve import Server
from ridgeline.server.service import Service, running_engine
from ridgeline.text.chat import ChatTemplate
from ridgeline.text.tokenizer import Tokenizer, byte_alphabet
from tests.scripted import Launched, ScriptedRunner, _Seat, choose, mix

EOS = 256
MAX_LEN = 256
SLOTS, BLOCK_SIZE, NUM_BLOCKS = 16, 16, 256
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SCORED = tuple(range(257))
LETTERS = SCORED[0x61:0x7B]
TEXT = "Grüße, 世界! 🙂 Once upon a time there was a server. END of the tale. "


def byte_level_tokenizer() -> Tokenizer:
    """Ids 0 to 255 are bytes; EOS has no text."""
    library = Library(models.BPE(vocab=byte_alphabet(), merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Tokenizer(library, None, [bytes([byte]) for byte in range(256)] + [b""])


class Reciter(ScriptedRunner):
    """Greedy requests get the tokens of `script`, round and round; others get letters, as ScriptedRunner makes tokens.

    rows: of each launch so far; samplings: of each request that joined. hold() before a launch is collected, let(n) to
    allow n of them, open() to go on; collecting: set when a launch has to wait. fail: the next launch raises. step_s:
    what a launch takes at least.
    """

    def __init__(self, script: Sequence[int] = TEXT.encode(), num_blocks: int = NUM_BLOCKS) -> None:
        super().__init__(
            slots=SLOTS, max_len=MAX_LEN, num_blocks=num_blocks, block_size=BLOCK_SIZE,
            vocabulary=SCORED,
        )  # fmt: skip
        self.script, self.num_blocks = script, num_blocks
        self._allowed = threading.Semaphore(0)
        self._held = False
        self.collecting = threading.Event()
        self.rows: list[int] = []
        self.samplings: list[Sampling] = []
        self.fail = False
        self.step_s = 0.0

    def hold(self) -> None:
        self._held = True

    def let(self, steps: int) -> None:
        for _ in range(steps):
            self._allowed.release()

    def open(self) -> None:
        self._held = False
        self._allowed.release()

    def collect(self, launched: Launched) -> Output:
        if self._held and not self._allowed.acquire(blocking=False):
            self.collecting.set()
            assert self._allowed.acquire(timeout=20), "the test left the engine waiting"
        return super().collect(launched)

    def launch(self, plan: Plan) -> Launched:
        if self.fail:
            raise RuntimeError("the device fell off the bus")
        time.sleep(self.step_s)
        self.rows.append(len(plan.rows))
        self.samplings += [join.sampling for join in plan.joins]
        return super().launch(plan)

    def _sample(self, seat: _Seat) -> int:
        sampling = seat.join.sampling
        if sampling.temperature > 0:
            token = choose(seat.chain[-1], seat.made, sampling, LETTERS)
        else:
            token = self.script[seat.made % len(self.script)]
        seat.ids.append(token)
        seat.chain.append(mix(seat.chain[-1], token))
        seat.over = token in sampling.stop_ids or seat.length >= seat.join.limit
        return token


ADMIN_SECRET = "an-operators-secret"
ADMINS, _ = read_keys(None, f"operator:{ADMIN_SECRET}", ADMIN)


class ScriptedRecorder:
    """Writes what it is told to write. calls: what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail_start: Exception | None = None
        self.fail_stop: Exception | None = None

    def start(self, *, shapes: bool) -> None:
        self.calls.append("start with shapes" if shapes else "start")
        if self.fail_start is not None:
            raise self.fail_start

    def stop(self, path: Path) -> tuple[PlaceTime, ...]:
        self.calls.append("stop")
        if self.fail_stop is not None:
            raise self.fail_stop
        path.write_bytes(b"trace")
        return PlaceTime("qkv", "qkv", 24, 3_000_000, None), PlaceTime("head", "head", 2, 1_000_000, None)

    def drop(self) -> None:
        self.calls.append("drop")


class WatchedChannel(ThreadChannel):
    """aborted: a key for every Abort that was sent."""

    aborted: queue.SimpleQueue[int]

    def send(self, message: In) -> None:
        super().send(message)
        if isinstance(message, Abort):
            self.aborted.put(message.key)


@dataclass
class Stage:
    """What a test may reach behind the server. budget: tokens of a step; a prompt that is longer comes in chunks."""

    runner: Reciter = field(default_factory=Reciter)
    policy: Policy = field(default_factory=Continuous)
    budget: int = SLOTS * MAX_LEN
    flight: Recorder = field(default_factory=FlightRecorder.create)
    release: threading.Event = field(default_factory=threading.Event)  # the model may be loaded
    ready: threading.Event = field(default_factory=threading.Event)
    broken: str | None = None  # why the engine cannot start
    tokenizer: Tokenizer = field(default_factory=byte_level_tokenizer)
    chat: ChatTemplate | None = field(default_factory=lambda: ChatTemplate(CHAT_TEMPLATE))
    lenient: bool = False
    recorder: ScriptedRecorder = field(default_factory=ScriptedRecorder)
    profiles: Path | None = None
    client: EngineClient | None = None
    aborted: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)

    def make(self, report: Report) -> tuple[Engine, EngineInfo]:
        report("loading weights", 1, 4)
        assert self.release.wait(20)
        if self.broken is not None:
            raise ConfigError(self.broken)
        ledger = Ledger(
            slots=SLOTS, max_len=MAX_LEN, num_blocks=self.runner.num_blocks, block_size=BLOCK_SIZE, prefix=NoPrefix()
        )  # fmt: skip
        scheduler = Scheduler(self.policy, ledger, SchedulerLimits(SLOTS, MAX_LEN, budget=self.budget))
        profiler: Profiler = NoProfiler()
        if self.profiles is not None:
            profiler = Profiling(self.recorder, self.profiles, time.perf_counter_ns)
        engine = Engine(scheduler, self.runner, time.perf_counter_ns, self.flight, profiler=profiler)
        return engine, EngineInfo(
            model="scripted", dtype="none", device="cpu", max_model_len=MAX_LEN, vocab=257, block_size=BLOCK_SIZE,
            num_blocks=self.runner.num_blocks, kv_block_bytes=1000, weight_bytes=0, memory_plan="",
            batching="continuous", notes=(), start_ms={},
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def bring_up(self, report: Report) -> AsyncIterator[Service]:
        channel = WatchedChannel(self.make)
        channel.aborted = self.aborted
        async with running_engine(channel, report) as (client, info):
            self.client = client
            asyncio.get_running_loop().call_soon(self.ready.set)  # after what follows the yield
            yield Service(
                engine=client, info=info, tokenizer=self.tokenizer, eos_ids=(EOS,),
                defaults=SamplingParams(), name="recite", root="acme/recite-1b", created=1700000000,
                chat=self.chat, lenient=self.lenient, box=BlackBox(self.flight),
            )  # fmt: skip


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Live:
    url: str
    server: Server
    stage: Stage
    exit_codes: list[int]
    thread: threading.Thread

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=self.url + "/v1", api_key="unused", max_retries=0, timeout=20)

    def fetch(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        kind: str = "application/json",
        **more: str,
    ) -> Reply:
        """more: headers, with _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        with contextlib.closing(connection):
            headers = {"content-type": kind} | {name.replace("_", "-"): value for name, value in more.items()}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, got, response.read())

    def wait(self) -> int:
        """The exit code, once the server has ended by itself."""
        self.thread.join(10)
        assert self.exit_codes, "the server is still running"
        return self.exit_codes[0]


@contextlib.contextmanager
def serving(
    stage: Stage | None = None,
    *,
    bring_up: BringUp | None = None,
    readiness: Readiness | None = None,
    restarts: Restarts | None = None,
    say: Callable[[str], None] | None = None,
    drain_s: float = 20.0,
    manners: Manners | None = None,
    loaded: bool = True,
    routes: Sequence[Route] = (),
    around: Callable[[ASGIApp], ASGIApp] | None = None,
) -> Iterator[Live]:
    """A server in a thread, listening; loaded: and ready. Without manners ADMIN_SECRET opens the operator's routes.

    routes: before its own. around: an ASGI middleware outside of everything of ours.
    """
    stage = stage or Stage()
    listening = threading.Event()
    app = create_app(bring_up or stage.bring_up, readiness, restarts, manners or Manners(admins=ADMINS))
    app.router.routes[:0] = routes
    if around is not None:
        app.add_middleware(around)
    server = Server(app, "127.0.0.1", 0, lambda _url: listening.set(), say, drain_s)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(server.run()), daemon=True)
    thread.start()
    try:
        assert listening.wait(10)
        live = Live(server.url, server, stage, codes, thread)
        if loaded:
            stage.release.set()
            assert stage.ready.wait(10)
        yield live
    finally:
        stage.release.set()
        stage.runner.open()
        server.stop()
        thread.join(10)
        assert not thread.is_alive(), "the server does not stop"
