"""How fast a masked autoencoder trains on the CPU: a whole step beside torchgeo's task and the paper's code.

All sides: ViT-Small with patches of 16 px on 224 px, 13 bands, batches of 16, three quarters hidden, a decoder of the
same depth and width, the same threads. A step is forward, loss, backward and the optimiser that each library
gives it, on a batch of normalised floats that is in memory already. Each side has a process of its own, as a training
has; while one is measured the other waits. See :mod:`tests.benchmarks.mae_sides`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .harness import Sides, bench
from .mae_sides import Case, facebook_mae
from .step_process import DEEP, STEPS

PEER = "torchgeo.tasks.MAE, the same step"
PAPER = "facebookresearch/mae, the same step"


@bench("mae-step-vs-torchgeo", unit="images/s", reference=PEER, better="higher", goal=1.2)
def mae_step_vs_torchgeo(folder: Path) -> Iterator[Sides]:
    """32-bit floats on either side, no augmentation."""
    yield from processes("ours", "torchgeo")


@bench("mae-step-vs-torchgeo-bf16", unit="images/s", reference=PEER, better="higher", goal=1.2)
def mae_step_vs_torchgeo_bf16(folder: Path) -> Iterator[Sides]:
    """bf16 autocast on either side, no augmentation."""
    yield from processes("ours-bf16", "torchgeo-bf16")


@bench("mae-step-as-shipped", unit="images/s", reference="torchgeo.tasks.MAE as it is", better="higher", goal=2.5)
def mae_step_as_shipped(folder: Path) -> Iterator[Sides]:
    """Each with its own augmentation and precision: ours bf16 where the CPU has it, theirs 32 bit."""
    yield from processes("ours-as-shipped", "torchgeo-as-shipped")


@bench("mae-step-defaults", unit="images/s", reference="torchgeo.tasks.MAE as it is", better="higher")
def mae_step_defaults(folder: Path) -> Iterator[Sides]:
    """The same with each library's own decoder too: ours two blocks of 128, theirs one of 512."""
    yield from processes("ours-default", "torchgeo-as-shipped")


@bench("mae-step-vs-reference", unit="images/s", reference=PAPER, better="higher", goal=1.2)
def mae_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """32-bit floats on either side, no augmentation."""
    facebook_mae()
    yield from processes("ours", "reference")


@bench("mae-step-vs-reference-deep", unit="images/s", reference=PAPER, better="higher")
def mae_step_vs_reference_deep(folder: Path) -> Iterator[Sides]:
    """The same with the paper's decoder of eight blocks, which is most of the work then."""
    facebook_mae()
    yield from processes("ours-deep", "reference-deep", DEEP.batch)


def processes(ours: str, reference: str, batch: int = Case.batch) -> Iterator[Sides]:
    """Both sides of :mod:`tests.benchmarks.step_process`, in images a second."""
    with _process(ours) as our_seconds, _process(reference) as their_seconds:
        images = STEPS * batch
        yield Sides(lambda: images / our_seconds(), lambda: images / their_seconds())


@contextmanager
def _process(side: str) -> Iterator[Callable[[], float]]:
    """Seconds of one round of steps in the process of ``side``, which waits in between."""
    command = [sys.executable, "-m", "tests.benchmarks.step_process", side, "speed"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the step of {side} cannot be built")
        pipe, answers = process.stdin, process.stdout

        def seconds() -> float:
            print("go", file=pipe, flush=True)
            return float(answers.readline())

        yield seconds
