"""Which places of a collection are looked at, and their pixels scene by scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from geossl.augment import Normalize
from geossl.chips.index import ChipIndex, build_index
from geossl.chips.reader import ChipReader
from geossl.cube.collection import Collection
from geossl.drift.describe import SIDE, Description, describe
from geossl.grid import CHUNK
from geossl.imagery.clouds import Quality
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder

MOST = 256
"""Most places of a collection: more say little more, and each costs a stored chunk a scene."""


def descriptions(
    scenes: Collection, wanted: Sequence[str], encoder: Encoder, card: Card, *, device: torch.device | str = "cpu"
) -> Iterator[Description]:
    """Describe scenes (by id), one after the other, held ones as if they were not held.

    Raises
    ------
    RadiometryError
        The encoder takes other bands or units.
    """
    card.require(scenes.sensor, f"collection {scenes.name!r}")
    index, place = places(scenes)
    reader = ChipReader(scenes)
    normalize = Normalize.from_statistics(card.statistics).to(device)
    encoder = encoder.to(device).eval()
    ids = {number: scenes.scene_ids(tile_id) for number, tile_id in enumerate(index.tile_ids)}
    of_row = np.array([ids[tile][step] for tile, step in zip(index.tile.tolist(), index.step.tolist(), strict=True)])
    unseen = np.uint8(Quality.NODATA | Quality.CLOUD | Quality.SHADOW | Quality.SNOW | Quality.CIRRUS)
    for scene in wanted:
        rows = np.flatnonzero(of_row == scene)
        if not rows.size:
            continue
        pixels = reader.read(index, rows)
        valid = (pixels.quality & unseen) == 0
        with torch.inference_mode():
            image = normalize(torch.from_numpy(pixels.image).to(device), torch.from_numpy(valid).to(device))
            pooled = encoder(image).pooled.float().cpu().numpy()
        yield describe(scene, index.time[rows[0]], place[rows], image.cpu().numpy(), valid, pooled)


def places(scenes: Collection) -> tuple[ChipIndex, NDArray[np.int64]]:
    """The windows of all steps at the places, and the place of each.

    The middle of every stored chunk, or its four quarters' middles where there would be few; of a large
    collection some that are drawn by their address, so that they stay when it grows.
    """
    index = build_index(scenes, SIDE, stride=SIDE, min_clear=0)
    for offsets in ((96,), (32, 160), range(0, CHUNK, SIDE)):
        inside = np.isin(index.row % CHUNK, offsets) & np.isin(index.col % CHUNK, offsets)
        chosen = index.select(inside)
        place = _addresses(scenes, chosen)
        if len(np.unique(place)) >= MOST // 4:
            break
    known = np.unique(place)
    if len(known) > MOST:
        kept = known[np.argsort(_mixed(known), kind="stable")[:MOST]]
        inside = np.isin(place, kept)
        chosen, place = chosen.select(inside), place[inside]
    return chosen, place


def _addresses(scenes: Collection, index: ChipIndex) -> NDArray[np.int64]:
    """(N,) one number for each window's place on the grid."""
    origins = np.array([scenes.tile(tile_id).pixel_origin for tile_id in index.tile_ids], np.int64).reshape(-1, 2)
    row = origins[index.tile, 0] + index.row
    col = origins[index.tile, 1] + index.col
    return (row // SIDE) * (1 << 24) + (col // SIDE) % (1 << 24)


def _mixed(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A fixed order that has nothing to do with where places lie (SplitMix64's last step)."""
    z = values.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return z ^ (z >> np.uint64(31))
