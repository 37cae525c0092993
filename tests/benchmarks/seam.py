"""``python -m tests.benchmarks.seam``: how much windows show in a map, by encoder, on a real scene.

Each encoder starts from random weights and learns land cover of Zion, with the light decoder, for 120 steps; what is
asked is not how right it is, but whether windows agree. Two Markdown tables: the seam error (:mod:`geossl.maps.seam`)
with the windows that the encoder has by default and with those of far-looking networks, and how the prediction of a
window differs from that of a larger one by the distance from its border.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np

from geossl.downstream import landcover
from geossl.downstream.data import TaskData
from geossl.downstream.settings import FinetuneSettings, LandcoverSettings
from geossl.downstream.task import TrainedTask, load_task, save_task
from geossl.maps.blend import Blender, Lattice
from geossl.maps.canvas import Canvas
from geossl.maps.seam import GOAL, seam_error
from geossl.maps.settings import MapSettings
from geossl.nets.settings import EncoderName
from geossl.project.project import Project

from .recipes import pretraining, sets

OUT = Path("out/seam")
ENCODERS: tuple[EncoderName, ...] = ("unet-small", "resnet18", "convnext-tiny", "vit-small")
FAR = MapSettings(window=512, margin=96, overlap=32)
STEPS = 120
WIDE = 768
"""Side in pixels of the window that smaller ones are compared with."""
SMALLER = (256, 384)
BAND = 16
"""Pixels of a column of the second table."""


def task_of(encoder: EncoderName, data: TaskData) -> TrainedTask:
    """The model of an encoder, learnt once."""
    folder = OUT / encoder
    if not folder.exists():
        statistics = data.collection.statistics
        assert statistics is not None
        start = pretraining.untrained(encoder, data.sensor, statistics, 0, chip=64)
        how = FinetuneSettings(steps=STEPS, encoder_rate=1, patience=STEPS)
        save_task(folder, landcover.fit(data, *start, LandcoverSettings(mode="finetune", finetune=how)))
    return load_task(folder)


def canvas_of(data: TaskData) -> tuple[Canvas, tuple[int, int]]:
    """The scene, and global row and column of its middle."""
    steps = {name: found for name in data.collection.tile_ids if (found := data.steps(name)) is not None}
    tops, lefts = zip(*(data.collection.tile(name).pixel_origin for name in steps), strict=True)
    size = data.collection.grid.tile_size
    middle = (min(tops) + max(tops) + size) // 2, (min(lefts) + max(lefts) + size) // 2
    return Canvas(data.collection, steps, 1), middle


def seams(tasks: dict[EncoderName, TrainedTask], canvas: Canvas, middle: tuple[int, int]) -> Iterator[str]:
    """Markdown: the seam error of each, with its own windows and with :data:`FAR`."""
    yield "| encoder | window, margin, overlap | where windows meet | all pixels | steps across edges | other class |"
    yield "|---|---|---|---|---|---|"
    for encoder, task in tasks.items():
        for lattice in dict.fromkeys(Lattice.of(task, settings) for settings in (MapSettings(), FAR)):
            found = seam_error(Blender(task, canvas, lattice), middle)
            below = "" if found.edge < GOAL else f", above {GOAL:g}"
            yield (
                f"| {encoder} | {lattice.window}, {lattice.margin}, {lattice.overlap} | {found.edge:.1e}{below} | "
                f"{found.error:.1e} | {found.step:.1e} | {found.changed:.2%} |"
            )


def borders(tasks: dict[EncoderName, TrainedTask], canvas: Canvas, middle: tuple[int, int]) -> Iterator[str]:
    """Markdown: mean over pixels of the largest difference of any class's probability, by distance from the border."""
    columns = range(0, max(SMALLER) // 2, BAND)
    yield f"| encoder, window | {' | '.join(f'{start}–{start + BAND - 1}' for start in columns)} |"
    yield "|---|" + "---|" * len(columns)
    # corners that the strides of all encoders divide
    begins = [(at - WIDE // 2) // 32 * 32 for at in middle]
    image, valid = canvas.read(*(range(begin, begin + WIDE) for begin in begins))
    for encoder, task in tasks.items():
        whole = task.describe(image, valid)
        for side in SMALLER:
            at = (WIDE - side) // 2 // 32 * 32
            part = np.s_[..., at : at + side, at : at + side]
            apart = np.abs(task.describe(image[part], valid[part]) - whole[part]).max(axis=0)
            rows, cols = np.indices(apart.shape)
            away = np.minimum(np.minimum(rows, side - 1 - rows), np.minimum(cols, side - 1 - cols))
            cells = [
                f"{inside.mean():.0e}" if (inside := apart[(away // BAND == k) & valid[0][part]]).size else ""
                for k in range(len(columns))
            ]
            yield f"| {encoder}, {side} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.seam", description=__doc__)
    parser.add_argument(
        "encoders", nargs="*", default=ENCODERS, metavar="ENCODER", help=f"of {', '.join(get_args(EncoderName))}"
    )
    data = Project.load(sets.landcover("zion")).task_data("landcover")
    assert isinstance(data, TaskData)
    tasks = {encoder: task_of(encoder, data) for encoder in parser.parse_args().encoders}
    canvas, middle = canvas_of(data)
    print("\n".join(seams(tasks, canvas, middle)), end="\n\n")
    print("\n".join(borders(tasks, canvas, middle)))


if __name__ == "__main__":
    main()
