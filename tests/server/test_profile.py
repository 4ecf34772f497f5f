"""/v1/profile: who may ask, one trace at a time, its bounds, and what is said where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import json
import os
import queue
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.types import NewRequest, Sampling
from ridgeline.device.trace import has_nvtx
from ridgeline.engine.channel import ProcessChannel
from ridgeline.engine.client import EngineClient
from ridgeline.engine.loop import EngineLoop, Inbox
from ridgeline.engine.messages import AskProfile, Out, Profiled, Submit, decode_in, decode_out, encode
from ridgeline.engine.profiling import KEPT, NoProfiler, Profiling
from ridgeline.engine.supervisor import Restarts
from ridgeline.runner.places import HOST, REGION_OF
from ridgeline.server.auth import ADMIN, Keys, read_keys
from ridgeline.server.manners import Manners
from tests.engine.engines import BLOCK_SIZE, MAX_LEN, NUM_BLOCKS, SLOTS, Raising, engine_with, scripted_runner
from tests.server.live import ADMIN_SECRET, ADMINS, Live, Reply, ScriptedRecorder, Stage, serving
from tests.tiny_gpt2 import write_tiny_gpt2

CLIENT_SECRET = "a-clients-secret"
CLIENTS, _ = read_keys(None, f"alice:{CLIENT_SECRET}")
SECOND = 1_000_000_000


def profile(live: Live, secret: str = ADMIN_SECRET, **fields: Any) -> Reply:
    method, body = ("POST", json.dumps(fields).encode()) if fields else ("GET", None)
    if not secret:
        return live.fetch("/v1/profile", method, body)
    return live.fetch("/v1/profile", method, body, authorization=f"Bearer {secret}")


def make_steps(live: Live, tokens: int) -> None:
    live.openai.completions.create(model="recite", prompt="a", max_tokens=tokens, temperature=0)


# Who may ask.


@pytest.mark.parametrize(
    ("clients", "admins", "statuses"),
    [
        (Keys(), Keys(), (403, 403, 403)),
        (CLIENTS, Keys(), (401, 403, 401)),
        (Keys(), ADMINS, (401, 401, 200)),
        (CLIENTS, ADMINS, (401, 403, 200)),
    ],
    ids=["no keys", "clients", "admins", "both"],
)
def test_only_an_admin_key_opens_it(clients: Keys, admins: Keys, statuses: tuple[int, ...], tmp_path: Path) -> None:
    stage = Stage(profiles=tmp_path)
    with serving(stage, manners=Manners(keys=clients, admins=admins)) as live:
        for secret, status in zip(("", CLIENT_SECRET, ADMIN_SECRET), statuses, strict=True):
            for reply in (profile(live, secret), profile(live, secret, action="stop"), profile(live, secret, x=1)):
                if status == 200:
                    assert reply.status in (200, 400, 409)
                    continue
                assert reply.status == status
                error = reply.json["error"]
                assert error["code"] == ("invalid_api_key" if status == 401 else "admin_key_required")
                assert ("RIDGELINE_ADMIN_KEYS" in error["message"]) == (status == 403 and not admins)
        assert stage.recorder.calls == []
        # What an admin key is worth elsewhere, and that admin keys alone close nothing else.
        assert live.fetch("/v1/models", authorization=f"Bearer {ADMIN_SECRET}").status == (
            401 if clients and not admins else 200
        )
        assert live.fetch("/v1/models").status == (401 if clients else 200)


def test_a_secret_cannot_be_of_both_kinds(tmp_path: Path) -> None:
    same, _ = read_keys(None, CLIENT_SECRET, ADMIN)
    with pytest.raises(ConfigError, match="both an API key and an admin key"):
        Manners.of(Config.of(), CLIENTS, same)
    namesake, _ = read_keys(None, "alice:another-secret", ADMIN)
    with pytest.raises(ConfigError, match="same name"):
        Manners.of(Config.of(), CLIENTS, namesake)
    file = tmp_path / "keys"
    file.write_text("# nobody\n")
    with pytest.raises(ConfigError, match="--admin-key-file"):
        read_keys(file, None, ADMIN)
    with pytest.raises(ConfigError, match="RIDGELINE_ADMIN_KEYS"):
        read_keys(None, "", ADMIN)
    unnamed, _ = read_keys(None, "an-api-secret")
    Manners.of(Config.of(), unnamed, read_keys(None, "an-admin-secret", ADMIN)[0])


# What is done.


@pytest.fixture
def open_live(tmp_path: Path) -> Iterator[Live]:
    with serving(Stage(profiles=tmp_path / "new" / "profiles")) as live:
        yield live


def test_a_profile_begins_and_ends(open_live: Live) -> None:
    recorder, folder = open_live.stage.recorder, open_live.stage.profiles
    assert profile(open_live).json["status"] == "idle"
    assert profile(open_live, action="stop").status == 409
    begun = profile(open_live, action="start", max_seconds=200, shapes=True)
    assert begun.status == 200
    assert (begun.json["status"], begun.json["max_seconds"], begun.json["max_steps"]) == ("running", 200, 100)
    again = profile(open_live, action="start")
    assert (again.status, again.json["error"]["code"]) == (409, "profile_conflict")
    make_steps(open_live, 2)
    assert profile(open_live).json["steps"] == 2
    done = profile(open_live, action="stop")
    assert done.status == 200
    assert recorder.calls == ["start with shapes", "stop"]
    trace = done.json
    assert folder is not None
    assert Path(trace["path"]).parent == folder
    assert Path(trace["path"]).read_bytes() == b"trace"
    assert (trace["bytes"], trace["steps"], trace["ended"]) == (5, 2, "stop")
    assert [place["share"] for place in trace["places"]] == [0.75, 0.25]
    assert trace["places"][0]["calls_per_step"] == 12
    assert profile(open_live).json["last"] == trace
    assert profile(open_live, action="stop").status == 409


def test_it_ends_by_itself_and_the_next_stop_says_where_it_lies(open_live: Live) -> None:
    assert profile(open_live, action="start", max_steps=3).status == 200
    make_steps(open_live, 8)
    state = profile(open_live).json
    assert (state["status"], state["last"]["steps"], state["last"]["ended"]) == ("idle", 3, "max_steps")
    assert profile(open_live, action="stop").json == state["last"]
    assert profile(open_live, action="stop").status == 409


def test_an_idle_engine_ends_it_in_time(open_live: Live) -> None:
    assert profile(open_live, action="start", max_seconds=0.05).status == 200
    deadline = time.monotonic() + 30
    while profile(open_live).json["status"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert profile(open_live, action="stop").json["ended"] == "max_seconds"


def test_what_cannot_be_recorded_or_written_is_said_and_leaves_the_engine_well(open_live: Live) -> None:
    recorder = open_live.stage.recorder
    recorder.fail_start = RuntimeError("the hardware is taken")
    reply = profile(open_live, action="start")
    assert (reply.status, "the hardware is taken" in reply.json["error"]["message"]) == (503, True)
    recorder.fail_start = None
    recorder.fail_stop = OSError(28, "No space left on device")
    assert profile(open_live, action="start").status == 200
    reply = profile(open_live, action="stop")
    assert (reply.status, "No space left" in reply.json["error"]["message"]) == (503, True)
    assert "No space left" in profile(open_live).json["error"]
    recorder.fail_stop = None
    make_steps(open_live, 2)
    assert profile(open_live, action="start").status == 200
    assert profile(open_live, action="stop").status == 200


def test_an_engine_that_dies_takes_its_profile_with_it(tmp_path: Path) -> None:
    stage = Stage(profiles=tmp_path)
    with serving(stage, restarts=Restarts(3, first_delay_s=0.0)) as live:
        assert profile(live, action="start").status == 200
        first = stage.client
        stage.ready.clear()
        stage.runner.fail = True
        with pytest.raises(Exception, match="engine"):
            make_steps(live, 2)
        stage.runner.fail = False
        assert stage.ready.wait(20)
        assert stage.client is not first
        reply = profile(live, action="stop")
        assert (reply.status, reply.json["error"]["code"]) == (409, "profile_lost")
        assert "lost" in reply.json["error"]["message"]
        assert profile(live).json["status"] == "idle"


def test_an_engine_without_a_profiler_says_so() -> None:
    with serving(Stage()) as live:
        reply = profile(live, action="start")
        assert (reply.status, "without a profiler" in reply.json["error"]["message"]) == (409, True)


# The bounds, with a clock of the test's own.


class Clock:
    def __init__(self) -> None:
        self.now_ns = 5 * SECOND

    def __call__(self) -> int:
        return self.now_ns


def ask(profiling: Profiling, action: Any, **more: Any) -> Profiled:
    return profiling.answer(AskProfile(1, action, **more))


def test_the_bounds(tmp_path: Path) -> None:
    clock = Clock()
    profiling = Profiling(ScriptedRecorder(), tmp_path, clock)
    assert profiling.wake_ns is None
    ask(profiling, "start", max_seconds=2.0, max_steps=3)
    assert profiling.wake_ns == 7 * SECOND
    clock.now_ns += 2 * SECOND - 1
    profiling.turn(stepped=False)
    assert ask(profiling, "state").running
    clock.now_ns += 1
    profiling.turn(stepped=True)
    state = ask(profiling, "state")
    assert state.made is not None
    assert (state.running, state.made.ended, state.made.steps, state.made.seconds) == (False, "max_seconds", 1, 2.0)
    assert profiling.wake_ns is None
    ask(profiling, "start", max_seconds=2.0, max_steps=3)
    assert ask(profiling, "state").made is None
    for stepped in (True, False, True, True):
        assert ask(profiling, "state").running
        profiling.turn(stepped=stepped)
    assert not ask(profiling, "state").running


def test_the_newest_are_kept_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    days = iter(range(1, 20))
    today = lambda: datetime.datetime(2026, 1, next(days), tzinfo=datetime.UTC)  # noqa: E731
    (tmp_path / "profile-of-a-friend.json.gz").write_bytes(b"")
    (tmp_path / "thesis.txt").write_bytes(b"")
    profiling = Profiling(ScriptedRecorder(), tmp_path, Clock(), today)
    for _ in range(KEPT + 3):
        ask(profiling, "start", max_seconds=1.0, max_steps=9)
        ask(profiling, "stop")
    ours = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("profile-2026"))
    assert [name[:16] for name in ours] == [f"profile-202601{day:02}" for day in range(4, KEPT + 4)]
    assert len(list(tmp_path.iterdir())) == KEPT + 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="who may write everywhere sees no refusal")
def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused = ask(Profiling(ScriptedRecorder(), tmp_path, Clock()), "start", max_seconds=1.0, max_steps=9)
    assert refused.refusal is not None
    assert str(tmp_path) in refused.refusal


def test_a_folder_that_is_a_file_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    recorder = ScriptedRecorder()
    refused = ask(Profiling(recorder, tmp_path / "file", Clock()), "start", max_seconds=1.0, max_steps=9)
    assert refused.refusal is not None
    assert recorder.calls == []


def test_the_loop_answers_and_counts_and_its_messages_cross_the_boundary(tmp_path: Path) -> None:
    inbox: Inbox = queue.SimpleQueue()
    engine = engine_with(scripted_runner())
    engine.profiler = Profiling(ScriptedRecorder(), tmp_path, engine.clock)
    answers: list[Profiled] = []

    def deliver(message: Out) -> None:
        crossed = decode_out(encode(message))
        if isinstance(crossed, Profiled):
            answers.append(crossed)
            if len(answers) == 1:
                request = NewRequest(7, np.array([1, 2], np.int32), 4, Sampling(), engine.clock())
                inbox.put(Submit.of(request))
        elif crossed.ends:  # type: ignore[union-attr]
            inbox.put(decode_in(encode(AskProfile(3, "stop"))))
            inbox.put(None)

    inbox.put(decode_in(encode(AskProfile(2, "start", 60.0, 50, True))))
    EngineLoop(engine, inbox, deliver).run()
    assert [answer.id for answer in answers] == [2, 3]
    assert answers[0].running
    assert answers[1].made is not None
    assert answers[1].made.steps == 4
    assert answers[1].made.places[0].place == "qkv"
    assert NoProfiler().answer(AskProfile(4, "start")).refusal


@pytest.mark.parametrize("raises", [False, True], ids=["closed", "a step raises"])
def test_a_loop_that_ends_ends_the_profile(raises: bool, tmp_path: Path) -> None:
    """torch's profiler must not run while the process ends."""
    inbox: Inbox = queue.SimpleQueue()
    broken = Raising(slots=SLOTS, max_len=MAX_LEN, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
    engine, recorder = engine_with(broken if raises else scripted_runner()), ScriptedRecorder()
    engine.profiler = Profiling(recorder, tmp_path, engine.clock)
    inbox.put(AskProfile(2, "start", 60.0, 50))
    if raises:
        inbox.put(Submit.of(NewRequest(7, np.array([1, 2], np.int32), 8, Sampling(), engine.clock())))
    else:
        inbox.put(None)
    with pytest.raises(RuntimeError) if raises else contextlib.nullcontext():
        EngineLoop(engine, inbox, lambda _message: None).run()
    assert recorder.calls == ["start", "drop"]
    assert list(tmp_path.iterdir()) == []
    engine.profiler.close()
    assert recorder.calls == ["start", "drop"]


def test_ranges_for_nsys_are_refused_before_anything_is_loaded_where_torch_has_none() -> None:
    if has_nvtx():
        pytest.skip("this machine has NVTX")
    phases: list[str] = []
    order = EngineOrder(Config.of(random_weights="gpt2", nvtx=True), "gpt2", None)
    with pytest.raises(ConfigError, match="NVTX"):
        make_engine(order, lambda phase, _done, _total: phases.append(phase))
    assert "loading weights" not in phases


# The whole, with tensors and a process of its own.


async def one_profile(order: EngineOrder) -> Profiled:
    client = EngineClient(ProcessChannel(partial(make_engine, order)))
    client.start()
    try:
        info = await client.ready()
        await client.profile("start", max_seconds=60.0, max_steps=50)
        stream = client.submit(np.arange(8, dtype=np.int32), 5, Sampling(temperature=0.0))
        while (await stream.receive()).end is None:
            pass
        assert info.device
        return await client.profile("stop")
    finally:
        client.close()


def test_an_engine_process_yields_a_trace_with_the_places(tmp_path: Path) -> None:
    weights = write_tiny_gpt2(tmp_path / "tiny", layers=2)
    config = Config.of(model=str(weights), kv_memory="16MiB", device="cpu")
    done = asyncio.run(one_profile(EngineOrder(config, "tiny", weights, tmp_path / "profiles")))
    made = done.made
    assert done.refusal is None
    assert made is not None
    assert made.steps == 5
    in_blocks = ("norm_1", "qkv", "attention", "attn_out", "norm_2", "mlp_in", "mlp_out")
    assert {place.place: place.calls for place in made.places} == {
        place: 5 * (2 if place in in_blocks else 1) for place in REGION_OF if place != HOST
    }
    with gzip.open(made.path) as file:
        events = json.load(file)["traceEvents"]
    named = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
    assert named["attention"] == 10
    assert Path(made.path).stat().st_size == made.bytes
