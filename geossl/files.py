"""Writing so that no reader ever sees half a file or half a folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from geossl.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LONGEST = 200
"""Characters of a file name; most file systems allow 255 bytes."""


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of ``path`` in one move, or vanishes where writing fails.

    A kill leaves it: its name begins with a dot, so list such folders by ``glob("[!.]*")``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")  # writers go by the extension
    _remove(partial)  # left by a process of the same number that was killed
    try:
        yield partial
        partial.replace(path)
    finally:
        _remove(partial)


def point(link: Path, folder: Path) -> None:
    """Let a link lead to a folder below its own, in one move.

    Raises
    ------
    StoreError
        A folder lies where the link belongs.
    """
    if link.is_dir() and not link.is_symlink():
        raise StoreError(
            f"{link} is a folder where a link belongs: the project was copied without its links",
            f"delete it, since its files lie in {folder.parent} as well; copy with `cp -a`, or by `geossl backup`",
        )
    with aside(link) as made:
        made.symlink_to(folder.relative_to(link.parent), target_is_directory=True)


def file_name(text: str, suffix: str) -> str:
    """A file name for what may hold anything, such as the id of a scene; another text, another name."""
    name = quote(text, safe=" +,=@()")
    if name.startswith((".", "_")):  # many readers pass over such files
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
    return name + suffix


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one move; it is on the disk when this returns."""
    with aside(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """As :func:`write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """As :func:`write_bytes`, for JSON-ready content."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_arrays(path: Path, **arrays: Any) -> None:
    """As :func:`write_bytes`, for NumPy arrays with names."""
    import numpy as np  # it takes a while, which `--help` need not wait

    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(path, content.getvalue())


def read_arrays(path: Path, *names: str) -> dict[str, NDArray[Any]] | None:
    """Arrays that :func:`write_arrays` wrote; None where one is missing or damaged: for what can be made anew."""
    import numpy as np

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            return {name: found[name] for name in names}
    except Exception:  # of damage the parsers of zip files and of NumPy's headers say a dozen things
        return None


def read_json(path: Path) -> Any | None:
    """What :func:`write_json` wrote, or None where there is nothing yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
