"""Where a cube's bytes lie: a local folder or an object store, from one address."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import icechunk

from geossl.errors import StoreError


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
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
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
