"""``python -m tests.benchmarks.step_process ours|torchgeo``: one side of the memory benchmark, in a process of its own.

Prints by how many bytes the resident memory rose at its highest, above what it was when everything was imported.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

from .mae_sides import Case, our_step, torchgeo_mae, torchgeo_step

STEPS = 4


def resident(what: str) -> int:
    """Bytes that this process holds (``VmRSS``), or held at most (``VmHWM``)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    warnings.simplefilter("ignore")
    torchgeo_mae()  # either side holds the imports of both
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = resident("VmRSS")
    step = (our_step if sys.argv[1] == "ours" else torchgeo_step)(Case(), bf16=False)
    for _ in range(STEPS):
        step()
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main()
