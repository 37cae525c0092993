"""Several collections as one pool."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.bands import sensor
from geossl.chips.cache import ChunkCache
from geossl.chips.index import build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.pool import PoolLoader
from geossl.chips.reader import ChipReader
from geossl.cube import layout
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.errors import SettingsError
from geossl.grid import Grid


@pytest.fixture(scope="module")
def landsat(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Another sensor, grid and cube: one tile of six bands."""
    cube = Cube.create(str(tmp_path_factory.mktemp("landsat") / "cube"))
    instrument = sensor("landsat-8-l2").subset(("blue", "green", "red", "nir08", "swir16", "swir22"))
    grid = Grid("EPSG:32622", 30, 256)
    rng = np.random.default_rng(1)

    def fill(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        tile = layout.create_tile(
            layout.create_collection(root, "landsat-c2-l2", instrument, grid), grid[65, -333], instrument
        )
        quality = np.zeros((256, 256), np.uint8)
        for month in range(2):
            image = rng.integers(7000, 20000, (6, 256, 256)).astype(np.uint16)
            step = layout.Step(
                f"L{month}", np.datetime64(f"2024-0{month + 4}-01"), "sum", layout.chunk_fractions(quality == 0)
            )
            layout.append_step(tile, step, image, quality)
        return "one tile"

    cube.transact(fill)
    return cube.view().collection("landsat-c2-l2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ChunkCache:
    return ChunkCache(tmp_path_factory.mktemp("chunks"))


def pool(
    collections: tuple[Collection, ...], cache: ChunkCache, weights: tuple[float, ...], size: int = 6, **ranks: int
) -> PoolLoader:
    members = []
    for collection in collections:
        index = build_index(collection, 64, min_clear=0.0)
        members.append(ChipLoader(ChipReader(collection, cache, 2), index, size, seed=3, **ranks))
    return PoolLoader(members, weights, seed=3)


def chips_of(batch: Any) -> list[tuple[float, ...]]:
    """Where and when each chip is: pixels alone do not tell one cloud from another."""
    return [(*place, when) for place, when in zip(batch["xy"].tolist(), batch["time"].tolist(), strict=True)]


def fingerprints(batches: Any) -> list[tuple[int, bytes]]:
    return [(int(batch["member"]), batch["image"].numpy().tobytes()) for batch in batches]


def test_each_batch_holds_one_sensor_in_its_own_bands(
    collection: Collection, landsat: Collection, cache: ChunkCache
) -> None:
    loader = pool((collection, landsat), cache, (1, 1))
    batches = list(loader)
    assert len(batches) == len(loader) == 384 // 6 + 32 // 6
    shares = Counter(int(batch["member"]) for batch in batches)
    assert abs(shares[0] - shares[1]) <= 1  # by weight, although one has twelve times as many chips
    for batch in batches:
        own = (collection, landsat)[int(batch["member"])]
        assert batch["image"].shape == (6, len(own.sensor.bands), 64, 64)
        assert str(batch["image"].dtype) == f"torch.{own.sensor.radiometry.dtype}"
        np.testing.assert_allclose(batch["wavelengths"], own.sensor.wavelengths, rtol=1e-6)
        assert batch["gsd"].tolist() == [own.grid.resolution] * 6


def test_each_member_goes_through_all_its_chips_before_any_comes_again(
    collection: Collection, landsat: Collection, cache: ChunkCache
) -> None:
    loader = pool((collection, landsat), cache, (3, 1))
    seen: dict[int, list[tuple[float, ...]]] = {0: [], 1: []}
    for _ in range(3):
        for batch in loader:
            seen[int(batch["member"])] += chips_of(batch)
    for member, chips in seen.items():
        epoch = len(loader.members[member]) * 6
        assert len(chips) > epoch
        for start in range(0, len(chips), epoch):
            part = chips[start : start + epoch]
            assert len(set(part)) == len(part)


@pytest.mark.parametrize("taken", [0, 5, 69])
def test_resuming_goes_on_at_the_very_next_batch(
    collection: Collection, landsat: Collection, cache: ChunkCache, taken: int
) -> None:
    whole = pool((collection, landsat), cache, (2, 1))
    assert len(whole) == 69
    expected = fingerprints(batch for _ in range(3) for batch in whole)
    stopped = pool((collection, landsat), cache, (2, 1))
    list(stopped)
    list(islice(stopped, taken))
    resumed = pool((collection, landsat), cache, (2, 1))
    resumed.load_state_dict(stopped.state_dict())
    got = fingerprints(batch for _ in range(1) for batch in resumed)
    assert got == expected[69 + taken :][: len(got)]
    assert got


@settings(max_examples=4, deadline=None, report_multiple_bugs=False)
@given(world=st.sampled_from([2, 3]), weight=st.sampled_from([0.2, 1.0, 4.0]))
def test_ranks_see_disjoint_chips_of_the_same_sensor_and_another_number_goes_on(
    collection: Collection, landsat: Collection, cache: ChunkCache, world: int, weight: float
) -> None:
    def ranks(world: int) -> list[PoolLoader]:
        return [
            pool((collection, landsat), cache, (1, weight), 6 // world, rank=rank, world=world) for rank in range(world)
        ]

    def together(loaders: list[PoolLoader]) -> list[tuple[int, list[tuple[float, ...]]]]:
        """Member and chips of each batch, on all ranks together."""
        out = []
        for batches in zip(*loaders, strict=True):
            (member,) = {int(batch["member"]) for batch in batches}
            out.append((member, sorted(chip for batch in batches for chip in chips_of(batch))))
        return out

    several = together(ranks(world))
    assert all(len(set(chips)) == 6 for _, chips in several)
    single = ranks(1)
    assert together(single) == several
    half = ranks(world)
    for loader in half:
        list(islice(loader, 10))
    single[0].load_state_dict(half[0].state_dict())
    assert together(single) == several[10:]


def test_what_gets_nothing_is_an_error(collection: Collection, landsat: Collection, cache: ChunkCache) -> None:
    with pytest.raises(SettingsError, match="collection landsat-c2-l2 gets none of the pool's 69 batches"):
        pool((collection, landsat), cache, (1, 1e-4))
    other = pool((collection,), cache, (1,))
    with pytest.raises(SettingsError, match="has 1 members and had 2 before"):
        other.load_state_dict(pool((collection, landsat), cache, (1, 1)).state_dict())
