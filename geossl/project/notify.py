"""Messages to people, when something needs one: by webhook, e-mail or whatever else Apprise knows.

Addresses come from the environment alone (``GEOSSL_NOTIFY``, separated by spaces, such as
``json://host:8080/hook mailtos://user:password@mail.example.org``), since most of them hold a secret. None is ever
logged or written anywhere, and no message that cannot be sent fails a run.

What needs a person is a :class:`Condition`. Each is told once, again where there is news of it, and once more when it
is over. ``<store>/notify.json`` says what was told: a message that was cut off is sent again, none is lost.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from filelock import FileLock

from geossl.files import read_json, write_json
from geossl.project.project import Project

ADDRESSES = "GEOSSL_NOTIFY"

Kind = Literal["failed", "stuck", "full", "budget", "held", "silence"]

_LONGEST = 2000
"""Characters of a message."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that needs a person, for as long as it lasts."""

    kind: Kind
    what: str
    """Tells it from others of its kind, such as the name of what failed; may be empty."""
    title: str
    """One line."""
    body: str
    """What happened and what to do."""
    news: frozenset[str] = frozenset()
    """What it is about. It is told again only where this holds something that was not told of yet."""

    @property
    def key(self) -> str:
        return f"{self.kind} {self.what}".strip()


def notify(project: Project, kind: str, title: str, body: str) -> bool:
    """Send a message to every address; whether at least one took it.

    Parameters
    ----------
    kind:
        One of :data:`Kind`, or ``over``.
    """
    addresses = os.environ.get(ADDRESSES, "").split()
    if not addresses:
        return False
    import apprise  # takes a second

    kinds = {"over": apprise.NotifyType.SUCCESS, "failed": apprise.NotifyType.FAILURE}
    taken = 0
    for number, address in enumerate(addresses, start=1):
        which = f"address {number} of {len(addresses)} in {ADDRESSES}"
        with _secretly():
            try:
                one = apprise.Apprise(asset=apprise.AppriseAsset(app_id="geossl", app_desc="geossl", app_url=""))
                known = one.add(address)
                done = known and one.notify(
                    title=f"geossl {project.settings.name}: {title}",
                    body=plain(body)[:_LONGEST],
                    notify_type=kinds.get(kind, apprise.NotifyType.WARNING),
                    body_format=apprise.NotifyFormat.TEXT,
                )
            except Exception as error:  # whatever it is, its text may hold the address
                _log.warning("%s could not be told of %r: %s", which, title, type(error).__name__)
                continue
        if done:
            taken += 1
        else:
            why = "it does not answer or refuses" if known else "Apprise knows no such address"
            _log.warning("%s could not be told of %r: %s", which, title, why)
    return taken > 0


def failed(project: Project, what: str, why: str) -> None:
    """Tell that something failed (such as a flow, by its name): once for each kind of reason, until it succeeds."""
    # what differs from one time to the next: addresses, paths, numbers
    reason = re.sub(r"\S*/\S*|0x[0-9a-f]+|\d+", "…", why)
    tell(project, [Condition("failed", what, f"{what} failed", why, frozenset({reason}))], over=())


def succeeded(project: Project, what: str) -> None:
    """Tell that it works again, if it was told to have failed."""
    tell(project, [], over=[Condition("failed", what, "", "").key])


def tell(project: Project, conditions: Sequence[Condition], *, over: Collection[str] | None = None) -> None:
    """Tell what was not told yet.

    Parameters
    ----------
    over:
        Keys of conditions that are no more; None: of all that are not named, but for failures, which end when what
        failed succeeds.
    """
    path = project.store / "notify.json"
    if not project.store.is_dir() or (not conditions and not path.exists()):
        return
    with FileLock(project.store / "notify.json.lock"):
        noted: dict[str, Any] = read_json(path) or {}
        named = {condition.key for condition in conditions}
        ended = [key for key in noted if (key in over if over is not None else not key.startswith("failed "))]
        for condition in conditions:
            _note(noted, condition)
        for key in ended:
            if key not in named:
                noted[key]["over"] = True
        write_json(path, noted)
        for key, entry in list(noted.items()):
            _send(project, noted, key, entry)
            write_json(path, noted)


def open_conditions(project: Project) -> list[dict[str, Any]]:
    """What was found to need a person and is not over: kind, what, title, body and since when (ISO 8601, UTC)."""
    noted: dict[str, Any] = read_json(project.store / "notify.json") or {}
    fields = ("kind", "what", "title", "body", "since")
    return [{field: entry[field] for field in fields} for entry in noted.values() if not entry["over"]]


def _note(noted: dict[str, Any], condition: Condition) -> None:
    """Enter a condition; ``told`` stays where there is no news of it."""
    entry = noted.get(condition.key)
    known = set(entry["news"]) if entry is not None else set()
    same = entry is not None and condition.news <= known and not entry["over"]
    noted[condition.key] = {
        "kind": condition.kind,
        "what": condition.what,
        "title": condition.title,
        "body": plain(condition.body)[:_LONGEST],
        "since": entry["since"] if entry is not None else dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "news": sorted(known | condition.news),
        "told": entry is not None and same and bool(entry["told"]),
        "over": False,
    }


def _send(project: Project, noted: dict[str, Any], key: str, entry: dict[str, Any]) -> None:
    """Send what is to be said of one condition; what nobody took is said the next time."""
    if not entry["over"]:
        if not entry["told"]:
            entry["told"] = notify(project, entry["kind"], entry["title"], entry["body"])
    elif not entry["told"] or notify(project, "over", f"over: {entry['title']}", f"It was so since {entry['since']}."):
        del noted[key]


def plain(text: str) -> str:
    """Text without what addresses in it may keep secret: users, passwords, and all after a question mark."""
    return re.sub(r"(\w+://)(?:[^\s/@]+@)?([^\s?]*)(\?\S*)?", r"\1\2", text)


@contextmanager
def _secretly() -> Iterator[None]:
    """Apprise and what it stands on say nothing: some of what they log holds the address."""
    loggers = [logging.getLogger(name) for name in ("apprise", "urllib3")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
