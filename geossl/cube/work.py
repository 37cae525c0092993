"""Run the same function on many tasks: here, or on a Dask cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client, Future

IN_FLIGHT = 1000
"""How many tasks the scheduler is given at a time; hundreds of thousands stall it."""


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

    waiting = enumerate(tasks)
    position: dict[Future[R], int] = {}
    completed = as_completed(with_results=True)

    def submit(number: int) -> None:
        for index, task in itertools.islice(waiting, number):
            future = client.submit(function, task, pure=False)
            position[future] = index
            completed.add(future)

    try:
        submit(IN_FLIGHT)
        for future, result in completed:
            submit(1)
            yield position.pop(future), result
    finally:
        client.cancel(list(position))
