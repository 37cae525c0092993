"""Files that are not on this machine, without GDAL: what a bucket holds, and what a server says of one file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from geossl.errors import SceneError, SettingsError
from geossl.imagery import web
from geossl.imagery.access import OPEN, Access
from geossl.imagery.buckets import BUCKETS, open_bucket
from geossl.imagery.seen import Seen

METADATA = (".json", ".xml", ".txt")
"""What is fetched when a bucket is laid out as a folder."""

_HEAD = 64
_AT_ONCE = 8
"""How many small requests are under way at a time."""
_LARGEST_METADATA = 64 << 20


@dataclass(frozen=True, slots=True)
class Probe:
    """What a server says of one file now."""

    status: int
    """As HTTP has it, also for buckets; 200 where it sends a whole file although a part was asked for."""
    head: bytes = b""
    """The first bytes."""
    version: str = ""
    """Differs when the file does: entity tag and size; empty where the server tells neither that nor a date."""


def probe(href: str, access: Access | None) -> Probe:
    """Ask for the first bytes of a file.

    Raises
    ------
    OSError
        No server, or no answer in time.
    SettingsError
        Credentials are missing or refused.
    """
    access = access or OPEN
    scheme = urlsplit(href).scheme
    if scheme not in BUCKETS:
        request = access.request(href)
        request.add_header("Range", f"bytes=0-{_HEAD - 1}")
        reply = web.send(request, _HEAD)
        size = reply.headers.get("Content-Range", "").rpartition("/")[2] or reply.headers.get("Content-Length")
        tag = reply.headers.get("ETag") or reply.headers.get("Last-Modified")
        return Probe(reply.status, reply.body, f"{tag} {size}" if tag or size else "")
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    store, path = open_bucket(href, access)
    try:
        meta = store.head(path)
        head = bytes(store.get_range(path, start=0, end=min(_HEAD, meta["size"]))) if meta["size"] else b""
    except FileNotFoundError:
        return Probe(404)
    except (PermissionDeniedError, UnauthenticatedError):
        return Probe(403)
    except BaseError as error:
        raise OSError(str(error).partition("\n")[0]) from error
    return Probe(206, head, _version(meta))


def read(href: str, access: Access | None) -> bytes:
    """The content of a small file in a bucket.

    Raises
    ------
    OSError
        It is not there, refused, or not to be had in time.
    """
    from obstore.exceptions import BaseError

    try:
        store, path = open_bucket(href, access or OPEN)
        return bytes(store.get(path).bytes())
    except BaseError as error:
        raise OSError(str(error).partition("\n")[0]) from error


_keep_to_ranges: set[str] = set()
"""Servers that were seen to send the part of a file that was asked for."""


def keeps_to_ranges(href: str, access: Access | None) -> bool:
    """Whether a web server sends the very part of a file that it is asked for, as far as it answers at all.

    GDAL takes whatever comes with status 206 for that part, and pixels that are not compressed would be wrong
    without anybody noticing. Two small requests, once a server and process; a server that stumbles over them is
    not judged, since whoever reads will meet the same.
    """
    parts = urlsplit(href)
    server = f"{parts.scheme}://{parts.netloc}"
    if server in _keep_to_ranges:
        return True
    try:
        head, part = (_part(href, access, *span) for span in ((0, _HEAD), (_HEAD // 4, _HEAD // 2)))
    except OSError:
        return True
    if len(head) != _HEAD or len(part) != _HEAD // 4:
        return True
    if part != head[_HEAD // 4 : _HEAD // 2]:
        return False
    _keep_to_ranges.add(server)
    return True


def _part(href: str, access: Access | None, start: int, stop: int) -> bytes:
    """What a server sends for these bytes of a file; nothing where it sends no part."""
    request = (access or OPEN).request(href)
    request.add_header("Range", f"bytes={start}-{stop - 1}")
    reply = web.send(request, _HEAD)
    return reply.body if reply.status == 206 else b""


def versions(hrefs: Iterable[str], access: Access | None, what: str) -> dict[str, str]:
    """Address → what tells the file from an earlier one.

    Raises
    ------
    SceneError
        A file is not there or not to be had; begins with ``what``.
    """

    def version(href: str) -> str:
        try:
            said = probe(href, access)
        except OSError as error:
            raise SceneError(f"{what}: {href}: no answer: {error}", "try again later") from error
        if objection := refusal(said.status, access):
            raise SceneError(f"{what}: {href} {objection[0]}", objection[1])
        return said.version

    hrefs = list(hrefs)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(hrefs, pool.map(version, hrefs), strict=True))


def refusal(status: int, access: Access | None) -> tuple[str, str] | None:
    """What a status means for a reader and what to do, or None where it is no objection."""
    if status in (404, 410):
        return f"is not there (HTTP {status})", "look whether its provider has moved or withdrawn it"
    if status in (401, 403):
        return f"is refused by its server (HTTP {status})", (access or OPEN).remedy
    if status == 429 or status >= 500:
        return f"is not delivered: its server answers with HTTP {status}", "try again later"
    return None


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The names and the small metadata files of a bucket in a local folder, for readers that walk folders."""

    uri: str
    """What the folder stands for, without a slash at its end."""
    folder: Path
    versions: Mapping[str, str]
    """Path below the folder → what tells the object from an earlier one."""

    def href(self, path: str) -> str:
        """The address of what a local path stands for; any other text as it is."""
        return path.replace(str(self.folder), self.uri)

    def version(self, href: str) -> str:
        """Of an address below the bucket; empty for any other."""
        return self.versions.get(href.removeprefix(self.uri + "/"), "")


@contextmanager
def skeleton(uri: str, access: Access | None, wanted: Callable[[str], bool], seen: Seen) -> Iterator[Skeleton | None]:
    """Lay out the objects below a bucket's prefix whose names are wanted: empty files, metadata with content.

    None where there are some and none of them is new: then none is fetched or laid out.

    Raises
    ------
    SettingsError
        The bucket cannot be listed.
    """
    from obstore.exceptions import BaseError

    uri = uri.rstrip("/")
    place = urlsplit(uri)
    with tempfile.TemporaryDirectory(prefix="geossl-") as scratch:
        folder = Path(scratch).resolve() / (PurePosixPath(place.path).name or place.netloc)
        folder.mkdir()
        try:
            store, prefix = open_bucket(uri, access or OPEN)
            listed = (one for page in store.list(prefix or None) for one in page)
            named = ((one["path"].removeprefix(prefix).lstrip("/"), one) for one in listed)
            found = {name: one for name, one in named if wanted(name)}
            known = {name: _version(one) for name, one in found.items()}
            if known and not seen.new_ones((f"{uri}/{name}", version) for name, version in known.items()):
                yield None
                return
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                small = [name for name, one in found.items() if one["size"] <= _LARGEST_METADATA]
                metadata = [name for name in small if name.lower().endswith(METADATA)]
                contents = pool.map(lambda name: bytes(store.get(found[name]["path"]).bytes()), metadata)
                content = dict(zip(metadata, contents, strict=True))
        except (BaseError, FileNotFoundError) as error:
            text = str(error).partition("\n")[0]
            raise SettingsError(f"{uri} cannot be listed: {text}", (access or OPEN).remedy) from error
        for name in found:
            path = folder / name
            if not path.resolve().is_relative_to(folder):
                raise SettingsError(f"{uri} holds an object named {name!r}, which leaves its folder", "rename it")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.get(name, b""))
        yield Skeleton(uri, folder, known)


def _version(meta: Any) -> str:
    return f"{meta['e_tag'] or meta['last_modified']} {meta['size']}"
