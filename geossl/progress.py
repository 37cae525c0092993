"""How a long job says how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called as ``progress(what, done, total)``; ``total`` is None while it is unknown."""

PIXELS = "pixels"
"""The one kind of work that is counted in bytes; whoever listens shows its rate."""


def silent(what: str, done: int, total: int | None) -> None:
    """The listener that ignores everything."""
