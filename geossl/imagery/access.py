"""How files that are not open to everybody are reached: one small hook a provider.

A project file says ``access: {kind: …}`` under a source. The setting travels with every scene, without
any secret in it: those come from environment variables (or a netrc file) of the process that opens a
file, so Dask workers on other machines need them too. Scenes, checksums, cubes and logs keep the address
as the provider writes it; signatures, tokens and keys are GDAL options of the one file being opened, and
go to no other host than the provider's.

A new provider is one class here: what GDAL needs to open an address (:meth:`Access.opening`), what a plain
request needs (:meth:`Access.request`), and what to do when the provider refuses (:meth:`Access.renew`).
"""

from __future__ import annotations

import netrc
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import Request

from pydantic import BaseModel, ConfigDict, Field

from geossl.errors import SceneError, SettingsError
from geossl.imagery.web import basic, fetch_json

_VSI = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

RENEW = 300.0
"""Seconds before its end at which a token is fetched again, at most half its life: reading one tile takes
less, so that no token ends while a file is open."""


class Access(BaseModel):
    """No provider in particular: what is open to all, and buckets by the usual environment variables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    remedy: ClassVar[str] = "say how to sign in under `access:`"
    """What a person can do when an address is refused."""

    def opening(self, href: str) -> tuple[str, dict[str, str]]:
        """GDAL's name for an address, and the GDAL options to open it with.

        Raises
        ------
        SettingsError
            An environment variable is missing, or the provider does not know its content.
        """
        scheme, _, rest = href.partition("://")
        return _VSI[scheme] + rest, {**_bucket_options(), **self.bucket_options()} if scheme == "s3" else {}

    def request(self, href: str) -> Request:
        """A plain request for an http(s) address; its credentials are not repeated after a redirect."""
        return Request(href)

    def bucket_options(self) -> dict[str, str]:
        """GDAL options for s3 addresses, besides those of the environment."""
        return {}

    def store_options(self) -> dict[str, Any]:
        """The same as arguments of obstore's ``S3Store``."""
        return {}

    def renew(self) -> None:
        """Forget the tokens of this access: the provider has refused one."""
        with _LOCK:
            for key in [key for key in _TOKENS if key[0] == self]:
                del _TOKENS[key]


class Public(Access):
    """Buckets that anybody may read, without keys."""

    kind: Literal["public"]

    remedy = "the bucket is not public; leave `access: {kind: public}` out and set AWS_ACCESS_KEY_ID"

    def bucket_options(self) -> dict[str, str]:
        return {"AWS_NO_SIGN_REQUEST": "YES"}

    def store_options(self) -> dict[str, Any]:
        return {"skip_signature": True}


class RequesterPays(Access):
    """S3 buckets whose readers pay for requests, with the usual AWS keys."""

    kind: Literal["requester-pays"]

    remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to the keys of an account that may be charged"

    def bucket_options(self) -> dict[str, str]:
        return {"AWS_REQUEST_PAYER": "requester"}

    def store_options(self) -> dict[str, Any]:
        return {"request_payer": True}


class PlanetaryComputer(Access):
    """Microsoft Planetary Computer: a short-lived signature for each blob container.

    Works without an account; ``PC_SDK_SUBSCRIPTION_KEY`` raises the rate limits.
    """

    kind: Literal["planetary-computer"]
    endpoint: str = Field(
        "https://planetarycomputer.microsoft.com/api/sas/v1/token", description="Where signatures are fetched."
    )
    storage: str = Field("blob.core.windows.net", description="Hosts named ACCOUNT.this are signed for.")

    remedy = "set PC_SDK_SUBSCRIPTION_KEY to a valid key, or unset it"

    def opening(self, href: str) -> tuple[str, dict[str, str]]:
        if (account := self._account(href)) is None:
            return super().opening(href)
        parts = urlsplit(href)
        container, _, blob = unquote(parts.path).strip("/").partition("/")
        connection = (
            f"BlobEndpoint={parts.scheme}://{parts.netloc}",
            f"AccountName={account}",
            f"SharedAccessSignature={self._signature(account, container)}",
        )
        return f"/vsiaz/{container}/{blob}", {"AZURE_STORAGE_CONNECTION_STRING": ";".join(connection)}

    def request(self, href: str) -> Request:
        if (account := self._account(href)) is None:
            return super().request(href)
        container = unquote(urlsplit(href).path).strip("/").partition("/")[0]
        return Request(f"{href.partition('?')[0]}?{self._signature(account, container)}")

    def _account(self, href: str) -> str | None:
        parts = urlsplit(href)
        account, _, storage = parts.netloc.partition(".")
        return account if storage == self.storage and _may_carry(href) else None

    def _signature(self, account: str, container: str) -> str:
        def fetch() -> tuple[str, float]:
            key = os.environ.get("PC_SDK_SUBSCRIPTION_KEY")
            request = Request(f"{self.endpoint}/{account}/{quote(container)}")
            if key:
                request.add_unredirected_header("Ocp-Apim-Subscription-Key", key)
            said = fetch_json(request, self.remedy)
            return said["token"], datetime.fromisoformat(said["msft:expiry"]).timestamp()

        return _token(self, f"{account}/{container}", fetch)


