"""Where a cube's bytes lie: a local folder or an object store, from one address."""

from __future__ import annotations

import functools
import os
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import icechunk

from geossl.errors import StoreError
from geossl.imagery.access import bucket_endpoint
from geossl.imagery.buckets import open_bucket


def local_folder(uri: str) -> Path | None:
    """The absolute folder of a local address (a path or ``file://…``); None for object stores."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(parts.path)
    return None if "://" in uri else Path(uri).absolute()


def open_storage(uri: str) -> icechunk.Storage:
    """Icechunk's storage for an address; credentials come from the environment.

    Raises
    ------
    StoreError
        The address has an unknown scheme or lacks a part.
    """
    if (folder := local_folder(uri)) is not None:
        return icechunk.local_filesystem_storage(str(folder))
    parts = urlsplit(uri)
    path = parts.path.strip("/")
    if not parts.netloc or not path:
        raise StoreError(f"the address {uri} has no bucket or no path", "write it as s3://bucket/path")
    match parts.scheme:
        case "s3":
            endpoint = bucket_endpoint()
            return icechunk.s3_storage(
                bucket=parts.netloc,
                prefix=path,
                region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
                endpoint_url=endpoint,
                allow_http=bool(endpoint and endpoint.startswith("http://")),
                # servers other than Amazon's seldom serve a host name per bucket
                force_path_style=endpoint is not None,
                from_env=True,
            )
        case "gs":
            return icechunk.gcs_storage(bucket=parts.netloc, prefix=path, from_env=True)
        case "az":
            container, _, prefix = path.partition("/")
            return icechunk.azure_storage(account=parts.netloc, container=container, prefix=prefix, from_env=True)
    raise StoreError(
        f"the address {uri} has the unknown scheme {parts.scheme!r}", "use a folder, s3://, gs:// or az://"
    )


@functools.cache
def require_ordered_commits(uri: str) -> None:
    """Try whether an object store keeps two writers from overwriting each other's commit.

    Commits on S3 are ordered by conditional writes (``If-Match``, ``If-None-Match``). Some servers that
    speak its protocol accept them and ignore the condition: commits are then lost without an error.
    Other object stores order writes by themselves, and local folders have a lock. Tried once a process.

    Raises
    ------
    StoreError
        The server ignores a condition, or the probe cannot be written.
    """
    if urlsplit(uri).scheme != "s3":
        return
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    store, prefix = open_bucket(uri)
    path = f"{prefix}/geossl-probe-{uuid.uuid4().hex}"
    ignored = []
    try:
        first = obstore.put(store, path, b"1", mode="create")
        try:
            obstore.put(store, path, b"2", mode="create")
            ignored.append("If-None-Match")
        except AlreadyExistsError:
            pass
        obstore.put(store, path, b"3", mode="overwrite")
        try:
            obstore.put(store, path, b"4", mode={"e_tag": first["e_tag"]})
            ignored.append("If-Match")
        except PreconditionError:
            pass
        obstore.delete(store, path)
    except BaseError as error:
        raise StoreError(f"{uri} cannot be written: {error}", "check the address and the credentials") from error
    if ignored:
        raise StoreError(
            f"the server of {uri} ignores {' and '.join(ignored)}: of two writers at once, one would be lost silently",
            "use a server with conditional writes (Amazon S3, Ceph, MinIO have them), or a local folder",
        )
