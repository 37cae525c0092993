"""Descriptions on disk, a file a scene: what was described once is not read again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from geossl.drift.describe import Description
from geossl.files import file_name, read_arrays, write_arrays


class Descriptions:
    """A folder of descriptions by one encoder; names of files say which scene in which revision."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, scene: str, checksum: str) -> Description | None:
        """The description of a scene from files of this checksum; None where there is none that can be read."""
        found = read_arrays(self._path(scene, checksum), "time", *_ARRAYS)
        if found is None:
            return None
        return Description(scene, np.datetime64(int(found["time"]), "ns"), **{field: found[field] for field in _ARRAYS})

    def put(self, checksum: str, description: Description) -> None:
        """Keep a description; it is there as a whole or not at all."""
        arrays = {field: getattr(description, field) for field in _ARRAYS}
        time = description.time.astype("datetime64[ns]").astype(np.int64)
        write_arrays(self._path(description.scene, checksum), time=time, **arrays)

    def _path(self, scene: str, checksum: str) -> Path:
        return self.folder / file_name(f"{scene} {checksum}", ".npz")


_ARRAYS = tuple(field.name for field in dataclasses.fields(Description) if field.name not in ("scene", "time"))
