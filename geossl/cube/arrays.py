"""Arrays of a cube, whatever they hold: the codec chain, typed access, and tables of equally long columns.

Every codec chain ends in a CRC-32C: under the compressor alone most flipped bits decode to wrong
numbers, and nobody hears of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from geossl.cube.chunks import wait_for


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype[Any] | type[str],
    *,
    fill: float = 0,
    dims: tuple[str, ...] = (),
    attributes: dict[str, Any] | None = None,
) -> zarr.Array[Any]:
    """A new array with checksums; ``dims`` are its dimension names, ``fill`` is for numbers only."""
    if isinstance(dtype, np.dtype):
        codec = BloscCodec(typesize=dtype.itemsize, cname="lz4", shuffle="bitshuffle")
    else:
        codec = BloscCodec(typesize=1, cname="lz4", shuffle="noshuffle")
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=dtype.type(fill) if isinstance(dtype, np.dtype) else "",
        compressors=[codec, Crc32cCodec()],
        dimension_names=dims,
        attributes=attributes or {},
    )


def subgroup(group: zarr.Group, path: str) -> zarr.Group:
    """A group within a group, typed."""
    found = group[path]
    assert isinstance(found, zarr.Group), f"{found.path} is an array"
    return found


def subarray(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """An array within a group, typed."""
    found = group[path]
    assert isinstance(found, zarr.Array), f"{found.path} is a group"
    return found


def names_in(group: zarr.Group) -> list[str]:
    """Names of all groups and arrays of a group, in no order."""

    async def names() -> list[str]:
        return [name.rstrip("/") async for name in group.store.list_dir(group.path)]

    return wait_for(names())


def column(group: zarr.Group, path: str) -> NDArray[Any]:
    """All values of a small array within a group."""
    return np.asarray(subarray(group, path)[:])


def resize(array: zarr.Array[Any], length: int) -> None:
    """Make an array this long along its first dimension; metadata is written only where that changes it."""
    if array.shape[0] != length:
        array.resize((length, *array.shape[1:]))


def write_rows(group: zarr.Group, rows: Mapping[int, Mapping[str, Any]]) -> None:
    """Write rows of a table whose columns are arrays of a group, by index; lengthens the columns as needed.

    Parameters
    ----------
    rows:
        Index → column name → value; every row has the same columns.
    """
    for name in next(iter(rows.values())) if rows else ():
        array = subarray(group, name)
        resize(array, max(array.shape[0], max(rows) + 1))
        # chunk by chunk: a table of a country's scenes is long, and a wave adds few rows to it
        for _, indices in itertools.groupby(sorted(rows), key=lambda index: index // array.chunks[0]):
            touched = list(indices)
            part = slice(touched[0], touched[-1] + 1)
            values = np.asarray(array[part])
            for index in touched:
                values[index - part.start] = rows[index][name]
            array[part] = values
