"""Stored chunks without Zarr's indexing: raw bytes from the store, checked and decoded into place.

Indexing through Zarr one chip at a time copies every chunk several times. The cube promises one
codec chain (little-endian bytes, Blosc, CRC-32C), so a chunk can be decoded straight to where the
batch wants it.
"""

from __future__ import annotations

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

from geossl.errors import StoreError

_REMEDY = "ingest this scene again, or read an older snapshot"


@dataclass(frozen=True)
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
        try:
            buffer = await self.store.get(key, default_buffer_prototype())
        except IcechunkError as error:
            raise StoreError(f"chunk {key} cannot be read: {error}", _REMEDY) from error
        return None if buffer is None else buffer.to_bytes()

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
        content, checksum = np.frombuffer(data, np.uint8)[:-4], data[-4:]
        if google_crc32c.value(content).to_bytes(4, "little") != checksum:
            raise StoreError(f"chunk {key} is damaged: its checksum does not match", _REMEDY)
        try:
            blosc.decompress(content, out)
        except (RuntimeError, ValueError) as error:
            raise StoreError(f"chunk {key} is damaged: {error}", _REMEDY) from error
