"""What a training that runs elsewhere and whoever waits for it know of each other: a folder of small files."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geossl.errors import TrainingError
from geossl.files import read_json, write_json
from geossl.progress import Progress

_TAIL = 20
"""Lines of the log that are shown of a training that failed."""


@dataclass(frozen=True)
class Job:
    """One training.

    Parameters
    ----------
    name:
        Lower-case letters, digits and hyphens, at most 60: jobs of clusters are called so.
    root:
        The project's folder, on a file system that all machines share.
    folder:
        Below it, for what is to be known of the training.
    module:
        What each rank runs, as ``python -m MODULE FOLDER``.
    """

    name: str
    root: Path
    folder: Path
    module: str

    def begin(self, plan: dict[str, Any]) -> None:
        """Write down what is to be trained; what an earlier attempt said and failed of no longer counts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.failure, self.crashes, self.progress):
            path.unlink(missing_ok=True)
        write_json(self.plan, plan)

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def log(self) -> Path:
        """What the ranks printed, of all attempts."""
        return self.folder / "log.txt"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.json"

    @property
    def failure(self) -> Path:
        """Why it is of no use to start again."""
        return self.folder / "failed.json"

    @property
    def crashes(self) -> Path:
        """A line for each attempt that a Slurm job lost."""
        return self.folder / "crashes"

    @property
    def done(self) -> dict[str, Any] | None:
        """What the training wants to be known of it, once it is finished."""
        found: dict[str, Any] | None = read_json(self.folder / "done.json")
        return found

    def end(self, result: dict[str, Any]) -> None:
        """Say that it is finished; the last thing that the first rank does."""
        write_json(self.folder / "done.json", result)

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def tell(self, progress: Progress) -> None:
        """Pass on how far the first rank is."""
        said = read_json(self.progress)
        if said is not None:
            progress(said["what"], said["done"], said["total"], said.get("note", ""))  # an older agent says none

    def require_sound(self) -> None:
        """Raise what a rank raised that starting again does not mend.

        Raises
        ------
        TrainingError
            In the rank's own words.
        """
        said = read_json(self.failure)
        if said is not None:
            raise TrainingError(said["what"], said["remedy"])

    def lost(self, what: str) -> TrainingError:
        """The error of a training that ended without saying why, with the end of its log."""
        lines: deque[str] = deque(maxlen=_TAIL)
        if self.log.exists():
            with self.log.open(encoding="utf-8", errors="replace") as file:
                lines.extend(file)
        said = "".join(f"\n  | {line.rstrip()}" for line in lines)
        return TrainingError(
            f"{what}; the last lines of {self.log}:{said}", "the same command goes on from the last checkpoint"
        )


@dataclass
class Told:
    """A listener that writes down how far the first rank is, twice a second."""

    path: Path
    _time: float = dataclasses.field(default=0.0)

    def __call__(self, what: str, done: int, total: int | None, note: str = "") -> None:
        if time.monotonic() - self._time > 0.5 or done == total:
            self._time = time.monotonic()
            write_json(self.path, {"what": what, "done": done, "total": total, "note": note})
