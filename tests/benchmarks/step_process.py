"""``python -m tests.benchmarks.step_process SIDE speed|memory``: one side of a benchmark in a process of its own.

A training has its process to itself: what one library allocates and frees must not become the other's warm memory.

``memory`` prints by how many bytes the resident memory rose at its highest, above what it was when everything was
imported. ``speed`` prints ``ready``, and then for each line that it reads how many seconds :data:`STEPS` steps took.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from geossl.methods.settings import MaeSettings
from geossl.train.launch import fast_bf16, memory_kept

from .mae_sides import Case, Step, our_step, reference_step, torchgeo_mae, torchgeo_step

STEPS = 3
DEEP = Case(batch=8, decoder=(512, 8))
DEFAULT = Case(decoder=(MaeSettings().decoder_dim, MaeSettings().decoder_depth))

SIDES: dict[str, Callable[[], Step]] = {
    "ours": lambda: our_step(Case(), bf16=False),
    "ours-bf16": lambda: our_step(Case(), bf16=True),
    "ours-as-shipped": lambda: our_step(Case(), bf16=fast_bf16(), augment=True),
    "ours-default": lambda: our_step(DEFAULT, bf16=fast_bf16(), augment=True),
    "ours-deep": lambda: our_step(DEEP, bf16=False),
    "torchgeo": lambda: torchgeo_step(Case(), bf16=False),
    "torchgeo-bf16": lambda: torchgeo_step(Case(), bf16=True),
    "torchgeo-as-shipped": lambda: torchgeo_step(Case(), bf16=False, augment=True),
    "reference": lambda: reference_step(Case(), bf16=False),
    "reference-deep": lambda: reference_step(DEEP, bf16=False),
}


def resident(what: str) -> int:
    """Bytes that this process holds (``VmRSS``), or held at most (``VmHWM``)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def memory(side: str) -> None:
    torchgeo_mae()  # either side holds the imports of both
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = resident("VmRSS")
    step = SIDES[side]()
    for _ in range(STEPS):
        step()
    print(resident("VmHWM") - before)


def speed(side: str) -> None:
    step = SIDES[side]()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    side, what = sys.argv[1:]
    with memory_kept() if side.startswith("ours") else contextlib.nullcontext():  # as `pretrain` does
        {"speed": speed, "memory": memory}[what](side)
