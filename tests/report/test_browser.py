"""The page in a real browser: it asks for nothing, draws its pictures, and its slider works."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

from geossl.legend import CHANGE
from geossl.report.page import build_report
from geossl.report.records import ClassMap, ReportData

from .conftest import LEGEND

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--remote-debugging-port=0",
]  # fmt: skip


@pytest.fixture
def debugger(tmp_path: Path) -> Iterator[str]:
    """Address of the DevTools socket of a fresh browser."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    profile = tmp_path / "profile"
    browser = subprocess.Popen(
        [CHROMIUM, *_QUIET, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 40
        while not (port_file.exists() and len(lines := port_file.read_text().splitlines()) == 2):
            if browser.poll() is not None or time.monotonic() > deadline:
                pytest.skip("Chromium does not start here")
            time.sleep(0.1)
        yield f"ws://127.0.0.1:{lines[0]}{lines[1]}"
    finally:
        browser.terminate()
        browser.wait(20)


class Tab:
    """One page over the DevTools protocol; ``requests`` collects what it asks for."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._session: str | None = None
        self._count = 0

    async def open(self) -> None:
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        await self.socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            reply = json.loads(await self.socket.recv())
            if reply.get("id") == self._count:
                return reply["result"]
            self._note(reply)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(event["params"]))
        elif event.get("method") == "Log.entryAdded":
            self.problems.append(event["params"]["entry"]["text"])

    async def evaluate(self, expression: str) -> Any:
        reply = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return reply["result"].get("value")

    async def colour_at(self, x: float, y: float) -> tuple[int, ...]:
        """What is drawn at a point of the window."""
        shot = await self.call("Page.captureScreenshot", format="png")
        with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as image:
            return image.convert("RGB").getpixel((round(x), round(y)))

    async def click(self, x: float, y: float) -> None:
        """As a person does, with the mouse."""
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


async def _visit(address: str, report: Path) -> tuple[Tab, dict[str, Any]]:
    async with connect(address, max_size=None) as socket:
        tab = Tab(socket)
        await tab.open()
        await tab.call("Page.navigate", url=report.as_uri())
        await tab.evaluate("new Promise(done => document.readyState == 'complete' ? done() : onload = done)")
        await tab.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        found = {
            "title": await tab.evaluate("document.title"),
            "blank": await tab.evaluate("[...document.images].filter(i => !i.naturalWidth).length"),
            "pictures": await tab.evaluate("document.images.length"),
            "split": await tab.evaluate(
                "(() => { const f = document.querySelector('#change figure.slide'), s = f.querySelector('input');"
                "const before = f.style.getPropertyValue('--split'); s.value = 20;"
                "s.dispatchEvent(new Event('input'));"
                "return [s.hidden, before, getComputedStyle(f.querySelector('.after')).clipPath] })()"
            ),
        }
        await tab.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        found["overflow"] = await tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        return tab, found


BEFORE, FOREST, CLEARED = (200, 30, 30), (0x1F, 0x6B, 0x3A), (0xD7, 0x19, 0x1C)


async def _slide(address: str, report: Path, number: int) -> list[list[tuple[int, ...]]]:
    """Colours at a quarter and three quarters of a map's width: as it opens, slid to the right, slid to the left."""
    async with connect(address, max_size=None) as socket:
        tab = Tab(socket)
        await tab.open()
        await tab.call("Emulation.setDeviceMetricsOverride", width=900, height=1000, deviceScaleFactor=1, mobile=False)
        await tab.call("Page.navigate", url=report.as_uri())
        await tab.evaluate("new Promise(done => document.readyState == 'complete' ? done() : onload = done)")
        await tab.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        figure = f"document.querySelectorAll('#maps figure')[{number}]"
        await tab.evaluate(f"{figure}.scrollIntoView()")
        place = "(e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height] })"
        left, top, width, height = await tab.evaluate(f"{place}({figure}.querySelector('.pair'))")
        x, y, length, thick = await tab.evaluate(f"{place}({figure}.querySelector('input'))")
        seen = []
        for share in (None, 0.9, 0.1):
            if share is not None:
                await tab.click(x + share * length, y + thick / 2)
            seen.append([await tab.colour_at(left + at * width, top + height / 2) for at in (0.25, 0.75)])
        return seen


@pytest.mark.parametrize("change", [False, True])
def test_the_slider_of_a_map_shows_now_one_side_now_the_other(
    debugger: str, empty: ReportData, tmp_path: Path, change: bool
) -> None:
    before = np.full((40, 60, 3), BEFORE, np.uint8)
    ground = np.full((40, 60, 3), (90, 90, 90), np.uint8)
    forest = ClassMap("Land cover", np.full((40, 60), 3, np.uint8), LEGEND, before=before)
    cleared = ClassMap("Clearings", np.ones((40, 60), np.uint8), CHANGE, before=before, ground=ground)
    report = build_report(dataclasses.replace(empty, maps=[forest, cleared]), tmp_path / "report.html")
    seen = asyncio.run(_slide(debugger, report, int(change)))
    after = CLEARED if change else FOREST
    expected = [[BEFORE, after], [BEFORE, BEFORE], [after, after]]
    for found, wanted in zip(seen, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=12)  # photographs are compressed


def test_in_a_browser(debugger: str, full: ReportData, tmp_path: Path) -> None:
    report = build_report(full, tmp_path / "report.html")
    tab, found = asyncio.run(_visit(debugger, report))
    outside = [url for url in tab.requests if not url.startswith("data:") and url != report.as_uri()]
    assert report.as_uri() in tab.requests
    assert outside == []
    assert tab.problems == []
    assert found["title"].startswith("<script>alert")
    assert found["pictures"] == 19
    assert found["blank"] == 0
    assert found["split"] == [False, "50%", "inset(0px 0px 0px 20%)"]
    assert found["overflow"] <= 0
