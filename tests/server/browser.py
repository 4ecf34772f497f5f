"""A headless Chromium, driven over its debugging socket. Knows pages and expressions; knows no server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1100,900",
)


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One tab. requested: every URL it asked for. problems: exceptions, and errors in its console."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._serial = 0
        self._loaded = asyncio.Event()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requested: list[str] = []
        self.problems: list[str] = []

    async def listen(self) -> None:
        async for message in self._socket:
            self._heard(message.json())

    def _heard(self, event: dict[str, Any]) -> None:
        if "id" in event:
            self._answers.pop(event["id"]).set_result(event)
        elif event["method"] == "Page.loadEventFired":
            self._loaded.set()
        elif event["method"] == "Network.requestWillBeSent":
            self.requested.append(event["params"]["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(event["params"]["exceptionDetails"]))
        elif event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "assert"):
            self.problems.append(str(event["params"]["args"]))
        elif event["method"] == "Log.entryAdded":
            entry = event["params"]["entry"]
            # An answer of 400 is logged too, and some pages are there to show one; requests have a list of their own.
            if entry["level"] == "error" and entry["source"] != "network":
                self.problems.append(str(entry))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._serial += 1
        self._answers[self._serial] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._serial, "method": method, "params": params})
        event = await asyncio.wait_for(answer, 20)
        assert "error" not in event, event
        result: dict[str, Any] = event["result"]
        return result

    async def open(self, url: str) -> None:
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 20)  # until then an expression may meet the page that is left
        await self.until(f"location.href.startsWith('{url}') && document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait, in the page, until the expression is true; ten seconds at most."""
        look = (
            f"({condition}) ? resolve(true) : performance.now() > late ? reject(new Error(what)) : setTimeout(look, 10)"
        )
        late = f"const what = 'not in time: ' + {json.dumps(condition)}, late = performance.now() + 10000"
        await self.value(f"new Promise((resolve, reject) => {{ {late}; const look = () => {look}; look(); }})")

    async def press(self, key: str) -> None:
        """A key, as the page hears it from a person."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            code = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[key]
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    async def heap_bytes(self) -> int:
        """What the page's objects take, after the collection of what it dropped."""
        await self.call("HeapProfiler.collectGarbage")
        used: int = (await self.call("Runtime.getHeapUsage"))["usedSize"]
        return used

    async def picture(self, path: Path, width: int, height: int, scheme: str) -> None:
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await self.call("Emulation.setScrollbarsHidden", hidden=True)  # or the right edge would be missing
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        await self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browsing(binary: str) -> AsyncIterator[Page]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = (*FLAGS, f"--user-data-dir={profile}", "about:blank")
        process = await asyncio.create_subprocess_exec(binary, *flags, stderr=asyncio.subprocess.PIPE)
        try:
            port = await asyncio.wait_for(_debugging_port(process), 20)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    target = next(one for one in await response.json() if one["type"] == "page")
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    listening = asyncio.create_task(page.listen())
                    yield page
                    listening.cancel()
        finally:
            process.kill()
            await process.wait()


async def _debugging_port(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if b"DevTools listening on" in line:
            return line.decode().split("://")[1].split("/")[0].split(":")[1]
    raise AssertionError("the browser did not start")
