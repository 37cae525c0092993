"""Small arrays as wholes, many at once: what is known of steps and scenes, one value a row.

Zarr asks the store for one thing after the other, about a dozen times for every array that it reads or lengthens;
a large cube has ten thousands of them. The cube's layout promises what lies where, so all are asked for together.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numcodecs import blosc  # type: ignore[import-untyped]  # ships no types
from numcodecs.vlen import VLenUTF8  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.sync import sync

from geossl.cube.chunks import StoredArray, encoded, get, put, sealed, together, verified
from geossl.errors import StoreError

Rows = Mapping[int, Mapping[str, Any]]
"""Index → column name → value; every row has the same columns."""


def read_columns(store: Store, paths: Sequence[str]) -> list[NDArray[Any]]:
    """The values of many small arrays, numbers or text, that are chunked along their first dimension alone.

    Raises
    ------
    StoreError
        One is not there or damaged; the message names it.
    """

    async def read(path: str) -> NDArray[Any]:
        return await (await _Column.open(store, path)).read()

    return sync(together(map(read, paths)))


def read_shapes(store: Store, paths: Sequence[str]) -> list[tuple[int, ...]]:
    """The shapes of many arrays; :class:`StoreError` where one is not there."""

    async def shape(path: str) -> tuple[int, ...]:
        return tuple((await _metadata(store, path))["shape"])

    return sync(together(map(shape, paths)))


def write_rows(store: Store, tables: Mapping[str, Rows]) -> None:
    """Write rows of tables whose columns are arrays of a group; lengthens the columns as needed.

    Parameters
    ----------
    tables:
        Path of the group → its rows.
    """

    async def write(path: str, values: Mapping[int, Any]) -> None:
        await (await _Column.open(store, path)).write(values)

    work = [
        write(f"{path}/{name}", {index: row[name] for index, row in rows.items()})
        for path, rows in tables.items()
        for name in next(iter(rows.values()), {})
    ]
    sync(together(work))


def lengthen(store: Store, lengths: Mapping[str, int]) -> None:
    """Make arrays (by path) this long along their first dimension, where they are shorter."""

    async def one(path: str, length: int) -> None:
        await _lengthen(store, path, await _metadata(store, path), length)

    sync(together(itertools.starmap(one, lengths.items())))


async def _metadata(store: Store, path: str) -> dict[str, Any]:
    document = await get(store, f"{path}/zarr.json")
    if document is None:
        raise StoreError(f"the cube has no array {path}", "run `geossl cube check`")
    return dict(json.loads(document))


async def _lengthen(store: Store, path: str, metadata: Mapping[str, Any], length: int) -> None:
    shape = metadata["shape"]
    if shape[0] < length:
        document = {**metadata, "shape": [length, *shape[1:]]}
        await put(store, f"{path}/zarr.json", json.dumps(document).encode())


@dataclass(frozen=True)
class _Column:
    """One small array, numbers or text, and its metadata."""

    array: StoredArray
    metadata: Mapping[str, Any]

    @classmethod
    async def open(cls, store: Store, path: str) -> Self:
        metadata = await _metadata(store, path)
        shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        text = metadata["data_type"] == "string"
        dtype = np.dtype(object if text else metadata["data_type"])
        return cls(StoredArray(store, path, tuple(shape), dtype, metadata["fill_value"]), metadata)

    @property
    def length(self) -> int:
        return int(self.metadata["shape"][0])

    async def read(self) -> NDArray[Any]:
        step, *rest = self.array.chunk_shape
        out = np.empty((-(-self.length // step) * step, *rest), self.array.dtype)
        for number in range(len(out) // step):
            await self._read(number, out[number * step : (number + 1) * step])
        return out[: self.length].copy()

    async def write(self, values: Mapping[int, Any]) -> None:
        step = self.array.chunk_shape[0]
        await _lengthen(self.array.store, self.array.path, self.metadata, max(values) + 1)
        # chunk by chunk: a table of a country's scenes is long, and a wave adds few rows to it
        for number, indices in itertools.groupby(sorted(values), key=lambda index: index // step):
            chunk = np.empty(self.array.chunk_shape, self.array.dtype)
            await self._read(number, chunk)
            for index in indices:
                chunk[index - number * step] = values[index]
            await self._write(number, chunk)

    def _key(self, number: int) -> str:
        return self.array.key(number, *(0 for _ in self.array.chunk_shape[1:]))

    async def _read(self, number: int, out: NDArray[Any]) -> None:
        data = await self.array.get(self._key(number))
        if self.array.dtype == object and data is not None:
            out[:] = VLenUTF8().decode(blosc.decompress(verified(self._key(number), data)))
        else:
            self.array.decode(self._key(number), data, out)

    async def _write(self, number: int, chunk: NDArray[Any]) -> None:
        if (chunk == self.array.fill).all():
            data = None
        elif self.array.dtype == object:
            data = sealed(blosc.compress(VLenUTF8().encode(chunk), b"lz4", 5, blosc.NOSHUFFLE))
        else:
            data = encoded(chunk)
        await put(self.array.store, self._key(number), data)
