"""Small plain HTTP requests, bounded in time and size."""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request

from geossl.errors import SceneError, SettingsError

TIMEOUT = 20.0
"""Seconds without a byte after which a server counts as stalled."""

ATTEMPTS = 3
PAUSE = 1.0
"""Seconds before the second attempt; doubled for each further one."""

_LIMIT = 1 << 20
_OPENER = urllib.request.OpenerDirector()
for _handler in (
    # all that urllib would bring but files and FTP, which no redirect may reach
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
):
    _OPENER.add_handler(_handler())


@dataclass(frozen=True, slots=True)
class Reply:
    """The begin of what a server says."""

    status: int
    headers: Message
    body: bytes


def send(request: Request, limit: int = _LIMIT) -> Reply:
    """Send once, and read at most ``limit`` bytes; an error status is a reply too.

    Raises
    ------
    OSError
        No server, no answer in time, or an answer that is not HTTP.
    """
    try:
        with _OPENER.open(request, timeout=TIMEOUT) as answer:
            return Reply(answer.status, answer.headers, answer.read(limit))
    except HTTPError as error:
        with error:
            return Reply(error.code, error.headers, b"")
    except http.client.HTTPException as error:
        raise OSError(f"the answer is not HTTP: {error!r}") from error


def fetch_json(request: Request, remedy: str) -> Any:
    """What a token endpoint answers.

    Raises
    ------
    SettingsError
        It refuses the credentials.
    SceneError
        It does not answer, or not in JSON.
    """
    place = "{0.scheme}://{0.netloc}{0.path}".format(urlsplit(request.full_url))
    why = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            reply = send(request)
        except OSError as error:
            why = str(error)
            continue
        if reply.status in (400, 401, 403):
            raise SettingsError(f"{place} refuses the credentials (HTTP {reply.status})", remedy)
        if reply.status == 200:
            try:
                return json.loads(reply.body)
            except ValueError:
                why = "the answer is not JSON"
        else:
            why = f"HTTP {reply.status}"
    raise SceneError(f"no token from {place}: {why}", "try again later")


def basic(user: str, password: str) -> str:
    """The value of an ``Authorization`` header for a login."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
