"""Versions of a task's model: which is champion, and may a challenger replace it?

JSON files below ``<store>/registry`` are the truth, so the store alone suffices::

    versions/<task>/<number>.json    one registered model; never changed
    aliases/<task>.json              champion, challenger, previous, anchor, and how they came about
    decisions/<task>-…json           every gate decision with its figures
    mlflow.db                        for MLflow's pages; made from the others at any time (:mod:`geossl.mirror`)

``champion`` makes the maps, ``previous`` is what a rollback returns to, ``challenger`` waits for a
decision, and ``anchor`` is pinned by a person, so that many small losses cannot add up.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from filelock import FileLock

from geossl.errors import StoreError
from geossl.files import write_json
from geossl.mirror import Mirror
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
    project:
        What the models' names begin with on an MLflow server, which others use too.
    """

    def __init__(self, store: Path, project: str = "geossl") -> None:
        self.store = store
        self.project = project
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
            version = next((each for each in known if each.folder == relative), None)
            again = " again" if version is not None else ""
            if version is None:
                version = Version(task, len(known) + 1, relative, _now(), tuple(scores), dict(card or {}))
                _write(self._version_path(task, version.number), version.to_dict())
            aliases = self.aliases(task)
            if "champion" not in aliases:  # one before it may have been killed before it had an alias
                self._set(task, "first version registered", champion=version.number, anchor=version.number)
            elif version.number not in (aliases["champion"], aliases.get("challenger")):
                self._set(task, f"version {version.number} registered{again}", challenger=version.number)
        return version

    def decide(self, task: str, number: int, decision: Decision) -> Path:
        """Note a gate decision on a version, and promote it where it passed. Returns the decision's file."""
        with self._changing(task):
            record = {
                "task": task,
                "time": _now(),
                "challenger": self.version(task, number).number,
                "compared_with": self._compared_with(task),
                "decision": decision.to_dict(),
            }
            path = self._decision_path(record)
            _write(path, record)
            if decision.passed:
                self._promote(task, number, _passed(path.name))
        return path

    def decided(self, task: str, number: int) -> bool:
        """Whether the gate has compared a version with the champion and the anchor that there are now."""
        now = self._compared_with(task)
        return any(e["challenger"] == number and e["compared_with"] == now for e in self.decisions(task))

    def abide(self, task: str) -> None:
        """Promote what the last decision let through, unless that was done: a kill may have come between."""
        if self._unfinished(task) is not None:
            with self._changing(task):
                pass

    def promote(self, task: str, number: int, *, why: str) -> None:
        """Make a version the champion; the one before stays as ``previous``."""
        with self._changing(task):
            self._promote(task, self.version(task, number).number, why)

    def _promote(self, task: str, number: int, why: str) -> None:
        aliases = self.aliases(task)
        champion = aliases.get("champion")
        if champion == number:
            return
        challenger = aliases.get("challenger")
        self._set(
            task, why, champion=number, previous=champion, challenger=None if challenger == number else challenger
        )

    def _compared_with(self, task: str) -> dict[str, int | None]:
        aliases = self.aliases(task)
        return {"champion": aliases.get("champion"), "anchor": aliases.get("anchor")}

    def _unfinished(self, task: str) -> tuple[int, str] | None:
        """The challenger that a passed decision has not made champion yet, and why it is to be."""
        last = next(reversed(self.decisions(task)), None)
        if last is None or not last["decision"]["passed"] or last["compared_with"] != self._compared_with(task):
            return None
        number = int(last["challenger"])
        why = _passed(self._decision_path(last).name)
        done = self.aliases(task).get("challenger") != number or any(e["why"] == why for e in self.history(task))
        return None if done else (number, why)

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

    def still(self) -> FileLock:
        """Nobody else changes an alias while it is held."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")

    def mirror(self) -> None:
        """Bring MLflow's pages into line with the JSON files; makes them where they are missing."""
        self._mirror(self.tasks())

    def rebuild(self) -> list[str]:
        """Drop what MLflow's pages have of this registry and make them anew. Returns the tasks."""
        with self.still():
            Mirror(self.store, self.project).drop(self.tasks())
            self.mirror()
            Mirror(self.store, self.project).remember(self.store / "encoders")
        return self.tasks()

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

    def _mirror(self, tasks: Iterable[str]) -> None:
        mirror = Mirror(self.store, self.project)
        for task in tasks:
            mirror.update(task, [version.to_dict() for version in self.versions(task)], self.aliases(task))

    @contextmanager
    def _changing(self, task: str) -> Iterator[None]:
        """One process at a time changes a registry; then the mirror follows."""
        with self.still():
            if (unfinished := self._unfinished(task)) is not None:  # by a process that was killed
                self._promote(task, *unfinished)
            yield
            try:
                self._mirror([task])
            except Exception:
                # the files above are already right; `mirror` catches up
                _log.warning("MLflow's mirror of %s could not be updated", self.folder, exc_info=True)


def _passed(decision: str) -> str:
    """What the history says of a promotion by the gate."""
    return f"gate passed: {decision}"


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