class Copernicus(Access):
    """Copernicus Data Space: its S3 store by keys, its https addresses by a bearer token.

    S3 keys are ``CDSE_S3_ACCESS_KEY`` and ``CDSE_S3_SECRET_KEY``. Tokens come from ``CDSE_REFRESH_TOKEN``
    or, where that is not set, from ``CDSE_CLIENT_ID`` and ``CDSE_CLIENT_SECRET``.
    """

    kind: Literal["copernicus"]
    s3: str = Field("https://eodata.dataspace.copernicus.eu", description="Address of the S3 store.")
    endpoint: str = Field(
        "https://identity.dataspace.copernicus.eu/auth/realms/CDSE/protocol/openid-connect/token",
        description="Where bearer tokens are fetched.",
    )
    hosts: tuple[str, ...] = Field(
        ("dataspace.copernicus.eu",), description="Hosts (and all below them) that are sent the token."
    )

    remedy = (
        "set CDSE_S3_ACCESS_KEY and CDSE_S3_SECRET_KEY for s3 addresses; for https ones"
        " CDSE_REFRESH_TOKEN, or CDSE_CLIENT_ID and CDSE_CLIENT_SECRET"
    )

    def opening(self, href: str) -> tuple[str, dict[str, str]]:
        path, options = super().opening(href)
        return path, options | _bearer_options(href, self.hosts, self._bearer)

    def request(self, href: str) -> Request:
        return _bearer_request(href, self.hosts, self._bearer)

    def bucket_options(self) -> dict[str, str]:
        key, secret = self._keys()
        keys = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": ""}
        return _endpoint_options(self.s3) | keys

    def store_options(self) -> dict[str, Any]:
        key, secret = self._keys()
        keys = {"access_key_id": key, "secret_access_key": secret, "token": None, "expires_at": None}
        # besides which the environment's keys and session token do not count
        return {"endpoint": self.s3, "credential_provider": lambda: keys}

    def _keys(self) -> tuple[str, str]:
        return _variable("CDSE_S3_ACCESS_KEY", self.remedy), _variable("CDSE_S3_SECRET_KEY", self.remedy)

    def _bearer(self) -> str:
        def fetch() -> tuple[str, float]:
            if refresh := os.environ.get("CDSE_REFRESH_TOKEN"):
                form = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": "cdse-public"}
            else:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": _variable("CDSE_CLIENT_ID", self.remedy),
                    "client_secret": _variable("CDSE_CLIENT_SECRET", self.remedy),
                }
            said = fetch_json(Request(self.endpoint, urlencode(form).encode()), self.remedy)
            return said["access_token"], time.time() + float(said["expires_in"])

        return _token(self, "bearer", fetch)


