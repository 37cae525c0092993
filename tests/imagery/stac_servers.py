"""STAC servers that tests start and stop: ``rustac serve`` in memory, stac-fastapi.pgstac on PostgreSQL, and
one that answers as a test wants.

Each is a context manager that yields the address.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pystac

POSTGRES = Path("/usr/lib/postgresql/15/bin")
POSTGIS = Path("/usr/share/postgresql/15/extension/postgis.control")

Answer = tuple[int, str, bytes]
"""Status, content type, content."""


@contextmanager
def rustac(items: Sequence[pystac.Item], folder: Path) -> Iterator[str]:
    """``rustac serve`` in memory, with these items; it takes a search for collections and ignores the rest."""
    file = folder / "items.json"
    pystac.ItemCollection(items).save_object(str(file))
    port = free_port()
    command = [_script("rustac"), "serve", "--addr", f"127.0.0.1:{port}", "--create-collections", str(file)]
    with _running(command, folder / "rustac.log", f"http://127.0.0.1:{port}") as address:
        yield address


@contextmanager
def pgstac(folder: Path) -> Iterator[str]:
    """stac-fastapi.pgstac with transactions, on a PostgreSQL + PostGIS cluster of its own."""
    with ExitStack() as stack:
        port = stack.enter_context(_postgres())
        database = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGPASSWORD": "x"}
        environment = os.environ | database | {"PGDATABASE": "postgres", "ENABLE_TRANSACTIONS_EXTENSIONS": "true"}
        with (folder / "migrate.log").open("w") as log:
            subprocess.run([_script("pypgstac"), "migrate"], env=environment, check=True, stdout=log, stderr=log)
        serving = free_port()
        command = [_script("uvicorn"), "--factory", "stac_fastapi.pgstac.app:create_app", "--port", str(serving)]
        yield stack.enter_context(
            _running(command, folder / "uvicorn.log", f"http://127.0.0.1:{serving}", environment, seconds=60)
        )


def has_rustac() -> bool:
    """Whether :func:`rustac` can run here."""
    return Path(_script("rustac")).exists()


def missing_for_pgstac() -> str:
    """What this machine lacks to run :func:`pgstac`, or nothing."""
    lacks = [str(path) for path in (POSTGRES / "initdb", POSTGIS, Path(_script("pypgstac"))) if not path.exists()]
    return f"there is no {', '.join(lacks)}" if lacks else ""


@contextmanager
def answering(answer: Callable[[str, Any], Answer | Any]) -> Iterator[str]:
    """A server whose answers a function gives.

    Parameters
    ----------
    answer:
        From a request's path and its JSON body (None without one) to what is said: an :data:`Answer`, or
        something to be said as JSON.
    """

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            said = answer(self.path, json.loads(self.rfile.read(length)) if length else None)
            if not isinstance(said, tuple):
                said = (200, "application/geo+json", json.dumps(said).encode())
            status, kind, content = said
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = respond

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """A client that gave up waiting is part of a test."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def landing(address: str, **more: Any) -> dict[str, Any]:
    """What the root of a STAC API at an address says."""
    links = [{"rel": rel, "href": f"{address}{path}"} for rel, path in (("root", ""), ("self", ""))]
    links.append({"rel": "search", "href": f"{address}/search", "method": "POST", "type": "application/geo+json"})
    classes = [f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "item-search")]
    return {"type": "Catalog", "id": "api", "description": "an API", "stac_version": "1.0.0",
            "conformsTo": classes, "links": links} | more  # fmt: skip


def post(address: str, said: Mapping[str, Any]) -> None:
    """Add a collection or an item to a server that takes transactions."""
    request = urllib.request.Request(address, json.dumps(said).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status in (200, 201)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _postgres() -> Iterator[int]:
    """A new PostgreSQL cluster that trusts this machine; PostgreSQL refuses to run as root."""
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="pgstac-"))  # pytest's own folders are closed to other users
    port = free_port()
    try:
        if user:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        initialise = [POSTGRES / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"]
        start = [POSTGRES / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"]
        stop = [POSTGRES / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"]
        subprocess.run([*user, *initialise], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        subprocess.run([*user, *start], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            yield port
        finally:
            subprocess.run([*user, *stop], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(
    command: Sequence[str], log: Path, address: str, environment: Mapping[str, str] | None = None, seconds: float = 15
) -> Iterator[str]:
    """A server process from the moment that it answers."""
    with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            end = time.monotonic() + seconds
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{command[0]} does not serve {address}:\n{log.read_text()}")
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            process.wait(10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _script(name: str) -> str:
    """A program of this Python environment."""
    return str(Path(sys.executable).with_name(name))
