"""Loopback servers of files, polite ones and others."""

from __future__ import annotations

import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

LOGIN_PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


class Handler(http.server.BaseHTTPRequestHandler):
    """One request; what is not said otherwise by the server's manner is answered properly."""

    protocol_version = "HTTP/1.1"
    server: _Server
    begin: int | None
    """First byte that is asked for, None: the whole file."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.do_GET()

    def do_GET(self) -> None:
        site = self.server.site
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.begin = int(asked[1]) if asked else None
        self.end = int(asked[2]) if asked else None
        site.seen.append(self)
        if site.manner(self):
            return
        file = site.folder / urlsplit(self.path).path.strip("/")
        if not file.is_file():
            self.say(404)
        elif self.begin is None:
            self.say(200, file.read_bytes())
        else:
            self.send_range(file.read_bytes())

    @property
    def later(self) -> bool:
        """Whether it is a part behind the file's header."""
        return bool(self.begin)

    def send_range(self, content: bytes) -> None:
        begin, end = self.begin or 0, min(self.end or 0, len(content) - 1)
        if begin >= len(content):
            self.say(416)
            return
        self.say(206, content[begin : end + 1], {"Content-Range": f"bytes {begin}-{end}/{len(content)}"})

    def say(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        """Answer; with ``cut``, hang up after so many bytes of the body."""
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


Manner = Callable[[Handler], bool]
"""Whether the request was answered in an odd way."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    site: Site

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on misbehaving servers."""


def polite(request: Handler) -> bool:
    return False


@dataclass
class Site:
    """Files of a folder over HTTP, on a port of its own."""

    folder: Path
    manner: Manner = polite
    seen: list[Handler] = field(default_factory=list)
    """All requests so far."""

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.site = self
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def whole_only(request: Handler) -> bool:
    """Range requests get the whole file."""
    request.begin = None
    return False


def login_page(request: Handler) -> bool:
    """Everything is a web page, with status 200."""
    request.say(200, LOGIN_PAGE, {"Content-Type": "text/html"})
    return True


def login_page_half_way(request: Handler) -> bool:
    return request.later and login_page(request)


def failing(status: int, times: int = 10**9, *, half_way: bool = True) -> Manner:
    """An error status, so many times, for parts behind the header or for everything."""
    left = [times]

    def manner(request: Handler) -> bool:
        if left[0] <= 0 or (half_way and not request.later):
            return False
        left[0] -= 1
        request.say(status)
        return True

    return manner


def vanishing(request: Handler) -> bool:
    """The header is delivered, then the file is gone for good."""
    if request.server.site.folder.exists() and any(one.later for one in request.server.site.seen):
        request.say(404)
        return True
    return False


def stalling(seconds: float = 60, times: int = 10**9) -> Manner:
    """Parts behind the header begin, and never end."""
    left = [times]

    def manner(request: Handler) -> bool:
        if not request.later or left[0] <= 0:
            return False
        left[0] -= 1
        length = (request.end or 0) - (request.begin or 0) + 1
        request.send_response(206)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        request.wfile.write(b"x" * min(100, length // 2))
        request.wfile.flush()
        time.sleep(seconds)
        request.close_connection = True
        return True

    return manner


def other_part(request: Handler) -> bool:
    """Says that it sends the part that was asked for, and sends as much of the file's begin."""
    if request.begin is None or request.end is None:
        return False
    content = (request.server.site.folder / request.path.strip("/")).read_bytes()
    begin, end = request.begin, min(request.end, len(content) - 1)
    request.say(206, content[: end - begin + 1], {"Content-Range": f"bytes {begin}-{end}/{len(content)}"})
    return True


def half_ranges(*, honest: bool, times: int = 10**9) -> Manner:
    """Parts behind the header come as their first half; honestly declared, or cut off on the way."""
    left = [times]

    def manner(request: Handler) -> bool:
        file = request.server.site.folder / request.path.strip("/")
        if not request.later or request.command == "HEAD" or left[0] <= 0 or not file.is_file():
            return False
        left[0] -= 1
        content = file.read_bytes()
        begin, end = request.begin or 0, min(request.end or 0, len(content) - 1)
        part = content[begin : end + 1]
        half = len(part) // 2
        if honest:
            said = {"Content-Range": f"bytes {begin}-{begin + half - 1}/{len(content)}"}
            request.say(206, part[:half], said)
        else:
            request.say(206, part, {"Content-Range": f"bytes {begin}-{end}/{len(content)}"}, cut=half)
        return True

    return manner


@contextmanager
def serving(folder: Path, manner: Manner = polite) -> Iterator[Site]:
    with Site(folder, manner) as site:
        yield site
