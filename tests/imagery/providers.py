"""Providers as the tests play them: they hand out tokens that end, and ask for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from .servers import Handler

SECRET = "s3cr3t"


class Tokens:
    """Hands out tokens of a short life, and knows which are good."""

    def __init__(self, life: float = 3600) -> None:
        self.life, self.given = life, 0
        self.good: dict[str, float] = {}

    def give(self) -> str:
        self.given += 1
        token = f"{SECRET}-{self.given}"
        self.good[token] = time.time() + self.life
        return token

    def knows(self, token: str | None) -> bool:
        return token is not None and self.good.get(token, 0) > time.time()


def answer(request: Handler, said: Any) -> bool:
    request.say(200, json.dumps(said).encode(), {"Content-Type": "application/json"})
    return True


def refuse(request: Handler, status: int = 403) -> bool:
    request.say(status)
    return True


def blob_store(tokens: Tokens, key: str | None = None) -> Callable[[Handler], bool]:
    """Signatures below ``/sas``, blobs to those who have one of their own container."""

    def manner(request: Handler) -> bool:
        parts = urlsplit(request.path)
        if parts.path.startswith("/sas/"):
            if key is not None and request.headers.get("Ocp-Apim-Subscription-Key") not in (None, key):
                return refuse(request, 401)
            assert parts.path == "/sas/acc/scenes"
            token, expiry = tokens.give(), datetime.now(UTC) + timedelta(seconds=tokens.life)
            return answer(request, {"token": f"sv=1&sig={quote(token)}", "msft:expiry": expiry.isoformat()})
        return not tokens.knows(parse_qs(parts.query).get("sig", [None])[0]) and refuse(request)

    return manner


def bearers(tokens: Tokens, login: Callable[[Handler], dict[str, Any] | None]) -> Callable[[Handler], bool]:
    """Files for those who have a bearer token; ``login`` trades credentials for one."""

    def manner(request: Handler) -> bool:
        if request.command == "POST":
            said = login(request)
            return refuse(request, 401) if said is None else answer(request, said)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return not (scheme == "Bearer" and tokens.knows(token)) and refuse(request, 401)

    return manner


def oauth(tokens: Tokens, *accepted: dict[str, str]) -> Callable[[Handler], bool]:
    def login(request: Handler) -> dict[str, Any] | None:
        form = {key: value for key, (value,) in parse_qs(request.form).items()}
        return {"access_token": tokens.give(), "expires_in": tokens.life} if form in accepted else None

    return bearers(tokens, login)
