"""What MLflow's pages show: of a registry one registered model a task, one run a version and the same aliases; of
pretraining one run each, live.

A mirror in a database beside the registry or, where ``MLFLOW_TRACKING_URI`` names a server, there, under the
project's name. It is never read: the registry's JSON files and the encoders' records are the truth, and it is made from
them at any time.
"""

from __future__ import annotations

import csv
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from geossl.files import read_json

_log = logging.getLogger(__name__)

_DATABASE = "mlflow.db"
_PRETRAINING = "pretraining of encoders"
"""The experiment of all pretraining."""

_TAG = "geossl.training"
_FLUSH = 30.0
"""Seconds that the end of a training waits for its last rows to arrive."""

_MOST = 1000
"""Figures that MLflow takes at once."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Mirror:
    """The mirror of one store's registry."""

    store: Path
    project: str
    """What names on a server begin with: others use it too."""

    @property
    def folder(self) -> Path:
        return self.store / "registry"

    @cached_property
    def _server(self) -> str | None:
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        return uri if uri.startswith(("http://", "https://")) else None

    @cached_property
    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # a server that is down shall not hold up whoever changes the registry
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # or it announces every table
        from mlflow import MlflowClient  # takes a second

        uri = self._server or f"sqlite:///{(self.folder / _DATABASE).resolve()}"
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def update(self, task: str, versions: Sequence[Mapping[str, Any]], aliases: Mapping[Any, int]) -> None:
        """Bring one task into line; versions as :meth:`geossl.registry.Version.to_dict` has them, oldest first."""
        client, name = self._client, self._name(task)
        found = client.search_registered_models(filter_string=f"name = '{name}'")
        model = found[0] if found else client.create_registered_model(name, tags={"geossl.project": self.project})
        mirrored = len(client.search_model_versions(f"name = '{name}'"))
        experiment = client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(name, self._address(self.folder / "artifacts"))
        )
        for version in versions[mirrored:]:
            tags = {"folder": version["folder"]}
            run = client.create_run(experiment_id, run_name=f"{task} v{version['number']}", tags=tags)
            for row in version["scores"]:
                if row["mean"] is not None:
                    metric = "/".join(str(row[key]) for key in ("split", "labels", "model", "metric"))
                    client.log_metric(run.info.run_id, re.sub(r"[^\w ./:-]", "-", metric), row["mean"])
            client.set_terminated(run.info.run_id)
            client.create_model_version(name, self._address(self.store / version["folder"]), run.info.run_id)
        for alias in model.aliases.keys() - aliases.keys():
            client.delete_registered_model_alias(name, alias)
        for alias, number in aliases.items():
            client.set_registered_model_alias(name, alias, str(number))

    @contextmanager
    def training(self, key: str, settings: Mapping[str, Any]) -> Iterator[Callable[[Row], None]]:
        """Show a training while it runs: whoever trains calls what this yields with each row of its record.

        Rows are handed over to a thread, so that a server which is slow or down holds up nothing; what it does not
        take is offered again with the next row. A training that goes on after a crash goes on in the same run.

        Parameters
        ----------
        key:
            Tells trainings apart.
        settings:
            Shown as the run's parameters, nested ones by dotted names.
        """
        rows: queue.Queue[Row | str] = queue.Queue()
        thread = threading.Thread(target=self._show, args=(key, settings, rows), name="geossl-mlflow", daemon=True)
        thread.start()
        ended = "FAILED"
        try:
            yield rows.put
            ended = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            ended = "KILLED"
            raise
        finally:
            rows.put(ended)
            thread.join(_FLUSH)

    def remember(self, encoders: Path) -> None:
        """Show the trainings whose record lies in a folder of encoders, after :meth:`drop`."""
        for record in sorted(encoders.glob("*/history.csv")):
            key = record.parent.name.removeprefix("unfinished-")
            with record.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if None not in row.values()]
            card = read_json(record.with_name("card.json")) or {}
            run = self._begin(key, card.get("settings", {}))
            at = int(1000 * record.stat().st_mtime)
            self._send(run, [figure for row in rows for figure in _figures(row, at)])
            self._client.set_terminated(run, "FINISHED" if key == record.parent.name else "KILLED", end_time=at)

    def _show(self, key: str, settings: Mapping[str, Any], rows: queue.Queue[Row | str]) -> None:
        """Until it is told how the training ended."""
        run, ended, warned = None, None, False
        figures: list[Any] = []
        while ended is None:
            said = [rows.get()]
            while not rows.empty():
                said.append(rows.get())
            ended = next((each for each in said if isinstance(each, str)), None)
            now = int(1000 * time.time())
            figures += [figure for row in said if not isinstance(row, str) for figure in _figures(row, now)]
            try:
                run = run or self._begin(key, settings)
                self._send(run, figures)
                if ended is not None:
                    self._client.set_terminated(run, ended)
            except Exception as error:
                run = None  # somebody may have made the database anew
                if not warned:
                    _log.warning("MLflow does not take the figures of this training; it goes on without: %s", error)
                warned = True

    def _begin(self, key: str, settings: Mapping[str, Any]) -> str:
        """The run of a training, a new one or the one that it had."""
        client, found = self._client, self._runs(key)
        if found:
            client.update_run(found[0].info.run_id, "RUNNING")
            return str(found[0].info.run_id)
        experiment_id = self._experiment() or client.create_experiment(
            self._name(_PRETRAINING), self._address(self.folder / "artifacts")
        )
        run = client.create_run(experiment_id, run_name=key, tags={_TAG: key}).info.run_id
        for name, value in _flat(settings):
            client.log_param(run, name, value)
        return str(run)

    def _send(self, run: str, figures: list[Any]) -> None:
        """Those that were taken leave the list."""
        while figures:
            self._client.log_batch(run, figures[:_MOST])
            del figures[:_MOST]

    def _experiment(self) -> str | None:
        found = self._client.get_experiment_by_name(self._name(_PRETRAINING))
        return None if found is None else str(found.experiment_id)

    def _runs(self, key: str) -> list[Any]:
        experiment = self._experiment()
        return [] if experiment is None else [*self._client.search_runs([experiment], f"tags.`{_TAG}` = '{key}'")]

    def drop(self, tasks: Iterable[str]) -> None:
        """Delete the database beside the registry; of a server, what it has of these tasks."""
        if self._server is None:
            for path in self.folder.glob(f"{_DATABASE}*"):
                path.unlink()
            return
        client = self._client
        for name in map(self._name, [*tasks, _PRETRAINING]):
            if client.search_registered_models(filter_string=f"name = '{name}'"):
                client.delete_registered_model(name)
            if (experiment := client.get_experiment_by_name(name)) is not None:
                for run in client.search_runs([experiment.experiment_id], max_results=1000):
                    client.delete_run(run.info.run_id)

    def _name(self, task: str) -> str:
        return task if self._server is None else f"{self.project}-{task}"

    def _address(self, folder: Path) -> str:
        """Of a folder in the store; a server takes none of the machine's that it runs on."""
        if self._server is None:
            return folder.resolve().as_uri()
        return f"geossl://{self.project}/{folder.relative_to(self.store).as_posix()}"


def _figures(row: Row, time_ms: int) -> Iterator[Any]:
    """What a row of a training's record holds, as MLflow takes it; cells may be empty."""
    from mlflow.entities import Metric

    for name, value in row.items():
        if name not in ("step", "epoch") and value not in ("", None):
            yield Metric(name, float(value), time_ms, int(row["step"]))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value
