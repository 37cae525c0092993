"""S3 servers for tests: moto in this process, moto behind a proxy that loses conditions, and Ceph's radosgw."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geossl.cube.storage import require_ordered_commits

BUCKET = "cubes"
KEY, SECRET = "testtest", "testtesttest"


def environment(endpoint: str) -> dict[str, str]:
    """What a process has to know to reach a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


@contextlib.contextmanager
def reached(endpoint: str) -> Iterator[None]:
    """Point this process, and those that it starts, at a server."""
    before = {name: os.environ.get(name) for name in environment(endpoint)}
    os.environ.update(environment(endpoint))
    require_ordered_commits.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        require_ordered_commits.cache_clear()


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The address of a server that keeps everything in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        # what earlier servers of this process kept
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        make_bucket(endpoint)
        yield endpoint
    finally:
        server.stop()


@dataclass
class Traffic:
    """The reading that went through a proxy."""

    reads: int = 0
    under_way: int = 0
    peak: int = 0
    """Most reads that were under way at the same time."""


@contextlib.contextmanager
def without_conditions(endpoint: str, dropped: frozenset[str]) -> Iterator[str]:
    """A proxy that passes on everything but these headers, as servers do that do not know them.

    The server behind it must not look at signatures, which cover the headers; moto does not.
    """
    with _proxy(endpoint, dropped, 0.0, Traffic()) as address:
        yield address


@contextlib.contextmanager
def far_away(endpoint: str, seconds: float) -> Iterator[tuple[str, Traffic]]:
    """A proxy that answers each read so many seconds late."""
    traffic = Traffic()
    with _proxy(endpoint, frozenset(), seconds, traffic) as address:
        yield address, traffic


@contextlib.contextmanager
def _proxy(endpoint: str, dropped: frozenset[str], seconds: float, traffic: Traffic) -> Iterator[str]:
    target = endpoint.removeprefix("http://")
    lock = threading.Lock()

    def count(change: int) -> None:
        with lock:
            traffic.reads += max(change, 0)
            traffic.under_way += change
            traffic.peak = max(traffic.peak, traffic.under_way)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            connection = http.client.HTTPConnection(target)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        def do_GET(self) -> None:
            count(1)
            time.sleep(seconds)
            self.forward()
            count(-1)

        do_PUT = do_POST = do_DELETE = do_HEAD = forward

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


CEPH = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")

_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon}
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
auth supported = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
osd pool default pg autoscale mode = off
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
[mon]
mon data = {folder}/mon.a
mon max pg per osd = 1000
ms bind msgr2 = false
[osd]
osd objectstore = bluestore
osd data = {folder}/osd.0
bluestore block size = 4294967296
bluestore fsck on mount = false
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{rgw}
rgw data = {folder}/rgw
"""


@contextlib.contextmanager
def radosgw(folder: Path) -> Iterator[str]:
    """A Ceph of one monitor and one disk, with its S3 server. Needs the programs of :data:`CEPH`.

    ``folder`` must have a short path: sockets lie in it.
    """
    rgw = free_port()
    fsid, mon = str(uuid.uuid4()), free_port()
    for name in ("mon.a", "osd.0", "rgw"):
        (folder / name).mkdir(parents=True)
    configuration = folder / "ceph.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, fsid=fsid, mon=mon, rgw=rgw))
    servers: list[subprocess.Popen[bytes]] = []

    def run(program: str, *arguments: str) -> str:
        command = [program, "-c", str(configuration), *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def serve(program: str, *arguments: str) -> None:
        with (folder / f"{program}.out").open("wb") as output:
            command = [program, "-c", str(configuration), "-f", *arguments]
            servers.append(subprocess.Popen(command, cwd=folder, stdout=output, stderr=output))

    try:
        run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", f"v1:127.0.0.1:{mon}", "monmap")
        run("ceph-mon", "-i", "a", "--mkfs", "--monmap", "monmap")
        serve("ceph-mon", "-i", "a")
        run("ceph", "-s")
        disk = str(uuid.uuid4())
        run("ceph", "osd", "new", disk)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        serve("ceph-osd", "-i", "0")
        run("ceph", "osd", "crush", "add", "osd.0", "1", "root=default")
        serve("radosgw", "-n", "client.rgw")
        endpoint = f"http://127.0.0.1:{rgw}"
        wait_until_it_answers(endpoint)
        user = ("user", "create", "--uid=test", "--display-name=test", f"--access-key={KEY}", f"--secret-key={SECRET}")
        run("radosgw-admin", *user)
        make_bucket(endpoint)
        yield endpoint
    finally:
        for server in reversed(servers):
            server.kill()
            server.wait()


def has_ceph() -> bool:
    return all(shutil.which(program) for program in CEPH)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(endpoint: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
        except OSError:
            assert time.monotonic() < end, f"{endpoint} does not answer"
            time.sleep(0.3)
        else:
            return


def make_bucket(endpoint: str) -> None:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()
