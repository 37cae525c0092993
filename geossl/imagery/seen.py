"""What earlier looks at the sources have met: files and items by a fingerprint each, so that the next look is cheap.

A file's fingerprint is of its address, size and times of change (the inode's among them, which copying with kept
times does not hide), of an object in a bucket of what its listing says, and of an item of what it says of itself.
No file is opened for it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class Seen:
    """Says of files and items whether they are new, and notes all that it is asked of.

    Parameters
    ----------
    before:
        The :attr:`found` of an earlier look; None: everything is new.
    """

    def __init__(self, before: NDArray[np.uint64] | None = None) -> None:
        self._before = frozenset(() if before is None else before.tolist())
        self._found: set[int] = set()

    @property
    def found(self) -> NDArray[np.uint64]:
        """A fingerprint of everything that was asked of, ascending."""
        return np.array(sorted(self._found), np.uint64)

    @property
    def changed(self) -> bool:
        """Whether anything came, changed or went."""
        return self._found != self._before

    def new(self, *said: object) -> bool:
        """Whether this was not met before, put in these words."""
        mark = fingerprint(*said)
        self._found.add(mark)
        return mark not in self._before

    def new_files(self, paths: Iterable[str | os.PathLike[str]]) -> bool:
        """Whether any of these files of this machine is new, has changed, or went."""
        return self.new_ones((os.fspath(path), *_stamp(path)) for path in paths)

    def new_ones(self, said: Iterable[tuple[object, ...]]) -> bool:
        """Whether any of these is new; all are noted."""
        new = [self.new(*each) for each in said]
        return any(new)


def fingerprint(*said: object) -> int:
    """64 bits of a hash: among a million there is a pair alike once in 40 million tries."""
    text = "\0".join(map(str, said)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def _stamp(path: str | os.PathLike[str]) -> tuple[int, ...]:
    try:
        said = os.stat(path)
    except OSError:
        return ()
    return said.st_size, said.st_mtime_ns, said.st_ctime_ns
