"""Stored chunks without Zarr's indexing: raw bytes from the store, checked and decoded into place.

Indexing through Zarr one chip at a time copies every chunk several times, and opening an array costs it a
millisecond, of which a large cube has ten thousands. The cube promises one codec chain (little-endian bytes,
Blosc, CRC-32C), so a chunk can be decoded straight to where it is wanted,
and written without being asked for first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr
from icechunk import IcechunkError
from numcodecs import blosc  # type: ignore[import-untyped]  # ships no types
from numcodecs.vlen import VLenUTF8  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.buffer.cpu import Buffer as CpuBuffer
from zarr.core.sync import sync

from geossl.errors import StoreError

_REMEDY = "run `geossl cube check --repair`, then ingest again; or read an older snapshot"

IN_FLIGHT = 64
"""Most small chunks that are asked of the store at the same time."""


def verified(key: str, data: bytes) -> NDArray[np.uint8]:
    """The bytes of a chunk before its CRC-32C, which is the last four; nothing is decoded.

    Raises
    ------
    StoreError
        The checksum does not match; the message names the chunk.
    """
    content, checksum = np.frombuffer(data, np.uint8)[:-4], data[-4:]
    if google_crc32c.value(content).to_bytes(4, "little") != checksum:
        raise StoreError(f"chunk {key} is damaged: its checksum does not match", _REMEDY)
    return content


async def get(store: Store, key: str) -> bytes | None:
    """What lies at a key of the store, None where there is nothing; :class:`StoreError` names what is gone."""
    try:
        buffer = await store.get(key, default_buffer_prototype())
    except IcechunkError as error:
        raise StoreError(f"chunk {key} cannot be read: {reason(error)}", _REMEDY) from error
    return None if buffer is None else buffer.to_bytes()


def reason(error: Exception) -> str:
    """What Icechunk says went wrong, without the stack that it prints below."""
    return str(error).partition("\n")[0]


def wait_for[T](work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end, also where the caller has an event loop of its own (a notebook has one)."""
    with ThreadPoolExecutor(1, "geossl-fetch") as thread:
        return thread.submit(asyncio.run, work).result()


def read_columns(store: Store, paths: Sequence[str]) -> list[NDArray[Any]]:
    """The values of many small arrays, numbers or text, that are chunked along their first dimension alone.

    Raises
    ------
    StoreError
        One is not there or damaged; the message names it.
    """
    return wait_for(_together(_read_column(store, path) for path in paths))


def read_shapes(store: Store, paths: Sequence[str]) -> list[tuple[int, ...]]:
    """The shapes of many arrays; :class:`StoreError` where one is not there."""

    async def shape(path: str) -> tuple[int, ...]:
        return tuple((await _metadata(store, path))["shape"])

    return wait_for(_together(map(shape, paths)))


async def _together[T](work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(item: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await item

    return await asyncio.gather(*map(one, work))


async def _metadata(store: Store, path: str) -> dict[str, Any]:
    document = await get(store, f"{path}/zarr.json")
    if document is None:
        raise StoreError(f"the cube has no array {path}", "run `geossl cube check`")
    return dict(json.loads(document))


async def _read_column(store: Store, path: str) -> NDArray[Any]:
    metadata = await _metadata(store, path)
    length, *rest = metadata["shape"]
    step = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    text = metadata["data_type"] == "string"
    dtype = np.dtype(object if text else metadata["data_type"])
    array = StoredArray(store, path, (step, *rest), dtype, metadata["fill_value"])
    out = np.empty((-(-length // step) * step, *rest), dtype)
    for number in range(len(out) // step):
        key, part = array.key(number, *(0 for _ in rest)), out[number * step : (number + 1) * step]
        data = await array.get(key)
        if text and data is not None:
            part[:] = VLenUTF8().decode(blosc.decompress(verified(key, data)))
        else:
            array.decode(key, data, part)
    return out[:length].copy()


@dataclass(frozen=True, eq=False)
class StoredArray:
    """The chunks of one array, as bytes and as pixels."""

    store: Store
    path: str
    chunk_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> Self:
        """The same array.

        Raises
        ------
        StoreError
            It is not stored as the cube's layout promises.
        """
        codecs = getattr(array.metadata, "codecs", ())  # Zarr 2 has none
        if [type(codec) for codec in codecs] != [BytesCodec, BloscCodec, Crc32cCodec] or array.dtype.byteorder == ">":
            raise StoreError(
                f"{array.path} is stored with codecs {', '.join(type(codec).__name__ for codec in codecs)}",
                "write cubes with geossl, not with other tools",
            )
        return cls(array.store, array.path, array.chunks, array.dtype, array.fill_value)

    def key(self, *chunk: int) -> str:
        """Where the chunk with these indices lies in the store."""
        return "/".join([self.path, "c", *map(str, chunk)])

    async def get(self, key: str) -> bytes | None:
        """The bytes of a chunk; None where it holds nothing but the fill value."""
        return await get(self.store, key)

    def decode(self, key: str, data: bytes | None, out: NDArray[Any]) -> None:
        """Decode a chunk into a C-contiguous array of as many elements.

        Raises
        ------
        StoreError
            The bytes are damaged; the message names the chunk.
        """
        if data is None:
            out[...] = self.fill
            return
        content = verified(key, data)
        try:
            blosc.decompress(content, out)
        except (RuntimeError, ValueError) as error:
            raise StoreError(f"chunk {key} is damaged: {error}", _REMEDY) from error

    def windows(self, step: int, pixels: NDArray[Any]) -> Iterator[tuple[str, Buffer | None]]:
        """One step (…, H, W) as chunks of whole windows: where each lies, and its bytes; None where it would hold
        nothing but the fill value."""
        side = self.chunk_shape[-1]
        window = np.empty(self.chunk_shape[1:], self.dtype)
        first = (0,) * (pixels.ndim - 2)
        for y, x in np.ndindex(pixels.shape[-2] // side, pixels.shape[-1] // side):
            np.copyto(window, pixels[..., y * side : (y + 1) * side, x * side : (x + 1) * side])
            # one number tells most windows from empty ones
            empty = window.flat[0] == self.fill and bool((window == self.fill).all())
            yield self.key(step, *first, y, x), None if empty else encoded(window)


def encoded(chunk: NDArray[Any]) -> Buffer:
    """The bytes that Zarr would store for a chunk, by the codecs of :func:`geossl.cube.arrays.create_array`."""
    data = blosc.compress(chunk, b"lz4", 5, blosc.BITSHUFFLE)
    return CpuBuffer.from_bytes(data + google_crc32c.value(data).to_bytes(4, "little"))


def write_windows(planes: Mapping[StoredArray, NDArray[Any]], step: int) -> None:
    """Write one step of several arrays of a tile, each (…, H, W): whole chunks, all of them at once."""

    async def put(store: Store, key: str, data: Buffer | None) -> None:
        await (store.delete(key) if data is None else store.set(key, data))

    work = [put(array.store, *entry) for array, pixels in planes.items() for entry in array.windows(step, pixels)]
    sync(_together(work))
