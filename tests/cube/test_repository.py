"""Opening, pinning, tagging, and refusing what is not ours or newer."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.server
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr

from geossl.cube import layout, repository
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.cube.storage import local_folder, open_storage, require_ordered_commits
from geossl.errors import StoreError

from .conftest import GRID, SENSOR, SceneMaker


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no cube"):
        Cube.open(str(tmp_path / "cube"))


def test_create_only_once(tmp_path: Path) -> None:
    first = Cube.create(str(tmp_path / "cube"))
    with pytest.raises(StoreError, match="already is a cube"):
        Cube.create(first.uri)
    assert Cube.open_or_create(first.uri).view().id == first.view().id
    assert Cube.create(str(tmp_path / "other")).view().id != first.view().id


def test_a_foreign_repository_is_refused(tmp_path: Path) -> None:
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "r")))
    session = repository.writable_session("main")
    zarr.create_group(session.store)
    session.commit("theirs")
    for opening in (Cube.open, Cube.open_or_create):
        with pytest.raises(StoreError, match="not a cube of geossl"):
            opening(str(tmp_path / "r"))


def test_a_newer_format_is_refused(cube: Cube) -> None:
    def newer(session: icechunk.Session) -> str:
        zarr.open_group(session.store).attrs[layout.FORMAT_KEY] = layout.FORMAT + 1
        return "from the future"

    cube.transact(newer)
    with pytest.raises(StoreError, match="update geossl"):
        Cube.open(cube.uri)


def test_a_creation_that_was_killed_is_completed(tmp_path: Path) -> None:
    uri = str(tmp_path / "cube")
    icechunk.Repository.create(open_storage(uri))
    assert Cube.open_or_create(uri).view().collections() == []


def test_a_view_stays_as_it_was(cube: Cube) -> None:
    before = cube.view()
    cube.transact(lambda session: _add(session, "one"))
    tagged = cube.snapshot()
    cube.tag("release", tagged)
    cube.transact(lambda session: _add(session, "two"))
    assert before.collections() == []
    assert cube.view(tagged).collections() == cube.view("release").collections() == ["one"]
    assert pickle.loads(pickle.dumps(cube.view())).collections() == ["one", "two"]
    assert [entry.message for entry in cube.log()[:2]] == ["add two", "add one"]
    with pytest.raises(StoreError, match="no snapshot"):
        cube.view("nonsense")
    with pytest.raises(StoreError, match="it holds one, two"):
        cube.view().collection("three")


def test_a_tag_means_one_snapshot(cube: Cube) -> None:
    first = cube.snapshot()
    cube.tag("run-1", first)
    cube.tag("run-1", first)
    second = cube.transact(lambda session: _add(session, "one"))
    with pytest.raises(StoreError, match="already names"):
        cube.tag("run-1", second)
    assert cube.tags() == {"run-1": first}
    with pytest.raises(StoreError, match="cannot be tagged"):
        cube.tag("run-2", "nonsense")


def test_a_writer_older_than_the_oldest_garbage_does_not_commit(cube: Cube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "LONGEST_INGEST", dt.timedelta(0))
    with pytest.raises(StoreError, match="took longer"):
        cube.transact(lambda session: _add(session, "slow"))
    assert cube.view().collections() == []


def test_an_error_commits_nothing(cube: Cube) -> None:
    def fails(session: icechunk.Session) -> str:
        _add(session, "half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cube.transact(fails)
    assert cube.view().collections() == []


@pytest.mark.parametrize("name", ["labels", "", "a/b", "../x", "-x"])
def test_names_that_cannot_be(cube: Cube, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name"):
        cube.transact(lambda session: _add(session, name))


def test_a_flipped_bit_is_noticed(cube: Cube, make_scene: SceneMaker) -> None:
    """Whichever bit of whichever chunk on disk."""
    ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    collection = cube.view().collection("s2")

    def read() -> list[np.ndarray]:
        return [np.asarray(collection.image(tile_id)[:]) for tile_id in collection.tile_ids]

    read()
    files = [path for path in (Path(cube.uri) / "chunks").iterdir() if path.stat().st_size > 50_000]
    assert len(files) == 2
    rng = np.random.default_rng(0)
    for _ in range(60):
        path = files[rng.integers(2)]
        sound = path.read_bytes()
        broken = bytearray(sound)
        broken[rng.integers(len(sound))] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="checksum"):
            read()
        path.write_bytes(sound)
    read()


@pytest.mark.parametrize(
    ("uri", "message"),
    [("s3://bucket", "no bucket or no path"), ("ftp://host/path", "unknown scheme"), ("s3:///path", "no bucket")],
)
def test_addresses_that_cannot_be(uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        open_storage(uri)


@pytest.mark.parametrize(
    ("honours", "ignored"),
    [
        ({"If-Match", "If-None-Match"}, None),
        ({"If-None-Match"}, "ignores If-Match"),
        (set(), "ignores If-None-Match and If-Match"),
    ],
)
def test_a_bucket_that_would_lose_commits_is_refused(
    honours: set[str], ignored: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a server that knows just enough of S3, and honours some conditions or none."""
    with s3_server(honours) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        require_ordered_commits.cache_clear()
        with pytest.raises(StoreError, match=ignored) if ignored else contextlib.nullcontext():
            require_ordered_commits("s3://bucket/some/cube")


@contextlib.contextmanager
def s3_server(honours: set[str]) -> Iterator[str]:
    objects: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            there = objects.get(self.path)
            asked = {name: self.headers[name] for name in honours if self.headers[name] is not None}
            refused = ("If-None-Match" in asked and there) or asked.get("If-Match", there) != there
            if not refused:
                objects[self.path] = f'"{hashlib.md5(body).hexdigest()}"'
            self.answer(412 if refused else 200)

        def do_POST(self) -> None:
            """Delete, in bulk."""
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            key = body.partition("<Key>")[2].partition("</Key>")[0]
            del objects[f"/bucket/{key}"]
            self.answer(200, f"<DeleteResult><Deleted><Key>{key}</Key></Deleted></DeleteResult>")

        def answer(self, status: int, body: str = "") -> None:
            self.send_response(status)
            if self.path in objects:
                self.send_header("ETag", objects[self.path])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

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
    assert objects == {}


def test_local_addresses(tmp_path: Path) -> None:
    assert local_folder(f"file://{tmp_path}/cube") == local_folder(f"{tmp_path}/cube") == tmp_path / "cube"
    assert local_folder("s3://bucket/cube") is None


def _add(session: icechunk.Session, name: str) -> str:
    layout.create_collection(zarr.open_group(session.store), name, SENSOR, GRID)
    return f"add {name}"


@pytest.mark.slow
def test_a_process_that_ends_right_after_reading_ends_well(cube: Cube, make_scene: SceneMaker) -> None:
    """Icechunk's threads still clean up then. Without the pause at the end, some die here."""
    ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    code = f"""if True:
        import sys
        from geossl.cube.repository import Cube
        root = Cube.open({cube.uri!r}).view().root
        sys.setswitchinterval(60)  # a thread gets the interpreter only where this one waits
        root["s2"]"""

    def run(_: int) -> int:
        return subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120).returncode

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(run, range(40))) == {0}
