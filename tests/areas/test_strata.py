"""Strata, counts and draws of class rasters whose right answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from scipy import ndimage

from geossl.areas import strata as module
from geossl.areas.sample import Sample, number_points, stratum_rows, write_points
from geossl.areas.strata import StrataMap, choose, strata_of
from geossl.errors import StoreError
from geossl.legend import CHANGE, NO_LABEL, LandClass, Legend

LEGEND = Legend(
    (LandClass(0, "stable", "#d9d9d9"), LandClass(1, "cleared", "#d7191c"), LandClass(3, "grown", "#1a9641"))
)


def write(path: Path, codes: np.ndarray, crs: str = "EPSG:32722", left: float = 200_000, size: float = 10) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NO_LABEL, "crs": crs}
    with rasterio.open(
        path,
        "w",
        height=codes.shape[0],
        width=codes.shape[1],
        transform=Affine(size, 0, left, 0, -size, 9_400_000),
        **profile,
    ) as raster:
        raster.write(codes, 1)
    return path


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Patches of change in 150 × 170 pixels with a hole, looked at in windows of 64."""
    monkeypatch.setattr(module, "WINDOW", 64)
    rng = np.random.default_rng(1)
    field = ndimage.gaussian_filter(rng.normal(size=(150, 170)), 3)
    out = np.where(field > 0.12, 1, np.where(field < -0.14, 3, 0)).astype(np.uint8)
    out[20:50, 100:] = NO_LABEL
    return out


def by_hand(codes: np.ndarray, buffer: int) -> np.ndarray:
    """Strata of the whole raster at once: stable, cleared, grown, stable near change."""
    out = np.full(codes.shape, NO_LABEL, np.uint8)
    for position, code in enumerate((0, 1, 3)):
        out[codes == code] = position
    if buffer:
        reach = np.hypot(*np.mgrid[-buffer : buffer + 1, -buffer : buffer + 1]) <= buffer
        out[(codes == 0) & ndimage.binary_dilation(np.isin(codes, (1, 3)), reach)] = 3
    return out


@pytest.mark.parametrize("buffer", [0, 1, 3])
def test_counts_and_draws_are_those_of_the_whole_raster(tmp_path: Path, codes: np.ndarray, buffer: int) -> None:
    path, strata, truth = write(tmp_path / "map.tif", codes), strata_of(LEGEND, (1, 3), buffer), by_hand(codes, buffer)
    assert [s.name for s in strata][3:] == (["stable near cleared or grown"] if buffer else [])
    seen = StrataMap(path, strata, (1, 3), buffer)
    counts = seen.count()
    assert counts.units.sum(axis=0).tolist() == np.bincount(truth.ravel(), minlength=256)[: len(strata)].tolist()
    assert counts.unmapped == (codes == NO_LABEL).sum()
    points = np.array([20, 30, 10, 25][: len(strata)])
    drawn = seen.draw(counts, points, seed=4)
    assert np.bincount(drawn.stratum).tolist() == points.tolist()
    assert (truth[drawn.row, drawn.col] == drawn.stratum).all()
    assert len(set(zip(drawn.row, drawn.col, strict=True))) == points.sum(), "without replacement"
    again = StrataMap(path, strata, (1, 3), buffer).draw(counts, points, seed=4)
    assert (again.row == drawn.row).all()
    assert (again.col == drawn.col).all()
    assert (seen.draw(counts, points, seed=5).row != drawn.row).any()


def test_every_pixel_of_a_stratum_is_as_likely(tmp_path: Path, codes: np.ndarray) -> None:
    strata = strata_of(LEGEND, (), 0)
    seen = StrataMap(write(tmp_path / "map.tif", codes[:70, :70]), strata, (), 0)
    counts = seen.count()
    hits = np.zeros((70, 70))
    for seed in range(300):
        drawn = seen.draw(counts, np.array([0, 40, 0]), seed)
        hits[drawn.row, drawn.col] += 1
    found = hits[codes[:70, :70] == 1]
    expected = 300 * 40 / len(found)
    assert found.std() == pytest.approx(np.sqrt(expected * (1 - 40 / len(found))), rel=0.1)
    halves = found[: len(found) // 2].mean(), found[len(found) // 2 :].mean()
    assert halves == pytest.approx((expected, expected), rel=0.05)


def test_all_of_a_small_stratum_may_be_drawn() -> None:
    assert choose(np.array([3, 1000]), np.array([3, 2]), 0)[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("crs", "left", "size"), [("EPSG:32722", 200_000, 10), ("EPSG:3857", -5_600_000, 30), ("EPSG:5880", 4e6, 30)]
)
def test_areas_are_those_on_the_ground(tmp_path: Path, codes: np.ndarray, crs: str, left: float, size: float) -> None:
    """Against the geodesic area of the raster's outline, which is known to a square metre."""
    full = np.zeros_like(codes)
    path = write(tmp_path / "map.tif", full, crs, left, size)
    counts = StrataMap(path, strata_of(LEGEND, (), 0), (), 0).count()
    with rasterio.open(path) as raster:
        box = raster.bounds
    ring = np.array(shapely.box(*box).segmentize(50).exterior.coords)
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*ring.T)
    truth = abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])
    assert counts.area.sum() == pytest.approx(truth, rel=1e-6)


