"""Object stores by their address, with the keys of the environment or of a provider."""

from __future__ import annotations

from datetime import timedelta
from os import environ
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from geossl.imagery import web
from geossl.imagery.access import OPEN, Access, bucket_endpoint

if TYPE_CHECKING:
    from obstore.store import ObjectStore

BUCKETS = ("s3", "gs", "az")
"""Schemes of their addresses."""


def open_bucket(href: str, access: Access = OPEN) -> tuple[ObjectStore, str]:
    """The bucket of an address and the path within it."""
    from obstore.store import S3Store, from_url

    parts = urlsplit(href)
    bounds: dict[str, Any] = {
        "client_options": {
            "allow_http": True,
            "timeout": timedelta(seconds=10 * web.TIMEOUT),
            "read_timeout": timedelta(seconds=web.TIMEOUT),
            "connect_timeout": timedelta(seconds=web.TIMEOUT),
        },
        "retry_config": {"max_retries": web.ATTEMPTS, "retry_timeout": timedelta(seconds=10 * web.TIMEOUT)},
    }
    path = parts.path.strip("/")
    options: dict[str, Any]
    if parts.scheme == "s3":
        options = {"endpoint": bucket_endpoint()} if bucket_endpoint() else {}
        options |= access.store_options()
        return S3Store(parts.netloc, virtual_hosted_style_request="endpoint" not in options, **options, **bounds), path
    # the account is named as GDAL wants it
    account = environ.get("AZURE_STORAGE_ACCOUNT") if parts.scheme == "az" else None
    options = {"account_name": account} if account else {}
    return from_url(f"{parts.scheme}://{parts.netloc}", **options, **bounds), path
