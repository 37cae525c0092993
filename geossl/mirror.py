"""What MLflow's pages show of a registry: one registered model a task, one run a version, the same aliases.

A mirror in a database beside the registry or, where ``MLFLOW_TRACKING_URI`` names a server, there, under the
project's name. It is never read: the registry's JSON files are the truth, and it is made from them at any time.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

_DATABASE = "mlflow.db"


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

    def drop(self, tasks: Iterable[str]) -> None:
        """Delete the database beside the registry; of a server, what it has of these tasks."""
        if self._server is None:
            for path in self.folder.glob(f"{_DATABASE}*"):
                path.unlink()
            return
        client = self._client
        for name in map(self._name, tasks):
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
