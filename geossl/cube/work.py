"""Run the same function on many tasks: here, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client


def run[T, R](function: Callable[[T], R], tasks: Sequence[T], client: Client | None) -> Iterator[tuple[int, R]]:
    """Yield ``(position, function(task))`` as results arrive.

    Without a client, tasks run one after the other in this process. With one they run on its workers,
    where the tasks of a worker that dies are run again elsewhere, so ``function`` must bear repetition.
    Tasks that still wait when the caller stops are cancelled.
    """
    if client is None:
        yield from enumerate(map(function, tasks))
        return
    from distributed import as_completed

    futures = client.map(function, tasks, pure=False)
    position = {future.key: index for index, future in enumerate(futures)}
    try:
        for future, result in as_completed(futures, with_results=True):
            yield position[future.key], result
            future.release()
    finally:
        client.cancel(futures)
