"""Which bands lie together, and that the groups are one image again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from geossl import bands
from geossl.bands import Band, Radiometry, Sensor
from geossl.cube.groups import COARSEST, band_groups, repeat
from geossl.cube.image import TileImage
from geossl.errors import SettingsError
from geossl.grid import Grid

S2 = bands.sensor("sentinel-2-l2a")


def grid(resolution: float) -> Grid:
    return Grid("EPSG:32622", resolution, 256, bands="native")


def of_sizes(*sizes: float) -> Sensor:
    return Sensor("own", tuple(Band(f"b{n}", None, size) for n, size in enumerate(sizes)), Radiometry("uint8"))


def named(sensor: Sensor, resolution: float) -> dict[str, list[str]]:
    return {group.suffix: list(group.of(sensor).band_names) for group in band_groups(sensor, grid(resolution))}


FINE, COARSE = ["B02", "B03", "B04", "B08"], ["B01", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"]


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        (10, {"": FINE, "_20m": COARSE}),
        # a grid for a scene in degrees: 20 m bands are twice as coarse as 10 m bands there, too
        (9.4, {"": FINE, "_18.8m": COARSE}),
        # pixels of 10 m by 7.3 m, in degrees at 43° north
        (8.6, {"": FINE, "_17.2m": COARSE}),
        (7, {"": FINE, "_14m": COARSE}),
        (12, {"": list(S2.band_names)}),  # 24 m would lose detail
        # finer than any band: those of 10 m are resampled as the grid asks, those of 20 m stay as they are
        (5, {"": FINE, "_20m": COARSE}),
        (20, {"": list(S2.band_names)}),
        (60, {"": list(S2.band_names)}),
    ],
)
def test_sentinel_2(resolution: float, expected: dict[str, list[str]]) -> None:
    assert named(S2, resolution) == expected
    (everything,) = band_groups(S2, grid(resolution).plain)
    assert (everything.bands, everything.factor, everything.name("image")) == (tuple(range(12)), 1, "image")


def test_60_m_bands_stay_on_the_grid_where_no_band_has_20_m() -> None:
    assert named(S2.subset(["B01", "B02"]), 10) == {"": ["B01", "B02"]}
    assert named(of_sizes(250, 500, 1000), 231.66) == {"": ["b0"], "_463.32m": ["b1"], "_926.64m": ["b2"]}


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=12), st.floats(1, 100))
def test_every_band_is_in_one_group_whose_pixels_lose_nothing_of_it(sizes: list[float], resolution: float) -> None:
    groups = band_groups(of_sizes(*sizes), grid(resolution))
    assert sorted(band for group in groups for band in group.bands) == list(range(len(sizes)))
    assert groups[0].factor == 1
    assert [group.factor for group in groups] == sorted({group.factor for group in groups})
    assert len({group.suffix for group in groups}) == len(groups)
    for group in groups[1:]:
        assert group.factor in (2, 4, 8, COARSEST)
        assert all(resolution * group.factor <= sizes[band] * 1.1 for band in group.bands)
        # some band of it is a power of two coarser than the finest, and pixels twice as large would be too large for it
        powers = [np.log2(sizes[band] / min(sizes)) for band in group.bands]
        own = [abs(power - round(power)) <= np.log2(1.1) for power in powers]
        assert any(
            native and (group.factor == COARSEST or resolution * 2 * group.factor > sizes[band])
            for native, band in zip(own, group.bands, strict=True)
        )


@given(st.data())
def test_repeated_pixels_are_numpys(data: st.DataObject) -> None:
    factor = data.draw(st.sampled_from([1, 2, 4]))
    pixels = np.arange(2 * 5 * 7).reshape(2, 5, 7)
    rows, columns = (window(data, side * factor) for side in (5, 7))
    out = np.full((2, rows.stop - rows.start, columns.stop - columns.start), -1)
    repeat(pixels, factor, rows, columns, out)
    np.testing.assert_array_equal(out, pixels.repeat(factor, 1).repeat(factor, 2)[:, rows, columns])


def window(data: st.DataObject, side: int) -> slice:
    start, stop = sorted(data.draw(st.tuples(st.integers(0, side), st.integers(0, side))))
    return slice(start, stop)


WHOLE = np.random.default_rng(0).integers(0, 100, (3, 5, 16, 16), dtype=np.int16)
"""(time, band, y, x): bands 1 and 3 in pixels of 2 × 2, band 4 of 4 × 4."""
for band, factor in ((1, 2), (3, 2), (4, 4)):
    WHOLE[:, band] = WHOLE[:, band, ::factor, ::factor].repeat(factor, 1).repeat(factor, 2)


def keys(axes: int = 4) -> st.SearchStrategy[Any]:
    def along(size: int) -> st.SearchStrategy[Any]:
        return st.integers(-size, size - 1) | st.slices(size).filter(lambda part: part.step is None or part.step > 0)

    sizes = WHOLE.shape
    return st.integers(0, axes).flatmap(lambda n: st.tuples(*map(along, sizes[:n])))


@given(keys())
def test_any_slices_are_those_of_the_whole_image(key: tuple[Any, ...]) -> None:
    sensor = of_sizes(10, 20, 10, 20, 40)
    groups = band_groups(sensor, grid(10))
    assert [group.bands for group in groups] == [(0, 2), (1, 3), (4,)]
    image = TileImage(
        [
            (group, zarr.array(WHOLE[:, list(group.bands), :: group.factor, :: group.factor], store={}))
            for group in groups
        ]
    )
    assert (image.shape, image.dtype) == (WHOLE.shape, WHOLE.dtype)
    np.testing.assert_array_equal(image[key], WHOLE[key])
    if len(key) == 1:
        np.testing.assert_array_equal(image[key[0]], WHOLE[key[0]])


@pytest.mark.parametrize("key", [(3,), (0, 0, -17), (0, 0, slice(None, None, -1))])
def test_what_is_not_there_is_an_error(key: tuple[Any, ...]) -> None:
    sensor = of_sizes(10, 20)
    parts = [(group, zarr.zeros((3, 1, 16 // group.factor, 16 // group.factor), store={})) for group in
             band_groups(sensor, grid(10))]  # fmt: skip
    with pytest.raises(IndexError):
        TileImage(parts)[key]


def test_a_grid_says_how_it_keeps_bands() -> None:
    native = grid(10)
    assert Grid.from_dict(native.to_dict()) == native != native.plain
    assert "bands" not in native.plain.to_dict()
    assert native.plain == Grid("EPSG:32622", 10, 256)
    with pytest.raises(SettingsError, match="choose one or native"):
        dataclasses.replace(native, bands="two")  # type: ignore[arg-type]


def test_a_coarser_tile_is_the_same_ground() -> None:
    tile = grid(10)[3, -7]
    coarse = tile.coarser(2)
    assert (coarse.id, coarse.shape, coarse.bounds) == (tile.id, (128, 128), tile.bounds)
    assert (coarse.transform.a, coarse.transform.c, coarse.transform.f) == (20, *tile.transform @ (0, 0))
    assert coarse.is_aligned(coarse.geobox)
    assert not coarse.is_aligned(tile.geobox)
    assert not tile.is_aligned(coarse.geobox)
    assert coarse.pixel_origin == (-7 * 128, 3 * 128)
    assert tile.coarser(1) == tile
