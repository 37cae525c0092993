"""What tests of a project's upkeep share: a store that has lived, and a sink for messages."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from geossl.train.history import Log, ignored

from .store_world import World

SECRET = "s3cr3t-t0ken"


@dataclass
class Hook:
    """An HTTP server that keeps what is posted to it."""

    port: int = 0
    messages: list[dict[str, str]] = field(default_factory=list)
    answer: int = 200

    @property
    def address(self) -> str:
        return f"json://user:{SECRET}@127.0.0.1:{self.port}/{SECRET}"

    def titles(self) -> list[str]:
        """Of the messages since the last time."""
        found = [message["title"] for message in self.messages]
        self.messages.clear()
        return found


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if found.answer == 200:
                found.messages.append(json.loads(body))
            self.send_response(found.answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


class Quiet:
    """No MLflow."""

    def update(self, *_: object) -> None:
        pass

    def training(self, *_: object) -> AbstractContextManager[Log]:
        return nullcontext(ignored)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A store with an empty cube, to be brought forward; changes of its registry do not wait for MLflow."""
    for user in ("registry", "project.stages.pretrain"):
        monkeypatch.setattr(f"geossl.{user}.Mirror", lambda *_: Quiet())
    return World(tmp_path)