class Earthdata(Access):
    """NASA Earthdata: a bearer token, which data hosts trade for signed addresses elsewhere.

    The token is ``EARTHDATA_TOKEN`` or, where that is not set, fetched for the login that a netrc file
    (``NETRC`` or ``~/.netrc``) holds for the endpoint's host.
    """

    kind: Literal["earthdata"]
    endpoint: str = Field("https://urs.earthdata.nasa.gov", description="Where tokens are fetched.")
    hosts: tuple[str, ...] = Field(("nasa.gov",), description="Hosts (and all below them) that are sent the token.")

    remedy = "set EARTHDATA_TOKEN to a token of your Earthdata account, or put your login into ~/.netrc"

    def opening(self, href: str) -> tuple[str, dict[str, str]]:
        path, options = super().opening(href)
        return path, options | _bearer_options(href, self.hosts, self._bearer)

    def request(self, href: str) -> Request:
        return _bearer_request(href, self.hosts, self._bearer)

    def _bearer(self) -> str:
        if token := os.environ.get("EARTHDATA_TOKEN"):
            return token

        def fetch() -> tuple[str, float]:
            request = Request(f"{self.endpoint}/api/users/find_or_create_token", method="POST")
            request.add_unredirected_header("Authorization", basic(*self._login()))
            said = fetch_json(request, self.remedy)
            end = datetime.strptime(said["expiration_date"], "%m/%d/%Y").replace(tzinfo=UTC)
            return said["access_token"], end.timestamp()

        return _token(self, "bearer", fetch)

    def _login(self) -> tuple[str, str]:
        path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        host = urlsplit(self.endpoint).hostname or ""
        try:
            found = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            found = None
        if found is None:
            raise SettingsError(f"EARTHDATA_TOKEN is not set, and {path} holds no login for {host}", self.remedy)
        return found[0], found[2]


AccessSettings = Annotated[
    Public | RequesterPays | PlanetaryComputer | Copernicus | Earthdata, Field(discriminator="kind")
]
"""What a source may say under ``access:``; ``kind`` says which."""

OPEN = Access()
"""Where a source says nothing."""

_TOKENS: dict[tuple[Access, str], tuple[str, float]] = {}
"""(access, what for) → token and the time from which on to fetch another."""
_LOCK = threading.Lock()


def _token(access: Access, purpose: str, fetch: Callable[[], tuple[str, float]]) -> str:
    """The token in hand, or a new one where it is near its end."""
    with _LOCK:
        token, renewal = _TOKENS.get((access, purpose), ("", 0.0))
        now = time.time()
        if now >= renewal:
            try:
                token, end = fetch()
            except (KeyError, TypeError, ValueError) as error:
                raise SceneError(f"what {type(access).__name__} answers is no token: {error!r}") from error
            _TOKENS[access, purpose] = token, end - min(RENEW, (end - now) / 2)
    return token


def _variable(name: str, remedy: str) -> str:
    if not (value := os.environ.get(name)):
        raise SettingsError(f"the environment variable {name} is not set", remedy)
    return value


def _may_carry(href: str, hosts: tuple[str, ...] | None = None) -> bool:
    """Whether an address may be sent a secret: one of these hosts or below, and not in clear over a network."""
    parts = urlsplit(href)
    host = parts.hostname or ""
    ours = hosts is None or any(host == name or host.endswith(f".{name}") for name in hosts)
    return ours and (parts.scheme == "https" or host in _LOOPBACK or host.endswith(".localhost"))


def _bearer_options(href: str, hosts: tuple[str, ...], bearer: Callable[[], str]) -> dict[str, str]:
    return {"GDAL_HTTP_HEADERS": f"Authorization: Bearer {bearer()}"} if _may_carry(href, hosts) else {}


def _bearer_request(href: str, hosts: tuple[str, ...], bearer: Callable[[], str]) -> Request:
    request = Request(href)
    if _may_carry(href, hosts):
        request.add_unredirected_header("Authorization", f"Bearer {bearer()}")
    return request


def bucket_endpoint() -> str | None:
    """The S3 server that the environment names; None: Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _bucket_options() -> dict[str, str]:
    endpoint = bucket_endpoint()
    return _endpoint_options(endpoint) if endpoint else {}


def _endpoint_options(endpoint: str) -> dict[str, str]:
    """GDAL spells an S3 server in three options; few but Amazon's serve a host name per bucket."""
    parts = urlsplit(endpoint)
    return {
        "AWS_S3_ENDPOINT": parts.netloc + parts.path.rstrip("/"),
        "AWS_HTTPS": "NO" if parts.scheme == "http" else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }
