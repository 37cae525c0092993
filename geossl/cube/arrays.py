"""Arrays of a cube, whatever they hold: the codec chain, and typed access.

Every codec chain ends in a CRC-32C: under the compressor alone most flipped bits decode to wrong
numbers, and nobody hears of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.sync import sync


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

    return sync(names())


def column(group: zarr.Group, path: str) -> NDArray[Any]:
    """All values of a small array within a group."""
    return np.asarray(subarray(group, path)[:])


def resize(array: zarr.Array[Any], length: int) -> None:
    """Make an array this long along its first dimension; metadata is written only where that changes it."""
    if array.shape[0] != length:
        array.resize((length, *array.shape[1:]))
