"""The same search by Milvus: a Milvus Lite file beside the embeddings, or a server for more than fit one machine.

The GeoParquet files stay the truth. What is in Milvus is brought into line with them scene by scene
(:meth:`Milvus.sync`), and can be dropped at any time.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geossl.errors import SettingsError, StoreError
from geossl.files import read_json, write_json
from geossl.progress import Progress, silent
from geossl.search.nearest import Apart, Hit, Question
from geossl.search.places import Corners
from geossl.search.settings import SearchSettings
from geossl.search.table import Embeddings, Floats, Where

LITE = "lite"
"""The address of the file in the store."""

MOST = 16384
"""Chips that Milvus gives in one answer at most."""

_TEXT = 4096  # bytes of an id at most
_NOTES = "_milvus.json"
_TIMEOUT = 30.0  # seconds


def address(settings: SearchSettings) -> str | None:
    """Where Milvus is: :data:`LITE`, the address of a server, or None without Milvus.

    Raises
    ------
    SettingsError
        A server is named, but the extra ``search`` is not installed.
    """
    installed = importlib.util.find_spec("pymilvus") is not None
    if settings.milvus == "none":
        return None
    if settings.milvus == "auto":
        return LITE if installed and importlib.util.find_spec("milvus_lite") is not None else None
    if not installed:
        raise SettingsError(
            f"search.milvus names {settings.milvus}, but the extra `search` is not installed",
            "install geossl[search], or leave search.milvus out: the search is then exact, without Milvus",
        )
    return settings.milvus


_OURS = "geossl_"


class Milvus:
    """The embeddings of one folder in Milvus. A context manager: a Milvus Lite file is open for one process alone.

    Raises
    ------
    StoreError
        It cannot be reached or opened.
    """

    def __init__(self, uri: str, embeddings: Embeddings) -> None:
        from pymilvus import MilvusClient

        self.uri = uri
        self.embeddings = embeddings
        self.collection = _name(embeddings.folder)
        self._file = embeddings.folder.parent / "milvus.db" if uri == LITE else None
        if self._file is not None and not os.access(self._file.parent, os.W_OK):
            raise StoreError(
                f"the Milvus Lite file {self._file} lies in a folder that may not be written, and Milvus writes to it even "
                "to search",
                "ask for the right to, or search without Milvus: `--set search.milvus=none`",
            )
        logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)  # what goes wrong is told below
        with self._told():
            self._client = MilvusClient(
                uri=str(self._file or uri), token=os.environ.get("MILVUS_TOKEN", ""), timeout=_TIMEOUT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        if self._file is not None:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(str(self._file))

    def sync(self, progress: Progress = silent) -> int:
        """Bring Milvus into line with the files; returns how many scenes were written."""
        keys = self.embeddings.keys()
        with self._told():
            self._forget()
            there = self._there()
            due = [scene for scene, key in keys.items() if there.get(scene, {}).get("key") != key]
            for scene in [*(there.keys() - keys.keys()), *due]:
                self._client.delete(self.collection, filter=f"scene == {json.dumps(scene, ensure_ascii=False)}")
                there.pop(scene, None)
            self._note(there)
            for done, scene in enumerate(due, start=1):
                count = 0
                for rows in self._rows(scene):
                    self._client.insert(self.collection, rows)
                    count += len(rows)
                there[scene] = {"key": keys[scene], "chips": count}
                self._note(there)
                progress("Milvus", done, len(due))
            if due:
                self._client.flush(self.collection)
        return len(due)

    def nearest(self, question: Question, where: Where, most: int) -> list[Hit]:
        """As :meth:`geossl.search.nearest.Index.nearest`: what was taken is excluded, and asked again, as often as it takes."""
        size = self.embeddings.about.lattice.size
        rule, hits = Apart(question.places, size), list[Hit]()
        limit = min(MOST, 64 * most)
        with self._told():
            self._client.load_collection(self.collection)
            while len(hits) < most:
                found = self._search(question.vector, " and ".join([*_where(where), *_around(rule.taken, size)]), limit)
                for hit, place in found:
                    if len(hits) < most and rule.takes(place):
                        hits.append(hit)
                if len(found) < limit:
                    break
        return hits

    def _search(self, vector: Floats, wanted: str, limit: int) -> list[tuple[Hit, NDArray[np.int64]]]:
        found = self._client.search(
            self.collection,
            data=[vector.tolist()],
            filter=wanted,
            limit=limit,
            output_fields=["scene", "time", "tile", "row", "col", "top", "left", "clear"],
            search_params={"metric_type": "COSINE"},
        )
        return [(_hit(one["entity"], one["distance"]), _place(one["entity"])) for one in found[0]]

    def _there(self) -> dict[str, dict[str, Any]]:
        """Scene → key and number of its chips in Milvus; makes the collection where it is missing or not as it was left."""
        notes = read_json(self.embeddings.folder / _NOTES) or {}
        if self._client.has_collection(self.collection):
            self._client.load_collection(self.collection)
            counted = self._client.query(self.collection, filter="", output_fields=["count(*)"])[0]["count(*)"]
            scenes = dict(notes.get("scenes", {}))
            if notes.get("uri") == self.uri and sum(scene["chips"] for scene in scenes.values()) == counted:
                return scenes
            self._client.drop_collection(self.collection)
        self._create()
        return {}

    def _forget(self) -> None:
        """Drop what a file holds of folders that are gone; on a server, collections may be somebody else's."""
        if self._file is not None:
            there = {_name(folder) for folder in self._file.parent.iterdir()}
            for name in self._client.list_collections():
                if name.startswith(_OURS) and name not in there:
                    self._client.drop_collection(name)

    def _note(self, scenes: dict[str, dict[str, Any]]) -> None:
        content = {"uri": self.uri, "collection": self.collection, "scenes": scenes}
        write_json(self.embeddings.folder / _NOTES, content)

    def _create(self) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_TEXT)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.embeddings.about.dim)
        for name in ("scene", "tile"):
            schema.add_field(name, DataType.VARCHAR, max_length=_TEXT)
        for name in ("time", "row", "col", "top", "left"):
            schema.add_field(name, DataType.INT64)
        schema.add_field("clear", DataType.FLOAT)
        index = self._client.prepare_index_params()
        # a file is searched exactly; a server knows best what index suits it
        index.add_index("vector", index_type="FLAT" if self._file else "AUTOINDEX", metric_type="COSINE")
        self._client.create_collection(self.collection, schema=schema, index_params=index, consistency_level="Strong")

    def _rows(self, scene: str) -> Iterator[list[dict[str, Any]]]:
        """A scene's chips as Milvus wants them. A time is in seconds since 1970."""
        columns = ["tile", "row", "col", "time", "clear_fraction", "embedding"]
        for table in self.embeddings.scan(columns, scene=scene):
            corners, vectors = self.embeddings.corners(table), self.embeddings.vectors(table)
            plain = table.drop_columns(["embedding"]).to_pylist()
            yield [
                {
                    "id": f"{scene}/{chip['tile']}/{chip['row']}/{chip['col']}",
                    "vector": vector.tolist(),
                    "scene": scene,
                    "tile": chip["tile"],
                    "time": int(chip["time"].timestamp()),
                    "row": chip["row"],
                    "col": chip["col"],
                    "top": top,
                    "left": left,
                    "clear": chip["clear_fraction"],
                }
                for chip, vector, (top, left) in zip(plain, vectors, corners.tolist(), strict=True)
            ]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Milvus's own errors as ones for people."""
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            if self._file is None:
                what = f"Milvus at {self.uri}: {error}"
                remedy = (
                    "start it, or look at search.milvus and MILVUS_TOKEN; what it has lost `geossl embed` writes anew"
                )
            else:
                what = f"the Milvus Lite file {self._file}: {error}"
                remedy = (
                    "wait for the other process that has it open; where there is none, delete it and run `geossl embed`"
                )
            raise StoreError(what, f"{remedy}; `--set search.milvus=none` searches without Milvus") from error


