"""How much memory an ingest takes at its peak: all processes summed, imports taken off.

Each side runs in a process of its own, which imports what it needs, starts its cluster, lets the workers
import too, and says what it holds; from then on the proportional set size (shared pages counted once) of it
and all its children is sampled.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pystac

from .harness import Sides, bench
from .peers import Setting, best_setting, write_odc_stac
from .scenes import aligned

EVERY = 0.05
"""Seconds between two samples."""


@bench(
    "ingest-memory-vs-odc-stac",
    unit="MB at the peak",
    reference="odc.stac.load(…).to_zarr, the best of its sweep",
    better="lower",
    goal=1,
    rounds=3,
)
def ingest_memory_vs_odc_stac(folder: Path) -> Iterator[Sides]:
    """3.2 GB of pixels that lie on the grid."""
    aligned()
    setting = best_setting(write_odc_stac, aligned().items, folder)
    yield Sides(lambda: peak(folder, 8, None), lambda: peak(folder, 8, setting))


@bench(
    "ingest-growth-memory",
    unit="MB at the peak",
    reference="the same ingest of a quarter of the scenes",
    better="alike",
    goal=(0.9, 1.1),
    rounds=3,
)
def ingest_growth_memory(folder: Path) -> Iterator[Sides]:
    """Whether four times the scenes take more memory."""
    aligned()
    yield Sides(lambda: peak(folder, 8, None), lambda: peak(folder, 2, None))


def peak(folder: Path, scenes: int, setting: Setting | None) -> float:
    """Peak of one run in a process of its own, in MB above what it held before it began."""
    work = folder / f"memory-{time.monotonic_ns()}"
    pystac.ItemCollection(aligned().items[:scenes]).save_object(str(folder / "items.json"))
    arguments = [str(folder / "items.json"), str(work)]
    if setting is not None:
        arguments += [str(setting.chunk), str(setting.workers), str(setting.threads)]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.ingest_process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    before = _held(process.pid)
    highest = [before]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(EVERY):
            highest[0] = max(highest[0], _held(process.pid))

    thread = threading.Thread(target=sample)
    thread.start()
    process.stdin.write("go\n")
    process.stdin.flush()
    said = process.stdout.readline()
    done.set()
    thread.join()
    process.communicate()
    assert said == "done\n", "the ingest failed"
    return (highest[0] - before) / 1e6


def _held(pid: int) -> int:
    """Bytes of a process and all its children."""
    total = 0
    try:
        for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:  # one of them has just ended
        pass
    return total
