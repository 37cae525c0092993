"""A bounded cache of compressed chunks on local disk, shared by all processes of a machine.

Reading a chunk through Icechunk costs several times its decoding, even from a local folder, and a
bucket is farther still. From the second epoch on a chunk is a plain file here.

Files are named by what a chunk *is* (cube, tile, scene, revision, window), so a new commit empties
nothing. Every write is atomic, so processes need no lock; the oldest files go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

DEFAULT_BYTES = 4 * 2**30


def default_folder() -> Path:
    """Where chunks are cached unless the caller says otherwise, after the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "geossl" / "chunks"


class ChunkCache:
    """Bytes by key, in a folder that does not outgrow its limit.

    Parameters
    ----------
    folder:
        Any local folder; several processes, and cubes, may share it.
    max_bytes:
        Limit of all files together. A process looks at the folder again whenever it has written 1/32
        of the limit, and then makes room for another 1/8.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._unchecked = max_bytes  # so that the first write looks at the folder
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """The bytes, or None where they are not (or no longer) to be had."""
        try:
            with open(self._path(key), "rb", buffering=0) as file:
                return file.read()
        except OSError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes. A full or read-only disk keeps nothing and is no error: the store has them."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            self._make_room(len(data))
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent)
            try:
                with open(handle, "wb") as file:
                    file.write(data)
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise

    def _path(self, key: str) -> Path:
        name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / name[2:]

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._unchecked += size
            if self._unchecked <= self.max_bytes // 32:
                return
            self._unchecked = size
            files = sorted(self._files())
            excess = sum(length for _, length, _ in files) + size - self.max_bytes
            if excess > 0:
                excess += self.max_bytes // 8
            for _, length, path in files:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= length

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """(time of writing, bytes, path) of all files, those that a killed process left half written too."""
        for folder in self.folder.glob("??"):
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):  # another process made room
                    status = entry.stat()
                    yield status.st_mtime_ns, status.st_size, Path(entry.path)
