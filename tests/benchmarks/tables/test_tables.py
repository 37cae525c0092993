"""What is laid out belongs together, and what is printed claims no more than the blocks allow."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geossl.downstream.heldout import Counts

from . import sets
from .__main__ import tables
from .measure import DRAWS, FEW, FEW_RANDOM, HAND_LDA, LABELS, Kept


def test_corine_becomes_six_classes() -> None:
    codes = np.array([112, 142, 211, 244, 311, 313, 321, 333, 411, 423, 511, 523], np.uint16)
    assert sets.broad(codes).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_a_block_holds_the_patches_of_one_tile(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "bigearthnet-v2-patches"
    folder = sets.lay_out(source, tmp_path)
    with (source / "index.csv").open(encoding="utf-8", newline="") as file:
        tiles = sorted(csv.DictReader(file), key=lambda row: row["tile"])
    count = {row["tile"]: sum(other["tile"] == row["tile"] for other in tiles) for row in tiles}
    with rasterio.open(folder / "images.tif") as images, rasterio.open(folder / "labels.tif") as labels:
        assert images.transform == labels.transform
        seen = (images.read() > 0).any(axis=0)
        assert (labels.read(1) > 0).sum() == 60 * 120 * 120
        # blocks of the split are counted from the origin of the coordinate system
        assert round(images.transform.c / 10) % 384 == round(images.transform.f / 10) % 384 == 0
    blocks = seen.reshape(seen.shape[0] // 384, 384, -1, 384).sum(axis=(1, 3)).ravel()
    assert blocks[: len(count)].tolist() == pytest.approx([n * 120 * 120 for n in count.values()], rel=0.01)
    assert not blocks[len(count) :].any()


@pytest.mark.parametrize("blocks", [11, 12])
def test_under_twelve_blocks_no_interval_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    monkeypatch.setattr(sets, "OUT", tmp_path)
    rng = np.random.default_rng(0)
    kept = Kept("zion")
    for model, noise in ((HAND_LDA, 0.6), (FEW_RANDOM, 0.6), (FEW, 0.3)):
        for n in LABELS:
            for draw in range(DRAWS):
                parts = []
                for _ in range(blocks):
                    truth = rng.integers(0, 3, 200).astype(np.uint8)
                    proba = np.eye(3)[truth] + noise * rng.normal(size=(200, 3))
                    parts.append(Counts.of(truth, np.exp(proba) / np.exp(proba).sum(axis=1, keepdims=True)))
                kept.put(model, (n, draw), Counts.join(parts), head="lda", features="encoder")
    text = "\n".join(tables("zion"))
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {FEW} | {HAND_LDA} |"))
    assert ("…" in text) == (blocks == 12)
    assert line.count("too few blocks" if blocks < 12 else " gain") == len(LABELS)
    assert f"{FEW}, 500 labels, chose lda on encoder (2)" in text
