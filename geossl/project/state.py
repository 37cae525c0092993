"""What exists of a project, and what is stale.

A stage is done when its record in ``<store>/state`` names the same inputs as it would be given now:
its own settings and the identity of what it reads (scenes and revisions, label layers, encoder, task).
Nothing is counted and nothing is inferred from times, so running a stage twice does nothing, and a
stage that was interrupted is run again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from geossl.cube.collection import Collection
from geossl.files import read_json, write_json


def fingerprint(**inputs: Any) -> str:
    """A short, stable name for a set of inputs (settings models, plain JSON data)."""

    def plain(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json")
        raise TypeError(f"{type(value).__name__} has no stable JSON form")

    text = json.dumps(inputs, sort_keys=True, default=plain)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def content(images: Collection) -> str:
    """A short, stable name for what a collection holds: the same scenes in the same revisions, the same name."""
    images.load("scene_id", "source_checksum", "revision")
    tiles = {tile_id: images.sources(tile_id) for tile_id in images.tile_ids}
    return fingerprint(name=images.name, sensor=images.sensor.to_dict(), grid=images.grid.to_dict(), tiles=tiles)


@dataclass
class Record:
    """One finished stage."""

    stage: str
    key: str
    """Fingerprint of what the stage was given."""
    finished: str
    """ISO time, UTC."""
    seconds: float
    result: dict[str, Any] = field(default_factory=dict)
    """What the stage wants to be known of it: ids, paths below the store, counts."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


class State:
    """The records of all stages of one project."""

    def __init__(self, store: Path) -> None:
        self.folder = store / "state"

    def get(self, stage: str) -> Record | None:
        """The last finished run of a stage, whatever it was given."""
        data = read_json(self.folder / f"{stage}.json")
        return Record.from_dict(data) if data is not None else None

    def fresh(self, stage: str, key: str) -> Record | None:
        """The last finished run, if it was given the same as now."""
        record = self.get(stage)
        return record if record is not None and record.key == key else None

    def records(self) -> list[Record]:
        """All finished stages, oldest first."""
        found = [Record.from_dict(read_json(path)) for path in self.folder.glob("[!.]*.json")]  # type: ignore[arg-type]
        return sorted(found, key=lambda record: record.finished)

    @contextmanager
    def recording(self, stage: str, key: str) -> Iterator[dict[str, Any]]:
        """Run a stage: what the block puts into the yielded dict is recorded when it ends well."""
        result: dict[str, Any] = {}
        start = time.perf_counter()
        yield result
        record = Record(
            stage, key, datetime.now(UTC).isoformat(timespec="microseconds"), time.perf_counter() - start, result
        )
        write_json(self.folder / f"{stage}.json", record.__dict__)
