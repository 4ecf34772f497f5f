"""`ridgeline serve` as a user runs it: a process, real sockets, the bundled model, a signal at the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.tiny_gpt2 import write_tiny_gpt2

START_S = 120


class Served:
    """A running server; `log` grows as it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.log = process, ""
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log += line
                self._changed.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        found: list[re.Match[str]] = []

        def there() -> bool:
            found.extend(filter(None, [re.search(pattern, self.log)]))
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(there, START_S), f"no {pattern!r} in:\n{self.log}"
        return found[0]

    @property
    def url(self) -> str:
        return self.wait_for(r"listening on (http://\S+)")[1]


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "ridgeline", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield Served(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def post(url: str, body: dict[str, object], path: str = "/v1/completions") -> str:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def streamed_text(answer: str) -> str:
    chunks = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["text"] for chunk in chunks)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_the_bundled_model_is_served_by_a_front_without_torch() -> None:
    begun = time.monotonic()
    with served("--model", "demo", "--kv-memory", "256MiB") as server:
        url = server.url
        total = float(server.wait_for(r"ready after ([\d.]+) s")[1])
        server.wait_for(r"\n  other .* s\n")
        whole, beside, waited = map(float, server.wait_for(
            r"took ([\d.]+) s to start and import torch: ([\d.]+) s of it beside .*, ([\d.]+) s as 'import torch'"
        ).groups())  # fmt: skip
        assert whole == pytest.approx(beside + waited, abs=0.011)
        items = re.findall(r"^  (\S.*?) +(-?[\d.]+) s$", server.log, re.MULTILINE)
        assert {"python, imports", "model look-up", "tokenizer", "engine process", "import torch", "load weights"} <= {
            name for name, _ in items
        }
        assert sum(float(seconds) for _, seconds in items) == pytest.approx(total, abs=0.001)
        assert 0 < total < 0.1 + time.monotonic() - begun
        ask = {"prompt": "It was a dark night, and", "max_tokens": 24, "seed": 5, "stream": True}
        text = streamed_text(post(url, ask))
        assert len(text.split()) > 8
        assert text.isascii() or text.isprintable()
        assert streamed_text(post(url, ask)) == text
        port = url.rsplit(":", 1)[1]
        for host in ["127.0.0.1", *(["[::1]"] if has_ipv6() else [])]:
            with urllib.request.urlopen(f"http://{host}:{port}/ready", timeout=30) as ready:
                assert json.load(ready) == {"status": "ready"}
        if sys.platform == "linux":
            maps = Path(f"/proc/{server.process.pid}/maps").read_text()
            assert "libpython" in maps or "python" in maps
            assert "torch" not in maps
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log


def test_the_engine_can_share_the_process_and_a_template_makes_conversations(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}{{ eos_token }}")
    with served(
        "--model", str(folder), "--in-process", "--kv-memory", "16MiB", "--served-model-name", "mine", "--lenient"
    ) as server:
        answer = server.wait_for(r"model '(\w+)' in \w+ on")
        assert answer[1] == "mine"
        server.wait_for("ready after")
        assert json.loads(post(server.url, {"model": "mine", "prompt": "the river", "max_tokens": 3}))["choices"]
        ask = {"messages": [{"role": "user", "content": "the river"}], "max_tokens": 3, "return_token_ids": True}
        answer_to_chat = json.loads(post(server.url, ask | {"unknown_to_us": 1}, "/v1/chat/completions"))
        (choice,) = answer_to_chat["choices"]
        assert choice["message"]["role"] == "assistant"
        end = 0  # the template's own end of text is one token, not thirteen characters
        assert choice["prompt_token_ids"][-1] == end
        assert answer_to_chat["usage"]["prompt_tokens"] == len(choice["prompt_token_ids"])
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0


def test_keys_come_from_the_environment_and_the_log_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_API_KEYS", "alice:a-secret-of-mine")
    monkeypatch.setenv("RIDGELINE_ADMIN_KEYS", "operator:an-operators-secret")
    folder = write_tiny_gpt2(tmp_path / "tiny")
    with served("--model", str(folder), "--kv-memory", "16MiB", "--log-format", "json") as server:
        server.wait_for("ready after")
        url = server.wait_for(r"listening on (http://localhost:\d+)")[1]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(url, {"prompt": "the river", "max_tokens": 3})
        headers = {"Authorization": "Bearer a-secret-of-mine"}
        with urllib.request.urlopen(urllib.request.Request(url + "/metrics", headers=headers), timeout=30) as answer:
            assert b"ridgeline_queued_requests_limit 1024.0" in answer.read()
        server.wait_for('"path":"/metrics"')
        headers = {"Authorization": "Bearer an-operators-secret"}
        with urllib.request.urlopen(urllib.request.Request(url + "/v1/profile", headers=headers), timeout=30) as answer:
            assert json.load(answer)["status"] == "idle"
        server.wait_for('"path":"/v1/profile"')
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        lines = [json.loads(line) for line in server.log.splitlines()]
        requests = [line for line in lines if line["message"] == "request"]
        assert [(line["status"], line.get("key")) for line in requests] == [
            (401, None),
            (200, "alice"),
            (200, "operator"),
        ]
        assert requests[0]["error"] == "invalid_api_key"
        assert "a-secret-of-mine" not in server.log


