"""A GPU for one training at a time, whatever project, worker or person starts it.

A training holds a lock of the machine for each GPU that it uses. The system frees the lock when the process ends,
so none is left behind by a kill. Where there is no GPU there is nothing to hold: processors are shared by time.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from geossl.errors import TrainingError
from geossl.locks import held
from geossl.progress import Progress, silent


def gpus(count: int = 1) -> list[str]:
    """What the first ``count`` GPUs that this process may use are called all over the machine; none without GPUs."""
    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(each).uuid) for each in range(min(count, torch.cuda.device_count()))]


def own() -> list[str]:
    """What this process holds while it trains: one of several ranks the use of its own GPU alone.

    Whoever starts the ranks holds their GPUs, all at once. Should it be killed, its ranks still need some seconds to
    write a checkpoint: the next ones wait for that.
    """
    found = gpus(int(os.environ.get("LOCAL_RANK", "0")) + 1)[-1:]
    started = "TORCHELASTIC_RUN_ID" in os.environ
    return [name for gpu in found for name in ([] if started else [gpu]) + [f"{gpu}-rank"]]


@contextlib.contextmanager
def alone_on(
    names: Sequence[str], who: str, progress: Progress = silent, *, folder: Path | None = None
) -> Iterator[None]:
    """Hold devices while the block runs; wait for them, and say for whom, as long as another training has one.

    Parameters
    ----------
    names:
        Of :func:`gpus`. All take several in the same order, so that no two wait for each other.
    who:
        For whom, in words: others read it while they wait.
    folder:
        Of the locks; None: the machine's own, which all its users share.

    Raises
    ------
    TrainingError
        The machine's folder of locks cannot be used.
    """
    home = folder or Path(tempfile.gettempdir()) / "geossl-devices"
    with contextlib.ExitStack() as stack:
        for name in sorted(names):
            try:
                stack.enter_context(held(_shared(home) / name, f"GPU {name}", who, progress, mode=0o666))
            except OSError as error:
                raise TrainingError(
                    f"the lock of GPU {name} cannot be taken in {home}: {error.strerror}",
                    "let all users write there: chmod 1777, and files 666",
                ) from error
        yield


def _shared(home: Path) -> Path:
    """The folder, made so that all users can take turns."""
    if not home.is_dir():
        before = os.umask(0)
        try:
            home.mkdir(mode=0o1777, parents=True, exist_ok=True)
        finally:
            os.umask(before)
    return home
