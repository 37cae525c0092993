"""Embeddings of the scenes of a collection, scene by scene."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geossl.augment import Normalize
from geossl.chips.index import ChipIndex, build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.reader import ChipReader
from geossl.cube.collection import Collection
from geossl.features import embeddings as encode
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.progress import Progress, silent
from geossl.search.settings import SearchSettings
from geossl.search.table import Embeddings, Rows

BATCH = 64
"""Chips that the encoder sees at a time."""


def embed(
    into: Embeddings,
    scenes: Collection,
    encoder: Encoder,
    card: Card,
    settings: SearchSettings,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> tuple[list[str], int]:
    """Write the embeddings of every scene that has none, or that was processed again since; drop those of
    scenes that are gone.

    Memory holds one batch, and the index of all chips. What was written before an interruption stays.

    Returns
    -------
    Ids of the scenes that were embedded, and how many chips they gave.

    Raises
    ------
    RadiometryError
        The encoder takes other bands or units.
    """
    card.require(scenes.sensor, f"collection {scenes.name!r}")
    keys, steps = _content(scenes)
    there = into.keys()
    for scene in there.keys() - keys.keys():
        into.remove(scene)
    due = [scene for scene, key in keys.items() if there.get(scene) != key]
    if not due:
        return [], 0
    index = build_index(scenes, into.about.lattice.size, stride=settings.stride, min_clear=0)
    rows = _by_scene(index, steps, due)
    total, done, count = sum(map(len, rows.values())), 0, 0
    reader, normalize = ChipReader(scenes), Normalize.from_statistics(card.statistics)
    progress("chips", done, total)
    for scene, chosen in rows.items():
        chips = index.select(chosen)
        # the index knows how clear a stored chunk is; a chip of it may be all cloud, or have none
        chips = dataclasses.replace(chips, clear=reader.clear(chips))
        chips = chips.select(chips.clear >= settings.min_clear)
        done += len(chosen) - len(chips)

        def parts(chips: ChipIndex = chips) -> Iterator[Rows]:
            nonlocal done
            start = 0
            for vectors in encode(encoder, ChipLoader(reader, chips, BATCH, shuffle=False), normalize, device=device):
                yield _rows(chips, slice(start, start + len(vectors)), vectors)
                start += len(vectors)
                done += len(vectors)
                progress("chips", done, total)

        count += into.write(scene, keys[scene], scenes.snapshot, card.to_dict(), parts())
    progress("chips", total, total)
    return due, count


def _content(scenes: Collection) -> tuple[dict[str, str], dict[tuple[int, int], str]]:
    """Scene → a name for what it holds, in order of time; (number of a tile, step) → scene."""
    holds: dict[str, list[Any]] = {}
    steps: dict[tuple[int, int], str] = {}
    times: dict[str, np.datetime64] = {}
    for tile, tile_id in enumerate(scenes.tile_ids):
        ids, sums, revisions = scenes.scene_ids(tile_id), scenes.checksums(tile_id), scenes.revisions(tile_id).tolist()
        for step, (scene, checksum, revision) in enumerate(zip(ids, sums, revisions, strict=True)):
            steps[tile, step] = scene
            holds.setdefault(scene, []).append([tile_id, checksum, revision])
        times |= dict(zip(ids, scenes.times(tile_id), strict=True))
    return {
        scene: blake2b(json.dumps(holds[scene]).encode(), digest_size=8).hexdigest()
        for scene in sorted(holds, key=lambda scene: (times[scene], scene))
    }, steps


def _by_scene(
    index: ChipIndex, steps: Mapping[tuple[int, int], str], scenes: list[str]
) -> dict[str, NDArray[np.int64]]:
    """Scene → its rows of the index; also of scenes that have none, so that they are not looked at again."""
    if not len(index):
        return {scene: np.empty(0, np.int64) for scene in scenes}
    number = {scene: position for position, scene in enumerate(scenes)}
    found, first = np.unique(np.stack([index.tile, index.step], axis=1), axis=0, return_inverse=True)
    of_step = np.array([number.get(steps[tile, step], -1) for tile, step in found.tolist()], np.int64)
    of_row = of_step[first]
    order = np.argsort(of_row, kind="stable")
    ends = np.searchsorted(of_row[order], np.arange(len(scenes) + 1))
    return {scene: order[ends[position] : ends[position + 1]] for position, scene in enumerate(scenes)}


def _rows(chips: ChipIndex, part: slice, vectors: NDArray[np.float32]) -> Rows:
    return Rows(
        tile=[chips.tile_ids[tile] for tile in chips.tile[part]],
        row=chips.row[part],
        col=chips.col[part],
        clear=chips.clear[part],
        time=chips.time[part],
        vectors=vectors,
    )
