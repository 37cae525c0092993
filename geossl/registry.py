"""Versions of a task's model: which is champion, and may a challenger replace it?

JSON files below ``<store>/registry`` are the truth, so the store alone suffices::

    versions/<task>/<number>.json    one registered model; never changed
    aliases/<task>.json              champion, challenger, previous, anchor, and how they came about
    decisions/<task>-…json           every gate decision with its figures
    mlflow.db                        a mirror for MLflow's pages; rebuilt from the others at any time

``champion`` makes the maps, ``previous`` is what a rollback returns to, ``challenger`` waits for a
decision, and ``anchor`` is pinned by a person, so that many small losses cannot add up.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from filelock import FileLock

from geossl.errors import StoreError
from geossl.files import write_json
from geossl.scores import METRICS, MINIMUM_BLOCKS, Counts, Interval, average_precision_of, paired_bootstrap

Alias = Literal["champion", "challenger", "previous", "anchor"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """May a challenger replace the champion? With all figures that say so."""

    passed: bool
    reasons: tuple[str, ...]
    """Why not; empty where it passed."""
    metric: str
    margin: float
    blocks: int
    """Gate blocks with labels."""
    healthy: bool
    champion: Interval
    """Challenger minus champion."""
    anchor: Interval
    """Challenger minus anchor."""

    @classmethod
    def refused(cls, reason: str, *, metric: str, margin: float) -> Self:
        """The decision on a challenger that could not even be compared."""
        unknown = Interval(math.nan, None, None)
        return cls(False, (reason,), metric, margin, 0, True, unknown, unknown)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def gate(
    challenger: Counts,
    champion: Counts,
    anchor: Counts,
    *,
    healthy: bool,
    metric: str = "macro_f1",
    margin: float = 0.01,
) -> Decision:
    """Is a challenger provably not worse than the champion and the anchor?

    It is if the lower end of the 95 % interval of its score minus theirs, paired over gate blocks,
    is above ``-margin``, and its training was healthy.

    Parameters
    ----------
    challenger, champion, anchor:
        (blocks, …) counts of the same gate blocks in the same order: (B, K, K) confusions, or for
        ``average_precision`` (B, 2, bins) histograms.
    metric:
        One of :data:`geossl.scores.METRICS`, or ``average_precision``.
    """
    of_counts = average_precision_of if metric == "average_precision" else METRICS[metric]
    blocks = int(np.count_nonzero(challenger.reshape(len(challenger), -1).any(axis=1)))
    differences = {
        name: paired_bootstrap(challenger, other, of_counts)
        for name, other in (("champion", champion), ("anchor", anchor))
    }
    reasons = [] if healthy else ["its training was not healthy"]
    for name, difference in differences.items():
        if difference.low is None:
            reasons.append(
                f"{blocks} gate blocks with labels allow no claim against the {name}; {MINIMUM_BLOCKS} are needed"
            )
        elif difference.low <= -margin:
            reasons.append(f"it may be worse than the {name} by {-difference.low:.4f}, more than the margin {margin:g}")
    return Decision(not reasons, tuple(reasons), metric, margin, blocks, healthy, **differences)


@dataclass(frozen=True, slots=True)
class Version:
    """One registered model of a task."""

    task: str
    number: int
    """1, 2, … in order of registration."""
    folder: str
    """Relative to the store."""
    created: str
    """ISO 8601, UTC."""
    scores: tuple[dict[str, Any], ...] = ()
    """Rows as :func:`geossl.scores.score_row` makes them."""
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the model says about itself."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "scores": tuple(data["scores"])})


class Registry:
    """The models of a store.

    Parameters
    ----------
    store:
        Root folder of the store.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.folder = store / "registry"

    def tasks(self) -> list[str]:
        """Tasks that have a registered model."""
        return sorted(path.stem for path in self.folder.glob("aliases/[!.]*.json"))

    def versions(self, task: str) -> list[Version]:
        """All versions of a task, oldest first."""
        found = [Version.from_dict(_read(path)) for path in self.folder.glob(f"versions/{task}/[!.]*.json")]
        return sorted(found, key=lambda version: version.number)

    def version(self, task: str, number: int) -> Version:
        path = self._version_path(task, number)
        if not path.is_file():
            known = ", ".join(str(version.number) for version in self.versions(task)) or "none"
            raise StoreError(f"the task {task!r} has no version {number}", f"its versions are: {known}")
        return Version.from_dict(_read(path))

    def aliases(self, task: str) -> dict[Alias, int]:
        """Version numbers by alias."""
        return self._state(task)["aliases"]

    def find(self, task: str, alias: Alias) -> Version | None:
        """The version that an alias names; None where it names none."""
        number = self.aliases(task).get(alias)
        return None if number is None else self.version(task, number)

    def history(self, task: str) -> list[dict[str, Any]]:
        """Every change of the aliases: time, why, and the aliases after it; oldest first."""
        return self._state(task)["history"]

    def decisions(self, task: str) -> list[dict[str, Any]]:
        """All gate decisions, oldest first."""
        found = [_read(path) for path in self.folder.glob("decisions/[!.]*.json")]
        return sorted((entry for entry in found if entry["task"] == task), key=lambda entry: entry["time"])

    def register(
        self, task: str, folder: Path, *, scores: Sequence[dict[str, Any]] = (), card: Mapping[str, Any] | None = None
    ) -> Version:
        """Register a trained model; the first of a task becomes champion and anchor, others challenger.

        Registering a folder again returns the version that it has; it is challenger again if it is not champion.
        """
        relative = folder.resolve().relative_to(self.store.resolve()).as_posix()
        with self._changing(task):
            known = self.versions(task)
            version = next((version for version in known if version.folder == relative), None)
            again = " again" if version is not None else ""
            if version is None:
                version = Version(task, len(known) + 1, relative, _now(), tuple(scores), dict(card or {}))
                _write(self._version_path(task, version.number), version.to_dict())
            aliases = self.aliases(task)
            if "champion" not in aliases:  # so too where a crash came between the version and its aliases
                self._set(task, "first version registered", champion=version.number, anchor=version.number)
            elif version.number not in (aliases["champion"], aliases.get("challenger")):
                self._set(task, f"version {version.number} registered{again}", challenger=version.number)
        return version

    def decide(self, task: str, number: int, decision: Decision) -> Path:
        """Note a gate decision on a version, and promote it where it passed. Returns the decision's file."""
        time = _now()
        record = {
            "task": task,
            "time": time,
            "challenger": self.version(task, number).number,
            "compared_with": {name: self.aliases(task).get(name) for name in ("champion", "anchor")},
            "decision": decision.to_dict(),
        }
        path = self._decision_path(record)
        _write(path, record)
        self.abide(task)
        return path

    def abide(self, task: str) -> None:
        """Promote what the last decision let through, unless that was done: a crash may have come between."""
        for last in self.decisions(task)[-1:]:
            why = f"gate passed: {self._decision_path(last).name}"
            if last["decision"]["passed"] and why not in (change["why"] for change in self.history(task)):
                self.promote(task, last["challenger"], why=why)

    def promote(self, task: str, number: int, *, why: str) -> None:
        """Make a version the champion; the one before stays as ``previous``."""
        with self._changing(task):
            self.version(task, number)
            aliases = self.aliases(task)
            champion = aliases.get("champion")
            if champion == number:
                return
            challenger = aliases.get("challenger")
            self._set(
                task, why, champion=number, previous=champion, challenger=None if challenger == number else challenger
            )

    def rollback(self, task: str, *, why: str) -> Version:
        """Make the previous champion the champion again."""
        with self._changing(task):
            previous = self.find(task, "previous")
            if previous is None:
                raise StoreError(f"the task {task!r} has no previous champion", "promote another version by its number")
            self._set(task, why, champion=previous.number, previous=None)
        return previous

    def pin_anchor(self, task: str, number: int, *, why: str) -> None:
        """Move the anchor; for a person to do, never for a flow."""
        with self._changing(task):
            self._set(task, why, anchor=self.version(task, number).number)

    def mirror(self) -> None:
        """Bring MLflow's database into line with the JSON files; makes it where it is missing."""
        client = _mlflow(self.folder / "mlflow.db")
        for task in self.tasks():
            _mirror(client, self, task)

    def _version_path(self, task: str, number: int) -> Path:
        return self.folder / "versions" / task / f"{number}.json"

    def _decision_path(self, record: Mapping[str, Any]) -> Path:
        time = record["time"].replace(":", "")
        return self.folder / "decisions" / f"{record['task']}-v{record['challenger']}-{time}.json"

    def _state(self, task: str) -> dict[str, Any]:
        path = self.folder / "aliases" / f"{task}.json"
        return _read(path) if path.is_file() else {"aliases": {}, "history": []}

    def _set(self, task: str, why: str, **changes: int | None) -> None:
        """Change aliases in one move; None removes one."""
        state = self._state(task)
        aliases = {name: number for name, number in (state["aliases"] | changes).items() if number is not None}
        entry = {"time": _now(), "why": why, "aliases": aliases}
        _write(self.folder / "aliases" / f"{task}.json", {"aliases": aliases, "history": [*state["history"], entry]})

    @contextmanager
    def _changing(self, task: str) -> Iterator[None]:
        """One process at a time changes a registry; then the mirror follows."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            yield
            try:
                _mirror(_mlflow(self.folder / "mlflow.db"), self, task)
            except Exception:
                # the files above are already right; `mirror` catches up
                _log.warning("MLflow's mirror of %s could not be updated", self.folder, exc_info=True)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: dict[str, Any]) -> None:
    write_json(path, _finite(content))


def _finite(content: Any) -> Any:
    """JSON knows no NaN: a score that is not defined is null."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _mlflow(database: Path) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # or it announces every table
    from mlflow import MlflowClient  # takes a second

    uri = f"sqlite:///{database.resolve()}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _mirror(client: Any, registry: Registry, task: str) -> None:
    """One MLflow model a task, one run with metrics a version, the same numbers and aliases."""
    found = client.search_registered_models(filter_string=f"name = '{task}'")
    model = found[0] if found else client.create_registered_model(task)
    mirrored = len(client.search_model_versions(f"name = '{task}'"))
    experiment = client.get_experiment_by_name(task)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(task, (registry.folder / "artifacts").resolve().as_uri())
    )
    for version in registry.versions(task)[mirrored:]:
        run = client.create_run(experiment_id, run_name=f"{task} v{version.number}", tags={"folder": version.folder})
        for row in version.scores:
            if row["mean"] is not None:
                name = "/".join(str(row[key]) for key in ("split", "labels", "model", "metric"))
                client.log_metric(run.info.run_id, re.sub(r"[^\w ./:-]", "-", name), row["mean"])
        client.set_terminated(run.info.run_id)
        source = (registry.store / version.folder).resolve().as_uri()
        client.create_model_version(task, source, run.info.run_id)
    aliases = registry.aliases(task)
    for alias in model.aliases.keys() - aliases.keys():
        client.delete_registered_model_alias(task, alias)
    for alias, number in aliases.items():
        client.set_registered_model_alias(task, alias, str(number))
