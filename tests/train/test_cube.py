from __future__ import annotations

from pathlib import Path

import pytest

from geossl.chips.index import build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.reader import ChipReader
from geossl.cube.repository import Cube
from geossl.nets.card import Card
from geossl.progress import Progress, silent
from geossl.train.pretrain import pretrain

from .synthetic import settings


def run(cube: Cube, folder: Path, *, paired: bool, progress: Progress = silent) -> Card:
    collection = cube.view().collection("sentinel-2-l2a")
    assert collection.statistics is not None
    index = build_index(collection, 64, stride=128, min_clear=0.5)
    return pretrain(
        settings(chip=64, epochs=1, batch_size=8, method={"name": "simclr", "pairs": "season" if paired else "same"}),
        ChipLoader(ChipReader(collection), index, 8, paired=paired),
        sensor=collection.sensor,
        statistics=collection.statistics,
        snapshot=collection.snapshot,
        folder=folder,
        progress=progress,
    )


@pytest.mark.parametrize("paired", [False, True])
def test_chips_of_a_cube_train_and_resume(tiny_cube: Cube, tmp_path: Path, paired: bool) -> None:
    def cut(what: str, done: int, total: int | None, note: str = "") -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = run(tiny_cube, tmp_path / "whole", paired=paired)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_cube, tmp_path / "cut", paired=paired, progress=cut)
    resumed = run(tiny_cube, tmp_path / "cut", paired=paired)
    assert resumed.id == whole.id
    assert resumed.weights == whole.weights
    whole.require(tiny_cube.view().collection("sentinel-2-l2a").sensor, "the tiny cube")
