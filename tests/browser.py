"""A headless Chromium for tests of pages, by its DevTools protocol."""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def browser_in(folder: Path) -> "Browser":
    """A browser with its profile in folder; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the PATH")
    pytest.importorskip("aiohttp", reason="speaks with the browser; comes with ray[default]")
    return Browser(folder)


class Browser:
    """One page of a headless Chromium, by its DevTools protocol."""

    def __init__(self, folder: Path):
        self.folder, self._count = folder, 0
        self.errors, self.asked_for = [], []
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        self.process = subprocess.Popen(
            [CHROMIUM, *words, "--remote-debugging-port=0", f"--user-data-dir={folder}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
        )  # fmt: skip
        self.runner = asyncio.Runner()

    def __enter__(self):
        try:
            self.runner.run(self._connect())
        except BaseException:
            self.__exit__()
            raise
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        with contextlib.suppress(AttributeError):
            self.runner.run(self.session.close())
        self.runner.close()
        self.process.terminate()
        self.process.wait()

    async def _connect(self):
        import aiohttp

        self.session = aiohttp.ClientSession()
        told = self.folder / "DevToolsActivePort"
        for _ in range(600):
            if told.exists() and "\n" in told.read_text():
                break
            assert self.process.poll() is None, "Chromium ended"
            await asyncio.sleep(0.1)
        base = f"http://127.0.0.1:{told.read_text().split()[0]}"
        for _ in range(100):
            async with self.session.get(f"{base}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            if pages:
                break
            await asyncio.sleep(0.1)
        self.socket = await self.session.ws_connect(
            pages[0]["webSocketDebuggerUrl"], max_msg_size=0
        )

    def call(self, method, **params):
        """A command of the protocol, and its result."""
        return self.runner.run(self._call(method, params))

    async def _call(self, method, params):
        self._count += 1
        await self.socket.send_json({"id": self._count, "method": method, "params": params})
        while True:
            answer = json.loads((await self.socket.receive(60)).data)
            # The tests read pixels, which Chromium remarks upon after some time.
            remark = "Canvas2D: Multiple readback" in json.dumps(answer)
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded") and not remark:
                self.errors.append(answer["params"])
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked_for.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression):
        """What an expression of the page is, or comes to."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression):
        """Until an expression of the page holds; what it then is."""
        for _ in range(600):
            if value := self.value(expression):
                return value
            time.sleep(0.05)
        state = self.value(
            "typeof now === 'undefined' ? '' : JSON.stringify({...now, pictures: null, rgb: null})"
        )
        raise AssertionError(f"never: {expression}; the game: {state}")

    def key(self, code, *kinds, key=""):
        for kind in kinds or ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, code=code, key=key or code)

    def resize(self, width, height, scheme="light", touch=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=touch,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def serious(self):
        """What axe-core finds on the page that keeps people out of it: rule, and where.

        Skips the test where axe-core is missing, which comes with the extra `oracles`.
        """
        found = importlib.util.find_spec("axe_playwright_python")
        if found is None:
            pytest.skip("axe-core is missing; install the extra `oracles`")
        script = Path(found.submodule_search_locations[0]) / "axe.min.js"
        self.value(script.read_text() + "; null")
        return self.value(
            "axe.run().then(({violations}) => violations.filter("
            "(x) => ['serious', 'critical'].includes(x.impact)).map("
            "(x) => [x.id, ...x.nodes.slice(0, 3).map((n) => n.html.slice(0, 120))]))"
        )

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("typeof now !== 'undefined' && now !== null")
