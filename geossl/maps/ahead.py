"""Work ahead in a thread of its own, so that what comes after it need not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

_AHEAD = 2
"""Things that are made before they are asked for."""


def ahead[T](items: Iterator[T]) -> Generator[T]:
    """The same items, made in another thread while those before them are used."""
    done = object()
    with ThreadPoolExecutor(1, "geossl-ahead") as thread:
        waiting: deque[Future[T | object]] = deque(thread.submit(next, items, done) for _ in range(_AHEAD))
        try:
            while (item := waiting.popleft().result()) is not done:
                waiting.append(thread.submit(next, items, done))
                yield item  # type: ignore[misc]  # not `done`
        finally:
            for future in waiting:
                future.cancel()
