"""How a long job says how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as ``progress(what, done, total)``; ``total`` is None while it is unknown."""

    def __call__(self, what: str, done: int, total: int | None, note: str = "", /) -> None:
        """``note`` is what else there is to say of the work just now, such as how much memory it takes."""


PIXELS = "pixels"
"""The one kind of work that is counted in bytes; whoever listens shows its rate."""


def silent(what: str, done: int, total: int | None, note: str = "") -> None:
    """The listener that ignores everything."""
