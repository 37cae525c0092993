"""What an MLflow server shows: two projects on one server, and all of it made again after its database is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from geossl.mirror import Mirror
from geossl.registry import Registry
from geossl.scores import Interval, score_row

ROW = score_row(task="cover", split="test", labels=100, model="LDA", metric="macro_f1", interval=Interval(0.3))


@contextmanager
def serving(database: Path, port: int) -> Iterator[None]:
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(database.parent / "files")),
    ]
    off = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command, env=os.environ | off, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(240):
            assert process.poll() is None
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail("MLflow does not answer")
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_server_that_loses_its_database_shows_all_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flask", reason="mlflow-skinny serves with Flask only")
    from mlflow import MlflowClient

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    def shown(project: str) -> dict[str, Any]:
        client = MlflowClient(uri, uri)
        model = client.get_registered_model(f"{project}-cover")
        versions = client.search_model_versions(f"name = '{project}-cover'")
        return {
            "aliases": {alias: int(number) for alias, number in model.aliases.items()},
            "sources": sorted(version.source for version in versions),
            "metrics": sorted(v for version in versions for v in client.get_run(version.run_id).data.metrics.values()),
        }

    registries = {project: Registry(tmp_path / project, project) for project in ("one", "two")}
    with serving(tmp_path / "first.db", port):
        for registry in registries.values():
            for name in ("a", "b"):
                registry.register("cover", registry.store / "tasks" / name, scores=[ROW])
        registries["one"].promote("cover", 2, why="by hand")
        before = {project: shown(project) for project in registries}
        assert before["one"]["aliases"] == registries["one"].aliases("cover") == {
            "champion": 2, "previous": 1, "anchor": 1,
        }  # fmt: skip
        assert before["two"]["aliases"] == {"champion": 1, "anchor": 1, "challenger": 2}
        assert before["one"]["sources"] == ["geossl://one/tasks/a", "geossl://one/tasks/b"]
        assert before["one"]["metrics"] == [0.3, 0.3]
        assert registries["one"].rebuild() == ["cover"], "what is there is dropped, what others have is not"
        assert {project: shown(project) for project in registries} == before
        assert not (tmp_path / "one" / "registry" / "mlflow.db").exists()
    # while it is down the registry goes on
    registries["two"].promote("cover", 2, why="by hand")
    with serving(tmp_path / "second.db", port):
        for registry in registries.values():
            registry.rebuild()
        assert shown("one") == before["one"]
        assert shown("two")["aliases"] == {"champion": 2, "previous": 1, "anchor": 1}


@pytest.mark.slow
def test_a_damaged_database_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "geossl.yaml").write_text("name: one\nsources: [{ kind: folder, path: imagery }]\n")
    database = tmp_path / "store" / "registry" / "mlflow.db"
    registry = Registry(tmp_path / "store", "one")
    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "update", lambda *_: None)
        for name in ("a", "b"):
            registry.register("cover", registry.store / "tasks" / name, scores=[ROW])
        registry.promote("cover", 2, why="by hand")
    database.write_bytes(b"no database")
    command = [sys.executable, "-m", "geossl.cli.app", "registry", "rebuild", "-p", str(tmp_path)]
    assert "cover" in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    with contextlib.closing(sqlite3.connect(database)) as connection:
        aliases = connection.execute("select alias, version from registered_model_aliases").fetchall()
        assert dict(aliases) == registry.aliases("cover") == {"champion": 2, "previous": 1, "anchor": 1}
        assert connection.execute("select count(*) from model_versions").fetchone() == (2,)
