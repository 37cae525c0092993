"""Chunks that are written without Zarr are the bytes that Zarr itself would write."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from geossl.cube.arrays import create_array
from geossl.cube.chunks import StoredArray, get, write_windows


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_the_same_bytes_as_zarrs(dtype: str) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 200, (3, 512, 512)).astype(dtype)
    pixels[:, 256:, :256] = 7  # a window of nothing but the fill value has no chunk
    pixels[:, :256, 0] = 7
    stores = [MemoryStore(), MemoryStore()]
    arrays = [
        create_array(zarr.create_group(store), "image", (2, 3, 512, 512), (1, 3, 256, 256), np.dtype(dtype), fill=7)
        for store in stores
    ]
    for array in arrays:
        array[:] = 1  # what is written over
    arrays[0][1] = pixels
    write_windows({StoredArray.of(arrays[1]): pixels}, 1)

    async def keys(store: MemoryStore) -> list[str]:
        return sorted([key async for key in store.list()])

    found = [asyncio.run(keys(store)) for store in stores]
    assert found[0] == found[1]
    assert "image/c/1/0/1/0" not in found[0]
    for key in found[0]:
        assert asyncio.run(get(stores[0], key)) == asyncio.run(get(stores[1], key)), key
