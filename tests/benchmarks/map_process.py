"""``python -m tests.benchmarks.map_process ENCODER TILES CUBE FOLDER``: a map in a process of its own.

Prints how many million pixels a second were mapped, and how many MB the process held at most: more than when
everything was imported, and in all. ENCODER may be ``pixelwise``; a CUBE that is not there is made first, so
that a map of a hundred million pixels is ``… map_process pixelwise 10 out/cube out/map``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from geossl.cube.repository import Cube
from geossl.train.launch import memory_kept

from .map_scene import dense, pixelwise, write_cube
from .maps import megapixels, ours
from .scenes import SENSOR
from .step_process import resident


def main() -> None:
    encoder, tiles, folder, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    if not folder.exists():
        write_cube(folder, tiles)
    collection = Cube.open(str(folder)).view().collection(SENSOR.name)
    task = pixelwise() if encoder == "pixelwise" else dense(encoder)
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = resident("VmRSS")
    with memory_kept():
        rate = ours(out, collection, task, tiles)()
    print(f"{megapixels(tiles):.1f} million pixels: {rate:.2f} a second, MB at the peak, above imports and in all:")
    print((resident("VmHWM") - before) / 1e6, resident("VmHWM") / 1e6)


if __name__ == "__main__":
    main()