def _name(folder: Path) -> str:
    """What the embeddings of a folder are called in Milvus."""
    return _OURS + re.sub(r"\W", "_", folder.name)


def _where(where: Where) -> list[str]:
    """The filter as Milvus writes it."""

    def seconds(time: dt.datetime) -> int:
        return int(time.timestamp())

    start, stop = where.span()
    return [
        # the column holds single precision, and the comparison is in double
        *([f"clear >= {float(np.float32(where.clear))}"] if where.clear else []),
        *([f"time >= {seconds(start)}"] if start else []),
        *([f"time < {seconds(stop)}"] if stop else []),
    ]


def _around(places: Corners, size: int) -> list[str]:
    """Conditions that keep away from places as :func:`geossl.search.places.near` does, one a row of neighbours."""
    conditions = []
    for first, last in _runs(places, size):
        (top, left), right = first, last[1]
        conditions.append(
            f"(top < {top - size} or top > {top + size} or left < {left - size} or left > {right + size})"
        )
    return conditions


def _runs(places: Corners, size: int) -> list[tuple[list[int], list[int]]]:
    """First and last of places in one row of the lattice whose surroundings meet."""
    runs: list[tuple[list[int], list[int]]] = []
    for place in np.unique(places, axis=0).tolist():
        if runs and runs[-1][1][0] == place[0] and place[1] - runs[-1][1][1] <= 2 * size + 1:
            runs[-1] = runs[-1][0], place
        else:
            runs.append((place, place))
    return runs


def _hit(chip: dict[str, Any], similarity: float) -> Hit:
    time = np.datetime64(int(chip["time"]), "s")
    return Hit(chip["scene"], time, chip["tile"], int(chip["row"]), int(chip["col"]), float(chip["clear"]), similarity)


def _place(chip: dict[str, Any]) -> NDArray[np.int64]:
    return np.array([chip["top"], chip["left"]], np.int64)
