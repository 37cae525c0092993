"""Run the same function on many tasks: here, or on a Dask cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from geossl.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, Future

IN_FLIGHT = 1000
"""How many tasks the scheduler is given at a time; hundreds of thousands stall it."""


def run[T, R](
    function: Callable[[T], R],
    tasks: Sequence[T],
    client: Client | None,
    *,
    killed: Callable[[T], R] | None = None,
) -> Iterator[tuple[int, R]]:
    """Yield ``(position, function(task))`` as results arrive.

    Without a client, tasks run one after the other in this process. With one they run on its workers,
    where the tasks of a worker that dies are run again elsewhere, so ``function`` must bear repetition.
    Tasks that still wait when the caller stops are cancelled.

    Parameters
    ----------
    killed:
        What becomes of a task whose workers die each time (a decoder that crashes, too little memory).
        The scheduler gives up on a task after ``distributed.scheduler.allowed-failures``, and cannot tell
        it from those that waited on the same workers; so the suspects are tried once more, one at a time.

    Raises
    ------
    ClusterError
        The scheduler is gone; or a task was killed each time, and ``killed`` is None.
    """
    if client is None:
        yield from enumerate(map(function, tasks))
        return
    from distributed import KilledWorker, as_completed

    waiting = enumerate(tasks)
    position: dict[Future[R], int] = {}
    suspects: list[int] = []
    completed = as_completed(loop=client.loop)

    def submit(number: int) -> None:
        for index, task in itertools.islice(waiting, number):
            future = client.submit(function, task, pure=False)
            position[future] = index
            completed.add(future)

    try:
        submit(IN_FLIGHT)
        for future in completed:
            submit(1)
            index = position.pop(future)
            try:
                result = _result(future)
            except KilledWorker:
                suspects.append(index)
                continue
            yield index, result
        for index in suspects:
            task = tasks[index]
            future = client.submit(function, task, pure=False)
            position[future] = index
            try:
                result = _result(future)
            except KilledWorker as error:
                if killed is None:
                    raise ClusterError(
                        f"the workers that got one task died each time: {error}",
                        "give them more memory, or use fewer on this machine",
                    ) from None
                result = killed(task)
            yield index, result
    finally:
        if client.status == "running":
            client.cancel(list(position))


def _result[R](future: Future[R]) -> R:
    """What the future's task returned or raised; ClusterError where the scheduler is gone."""
    try:
        return future.result()
    except (CancelledError, OSError) as error:
        if future.status == "error":
            raise  # by the task itself
        raise ClusterError(
            "the connection to the Dask scheduler is lost",
            "see that it runs, then run the same command again: what was committed is kept",
        ) from error