def test_drawn_sizes_make_the_strata_areas_exact(tmp_path: Path, codes: np.ndarray) -> None:
    """Where every pixel is drawn, the sizes of a stratum have mean 1: pixels as large as their window's."""
    seen = StrataMap(write(tmp_path / "map.tif", codes, "EPSG:3857", -5_600_000, 30), strata_of(LEGEND, (), 0), (), 0)
    counts = seen.count()
    drawn = seen.draw(counts, counts.units.sum(axis=0), 0)
    assert np.ptp(drawn.size) > 0
    assert np.bincount(drawn.stratum, weights=drawn.size) == pytest.approx(counts.units.sum(axis=0))


def test_codes_without_a_class_and_unreadable_maps_are_refused(tmp_path: Path, codes: np.ndarray) -> None:
    with pytest.raises(StoreError, match=r"codes that its legend does not: \[3\]"):
        StrataMap(write(tmp_path / "map.tif", codes), strata_of(CHANGE, (1,), 2), (1,), 2).count()
    (tmp_path / "broken.tif").write_bytes(b"II*\0nonsense")
    with pytest.raises(StoreError, match="cannot be read"):
        StrataMap(tmp_path / "broken.tif", strata_of(CHANGE, (), 0), (), 0).count()


def make_sample(tmp_path: Path, codes: np.ndarray, dates: tuple[str, ...] = ("2020", "2021")) -> Sample:
    strata = strata_of(LEGEND, (1, 3), 2)
    path = write(tmp_path / "map.tif", codes)
    seen = StrataMap(path, strata, (1, 3), 2)
    counts, points = seen.count(), np.array([40, 30, 30, 30])
    rows = stratum_rows(strata, counts, points)
    with rasterio.open(path) as raster:
        drawn = number_points(seen.draw(counts, points, 0), rows, raster.transform, str(raster.crs), 0)
    about = {"id": "s", "created": "", "map": "m", "release": "r", "checksum": "", "snapshot": "S", "collection": "c"}
    return Sample(
        **about, dates=dates, crs="EPSG:32722", resolution=10, unmapped=0, distortion=0.0, legend=LEGEND,
        design={"seed": 0}, strata=rows, points=drawn,
    )  # fmt: skip


def test_a_sample_is_read_back_as_it_was(tmp_path: Path, codes: np.ndarray) -> None:
    sample = make_sample(tmp_path, codes)
    sample.save(tmp_path)
    assert Sample.load(tmp_path) == sample
    stored = json.loads((tmp_path / "sample.json").read_text())
    assert stored["strata"][1]["inclusion"] == pytest.approx(30 / stored["strata"][1]["units"])
    (tmp_path / "sample.json").write_text(json.dumps(stored | {"format": 9}))
    with pytest.raises(StoreError, match="format 9"):
        Sample.load(tmp_path)
    with pytest.raises(StoreError, match="no sample at"):
        Sample.load(tmp_path / "nowhere")


def test_interpreters_are_not_told_what_the_map_says(tmp_path: Path, codes: np.ndarray) -> None:
    sample = make_sample(tmp_path, codes)
    frame = pyogrio.read_dataframe(write_points(tmp_path, sample))
    assert list(frame.columns) == [
        "plot", "reference", "confidence", "comment", "before", "after", "picture", "lon", "lat", "geometry",
    ]  # fmt: skip
    assert frame[["reference", "confidence", "comment", "before", "after"]].isna().all(axis=None)
    assert frame["plot"].tolist() == list(range(1, 131))
    # nor can the order tell: strata lie mixed
    stratum = np.array([point.stratum for point in sample.points])
    assert np.ptp([np.flatnonzero(stratum == h).mean() for h in range(4)]) < 40
    truth = codes[[p.row for p in sample.points], [p.col for p in sample.points]]
    assert truth.tolist() == [p.mapped for p in sample.points]
    rows, cols = rasterio.transform.rowcol(
        Affine(10, 0, 200_000, 0, -10, 9_400_000), frame.geometry.x, frame.geometry.y
    )
    assert codes[rows, cols].tolist() == truth.tolist()
    lines = (tmp_path / "collect-earth-online.csv").read_text().splitlines()
    assert lines[0] == "LON,LAT,PLOTID"
    assert lines[1] == f"{frame['lon'][0]},{frame['lat'][0]},1"
    # a map of one date asks for one class
    write_points(tmp_path / "one", make_sample(tmp_path, codes, ("2020",)))
    assert "before" not in pyogrio.read_dataframe(tmp_path / "one" / "points.gpkg").columns
