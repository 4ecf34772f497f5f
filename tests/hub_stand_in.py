"""A local stand-in of the Hugging Face hub: folders served as model repositories on 127.0.0.1. Standard library only.

    with HubStandIn({"gpt2": folder}) as hub:
        subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)})
        assert hub.count("/gpt2/resolve/") > 0

It speaks what huggingface_hub needs: model info, tree, and resolve (HEAD and GET with etag, commit and byte ranges).
A `Fault` makes it slow, silent, refusing or cut off. Leaving the block always stops it, waiting requests included.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, on requests whose path contains `where`.

    status: answer with it (401, 404, 500, ...); error_code: the hub's X-Error-Code beside it. silent: take the request
    and never answer. pace_s: wait that long before every 64 KiB of a file. cut_after: end the connection after so many
    bytes of a file. size: claim this file size in the model info. times: how often it goes wrong; None is always.
    """

    where: str = ""
    status: int | None = None
    error_code: str | None = None
    silent: bool = False
    pace_s: float = 0.0
    cut_after: int | None = None
    size: int | None = None
    times: int | None = None


class HubStandIn:
    """Serves `repos` (repository name -> folder) while the `with` block runs.

    url: the endpoint. requests: (method, path) in order of arrival; ranges: the byte ranges among them. fault: may be
    replaced while it runs.
    """

    def __init__(self, repos: Mapping[str, Path], fault: Fault | None = None) -> None:
        self.repos = dict(repos)
        self.fault = fault
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self._stopping = threading.Event()
        self._faults: Counter[Fault] = Counter()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubStandIn:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, part: str, method: str | None = None) -> int:
        """Requests whose path contains `part`."""
        return sum(part in path and method in (None, verb) for verb, path in self.requests)

    def downloaded(self) -> set[str]:
        """Names of the files of which bytes were asked for."""
        return {path.rsplit("/", 1)[1] for verb, path in self.requests if verb == "GET" and "/resolve/" in path}

    def wait(self, seconds: float | None = None) -> None:
        """Let time pass, but not beyond the end of the block."""
        self._stopping.wait(seconds)

    def fault_at(self, path: str) -> Fault:
        """The fault that this request meets; one with `times` is used up by it."""
        fault = self.fault
        if fault is None or fault.where not in path:
            return Fault()
        self._faults[fault] += 1
        return fault if fault.times is None or self._faults[fault] <= fault.times else Fault()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: HubStandIn) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: hub.requests has it."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        hub = self.server.hub
        hub.requests.append((self.command, path))
        fault = hub.fault_at(path)
        if fault.silent:
            hub.wait()
            self.close_connection = True
        elif fault.status is not None:
            self._error(fault.status, fault.error_code)
        elif match := re.fullmatch(r"/api/models/(?P<repo>.+?)(/(?P<what>revision|tree)/[^/]+)?", path):
            self._info(match["repo"], match["what"], fault)
        elif match := re.fullmatch(r"/(?P<repo>.+)/resolve/[^/]+/(?P<file>.+)", path):
            self._file(match["repo"], match["file"], fault)
        else:
            self._error(404, None)

    def _info(self, repo: str, what: str | None, fault: Fault) -> None:
        folder = self.server.hub.repos.get(repo)
        if folder is None:
            self._error(404, "RepoNotFound")
            return
        files = [(path.relative_to(folder).as_posix(), fault.size or path.stat().st_size) for path in _files(folder)]
        answer: object = {
            "id": repo,
            "sha": commit_of(folder),
            "siblings": [{"rfilename": name, "size": size} for name, size in files],
        }
        if what == "tree":
            answer = [
                {"type": "file", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": size, "path": name}
                for name, size in files
            ]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, repo: str, file: str, fault: Fault) -> None:
        folder = self.server.hub.repos.get(repo)
        if folder is None or folder / file not in _files(folder):
            self._error(404, "RepoNotFound" if folder is None else "EntryNotFound")
            return
        data = (folder / file).read_bytes()
        headers = {
            "X-Repo-Commit": commit_of(folder),
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(match[1])
            self.server.hub.ranges.append(match[0])
            status, headers["Content-Range"] = 206, f"bytes {first}-{len(data) - 1}/{len(data)}"
            data = data[first:]
        self._send(status, data, headers, fault)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], fault: Fault = Fault()) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut_after is not None and fault.cut_after < len(data):
            self.wfile.write(data[: fault.cut_after])
            self.close_connection = True
            return
        for start in range(0, len(data), CHUNK):
            if fault.pace_s:
                self.server.hub.wait(fault.pace_s)
            self.wfile.write(data[start : start + CHUNK])

    def _error(self, status: int, code: str | None) -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(status, b'{"error": "the stand-in says no"}', headers | {"Content-Type": "application/json"})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def commit_of(folder: Path) -> str:
    """A commit hash that changes when a file's name or size does."""
    names = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in _files(folder)]
    return hashlib.sha1("\n".join(names).encode()).hexdigest()


@contextlib.contextmanager
def silent_port() -> Iterator[str]:
    """An endpoint that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """An endpoint where connections are refused: bound, so that nobody else takes it, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
