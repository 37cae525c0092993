"""How much memory a training step of a masked autoencoder takes at its peak, on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .harness import Sides, bench


@bench(
    "step-memory-vs-torchgeo",
    unit="MB at the peak",
    reference="torchgeo.tasks.MAE, the same step",
    better="lower",
    goal=1,
    rounds=3,
)
def step_memory_vs_torchgeo(folder: Path) -> Iterator[Sides]:
    """Weights, optimiser, batch and step, each side in a process of its own, imports taken off."""
    yield Sides(lambda: peak("ours"), lambda: peak("torchgeo"))


def peak(side: str) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.step_process", side, "memory"]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) / 1e6
