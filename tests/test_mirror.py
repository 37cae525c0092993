"""What an MLflow server shows: two projects on one server, and all of it made again after its database is lost."""

from __future__ import annotations

import contextlib
import json
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


Shown = list[tuple[str, str, dict[str, str], list[tuple[int, float]]]]


def shown(store: Path) -> Shown:
    """Name, status, settings and losses of every pretraining that a store's database holds."""
    with contextlib.closing(sqlite3.connect(store / "registry" / "mlflow.db")) as connection:
        look = connection.execute
        return [
            (
                name,
                status,
                dict(look("select key, value from params where run_uuid = ?", [run])),
                look(
                    "select step, value from metrics where run_uuid = ? and key = 'loss' order by step", [run]
                ).fetchall(),
            )
            for run, name, status in look(
                "select run_uuid, r.name, status from runs r join experiments e using (experiment_id) "
                "where e.name = 'pretraining of encoders'"
            ).fetchall()
        ]


@pytest.mark.slow
def test_a_training_is_shown_while_it_runs_and_again_after_the_database_is_lost(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, "one")
    mirror.folder.mkdir()
    settings = {"method": {"name": "simclr", "crop": 0.5}, "epochs": 3, "init": None}

    def train(steps: range) -> None:
        with mirror.training("key", settings) as log:
            for step in steps:
                log({"step": step, "epoch": 0, "loss": 1 / step, "alignment": None})
            while not step_arrived(steps[-1]):
                time.sleep(0.1)  # before it ends
            if steps[-1] < 30:
                raise SystemExit(143)

    def step_arrived(step: int) -> bool:
        with contextlib.suppress(Exception):  # the database is being made
            return shown(tmp_path)[0][1] == "RUNNING" and shown(tmp_path)[0][3][-1][0] == step
        return False

    with pytest.raises(SystemExit):
        train(range(10, 30, 10))
    told = {"method.name": "simclr", "method.crop": "0.5", "epochs": "3"}
    assert shown(tmp_path) == [("key", "KILLED", told, [(10, 0.1), (20, 0.05)])]
    train(range(30, 50, 10))
    losses = [(step, 1 / step) for step in range(10, 50, 10)]
    assert shown(tmp_path) == [("key", "FINISHED", told, losses)]

    encoder = tmp_path / "encoders" / "0123"
    encoder.mkdir(parents=True)
    rows = "".join(f"{step},0,{loss!r},\n" for step, loss in losses)
    (encoder / "history.csv").write_text(f"step,epoch,loss,alignment\n{rows}")
    (encoder / "card.json").write_text(json.dumps({"settings": settings}))
    again = f"from geossl.registry import Registry; Registry(__import__('pathlib').Path({str(tmp_path)!r}), 'one').rebuild()"
    subprocess.run([sys.executable, "-c", again], check=True)  # a process that does not know the old database
    assert shown(tmp_path) == [("0123", "FINISHED", told, losses)]


def test_a_server_that_is_down_holds_up_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{probe.getsockname()[1]}")
    began = time.perf_counter()
    with Mirror(tmp_path, "one").training("key", {}) as log:
        for step in range(1, 1000):
            log({"step": step, "loss": 1.0})
        assert time.perf_counter() - began < 2


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
