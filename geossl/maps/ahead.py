"""Reading ahead and writing behind, each in one thread of its own, so that neither waits for the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

_AHEAD = 2
"""Things that are made before they are asked for, and calls that wait to be made."""


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


class Behind:
    """Makes calls in another thread, one after the other; what one raises is raised here, by a later call or at the end.

    After an error the calls that still wait are not made.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "geossl-behind")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._thread.shutdown(cancel_futures=True)

    def __call__[**P](self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make a call soon; waits only while too many wait."""
        self._wait(_AHEAD)
        self._waiting.append(self._thread.submit(call, *args, **kwargs))

    def _wait(self, left: int) -> None:
        while len(self._waiting) > left:
            self._waiting.popleft().result()
