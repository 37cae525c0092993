"""Stored chunks without Zarr's indexing: raw bytes from the store, checked and decoded into place.

Indexing through Zarr one chip at a time copies every chunk several times, and opening an array costs it a
millisecond, of which a large cube has ten thousands. The cube promises one codec chain (little-endian bytes,
Blosc, CRC-32C), so a chunk can be decoded straight to where it is wanted,
and written without being asked for first.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr
from icechunk import IcechunkError
from numcodecs import blosc  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
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


async def put(store: Store, key: str, data: bytes | None) -> None:
    """Write what shall lie at a key of the store; None: nothing."""
    await (store.delete(key) if data is None else store.set(key, CpuBuffer.from_bytes(data)))


def reason(error: Exception) -> str:
    """What Icechunk says went wrong, without the stack that it prints below."""
    return str(error).partition("\n")[0]


async def together[T](work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of it, :data:`IN_FLIGHT` at a time; results in order.

    Work is drawn as there is room for it, and begun at once: a chunk that was just encoded is written while it is
    in the processor's cache.
    """
    waiting = enumerate(work)
    results: dict[int, T] = {}

    async def draw() -> None:
        for index, item in waiting:
            results[index] = await item

    await asyncio.gather(*(draw() for _ in range(IN_FLIGHT)))
    return [results[index] for index in range(len(results))]


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

    def windows(self, step: int, pixels: NDArray[Any]) -> Iterator[tuple[str, bytes | None]]:
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


def encoded(chunk: NDArray[Any]) -> bytes:
    """The bytes that Zarr would store for a chunk of numbers, by the codecs of
    :func:`geossl.cube.arrays.create_array`."""
    return sealed(blosc.compress(chunk, b"lz4", 5, blosc.BITSHUFFLE))


def sealed(data: bytes) -> bytes:
    """The bytes with their CRC-32C behind them."""
    return data + google_crc32c.value(data).to_bytes(4, "little")


def write_windows(planes: Mapping[StoredArray, NDArray[Any]], step: int) -> None:
    """Write one step of several arrays of a tile, each (…, H, W): whole chunks, all of them at once."""
    chunks = ((array.store, *entry) for array, pixels in planes.items() for entry in array.windows(step, pixels))
    sync(together(itertools.starmap(put, chunks)))