def test_a_server_that_cannot_start_says_why_and_leaves(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    with served("--model", str(folder), "--kv-memory", "1KiB") as server:
        assert server.process.wait(START_S) == 1
        server.wait_for("the KV cache is too small")
        assert "Traceback" not in server.log


def test_ctrl_c_while_the_engine_starts_ends_at_once(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    with served("--model", str(folder)) as server:
        assert server.url
        start = time.monotonic()
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does: the engine's process gets it too
        assert server.process.wait(30) == 0
        assert time.monotonic() - start < 10
        assert "Traceback" not in server.log


def left_behind(front: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes of a front that has ended that do not end within three seconds: they would by themselves after five."""
    group = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            group += [process] if os.getpgid(process.pid) == front.pid else []
    alive: list[psutil.Process] = psutil.wait_procs(group, timeout=3)[1]
    return alive


@pytest.mark.skipif(os.name != "posix", reason="there are no groups of processes to look for")
def test_an_engine_that_was_started_ahead_ends_with_a_front_that_cannot_serve() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with served("--model", "demo", "--host", "127.0.0.1", "--port", port) as server:
            assert server.process.wait(START_S) == 2
            server.wait_for(f"--port {port}: in use")
            assert left_behind(server.process) == []
    with served("--model", "./nowhere") as server:
        assert server.process.wait(START_S) == 1
        server.wait_for("no such directory")
        assert left_behind(server.process) == []


@pytest.mark.skipif(os.name != "posix", reason="there are no groups of processes to signal")
def test_ctrl_c_before_the_front_listens_leaves_no_engine_behind() -> None:
    with served("--model", "demo") as server:
        front = psutil.Process(server.process.pid)
        while not front.children():  # the engine's process is started before anything that takes time
            assert server.process.poll() is None
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(30) in (0, 1, 130), "0: it listened already; 1: the command line's, for an abort"
        assert left_behind(server.process) == []
        assert "Traceback" not in server.log


@pytest.mark.parametrize("model", ["no-such-model", "./nowhere"])
def test_a_model_asked_for_by_name_never_becomes_another(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with served("--model", model) as server:
        assert server.process.wait(START_S) == 1
        server.wait_for(re.escape(model))
        assert "demo" not in server.log.replace("or demo", "").replace("'demo'", "")


def test_without_a_name_and_a_network_the_demo_is_served_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with served("--kv-memory", "64MiB") as server:
        server.wait_for("the small bundled model 'demo' is served instead")
        server.wait_for("ready after")
        with urllib.request.urlopen(server.url + "/v1/models", timeout=30) as answer:
            model = json.load(answer)["data"][0]
        assert model["id"] == "demo"
        assert "gpt2" in model["ridgeline"]["note"]


def test_an_idle_server_with_a_long_window_is_ready(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    with served(
        "--model", str(folder), "--kv-memory", "16MiB", "--batching", "dynamic", "--batch-window-ms", "60000"
    ) as server:  # fmt: skip
        server.wait_for("ready after")
        with urllib.request.urlopen(server.url + "/ready", timeout=30) as answer:
            assert json.load(answer) == {"status": "ready"}


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_an_engine_process_that_is_killed_is_started_again(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    with served("--model", str(folder), "--kv-memory", "16MiB") as server:
        server.wait_for("ready after")
        engine_of(server.process.pid).kill()
        server.wait_for("the engine process ended with code -9")
        server.wait_for("the engine is restored; ready after")
        assert json.loads(post(server.url, {"prompt": "the river", "max_tokens": 3}))["choices"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def engine_of(front_pid: int) -> psutil.Process:
    """The child that holds torch: of a spawn's two children, the other one tracks resources."""
    return max(psutil.Process(front_pid).children(), key=lambda child: child.memory_info().rss)


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def test_an_idle_server_uses_less_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    with served("--model", str(folder), "--kv-memory", "16MiB") as server:
        server.wait_for("ready after")
        front = psutil.Process(server.process.pid)
        both = [front, engine_of(front.pid)]  # and not a compiler that is about to end
        shares: list[float] = []
        while len(shares) < 3:  # the first windows may hold what is left of the start
            begun_s, before_s = time.monotonic(), cpu_s(both)
            time.sleep(5)
            shares.append((cpu_s(both) - before_s) / (time.monotonic() - begun_s))
            if shares[-1] < 0.01:
                break
        assert shares[-1] < 0.01, f"an idle server is busy: {shares}"


def test_text_that_the_output_cannot_show_is_no_traceback() -> None:
    command = [sys.executable, "-m", "ridgeline", "generate", "--model", "demo", "--max-tokens", "2", "Привет"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=START_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"??????")
