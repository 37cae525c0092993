"""Polygons against GDAL on the whole raster, pixel counts and the ellipsoid."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import Geod
from rasterio import features
from scipy import ndimage

from geossl.grid import Grid
from geossl.legend import CHANGE, LandClass, Legend
from geossl.maps import patches
from geossl.maps.cog import Extent
from geossl.maps.polygons import write_polygons
from geossl.maps.tiles import Source, TileRecord

LEGEND = Legend(
    (LandClass(1, "water", "#2b83ba"), LandClass(2, "pasture", "#ffffbf"), LandClass(7, "forest", "#1a9641"))
)
GRID = Grid("EPSG:32722", 10, 256, (500_000, 9_500_000))


def record(grid, tile_id, start="2020-01-05", end="2020-02-07"):
    sources = tuple(Source(tile_id, f"scene-{day}", 0, "sum", day, day) for day in (start, end))
    return TileRecord(tile_id, "task", "toy", "SNAP", (64, 0, 8), sources, (0, 1, 0, 1))


def area(folder: Path, codes, percent=None, *, grid=GRID, row=-100, col=-60):
    """Class and confidence rasters whose upper left pixel is at a global row and column."""
    percent = np.where(codes == 255, 255, 80).astype(np.uint8) if percent is None else percent
    extent = Extent(grid, range(row, row + codes.shape[0]), range(col, col + codes.shape[1]))
    for name, values in (("classes", codes), ("confidence", percent)):
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": grid.crs, "transform": extent.transform}
        with rasterio.open(
            folder / f"{name}.tif", "w", width=codes.shape[1], height=codes.shape[0], nodata=255, **profile
        ) as raster:
            raster.write(values, 1)
    size = grid.tile_size
    tiles = [
        grid[ix, iy].id
        for iy in range(extent.rows.start // size, (extent.rows.stop - 1) // size + 1)
        for ix in range(extent.cols.start // size, (extent.cols.stop - 1) // size + 1)
    ]
    return folder / "classes.tif", folder / "confidence.tif", [record(grid, tile) for tile in tiles], extent


def polygons(folder: Path, *args, legend=LEGEND, **options) -> gpd.GeoDataFrame:
    count = write_polygons(folder / "map.gpkg", *args, legend, **options)
    frame = gpd.read_parquet(folder / "map.parquet")
    assert len(frame) == count
    return frame


def smooth(seed=0, shape=(700, 400), sigma=6.0):
    """Patches of all sizes, some no-data."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), sigma) for _ in range(3)]
    codes = np.array([1, 2, 7], np.uint8)[np.argmax(fields, axis=0)]
    codes[ndimage.gaussian_filter(rng.normal(size=shape), 12) * 12 > 0.45] = 255
    return codes


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([1, 2, 255])),
    st.integers(-8, 0),
    st.integers(1, 200),
)
def test_strips_give_the_polygons_of_the_whole_raster(codes, row, strip_pixels):
    # rows around 0 are a border between tiles, hence between strips too
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "_STRIP_PIXELS", strip_pixels)
        classes, confidence, records, extent = area(Path(name), codes, row=row, col=0)
        parts = patches.stream_patches(classes, confidence, records, extent, (1, 2), 1)
        found = patches.Patches.none()
        for part in parts:
            found = found + part
    expected = [(shapely.geometry.shape(shape), int(code)) for shape, code in features.shapes(codes, mask=codes != 255)]
    outlines = found.polygons()
    assert shapely.coverage_is_valid(outlines), "neighbours share their borders point by point"
    corners = shapely.simplify(outlines, 0)
    ours = {(polygon.normalize().wkt, int(code)) for polygon, code in zip(corners, found.code, strict=True)}
    assert ours == {(shapely.simplify(polygon, 0).normalize().wkt, code) for polygon, code in expected}
    assert all(polygon.is_valid for polygon in outlines)
    assert found.pixels.sum() == (codes != 255).sum()
    assert sorted(found.pixels) == sorted(int(polygon.area) for polygon, _ in expected)


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([1, 2, 7, 255])),
    st.integers(-8, 0),
    st.integers(1, 200),
    st.sampled_from([0.8, 1.5, 4.0]),
)
def test_simplified_neighbours_have_no_gaps_also_across_strips(codes, row, strip_pixels, tolerance):
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "_STRIP_PIXELS", strip_pixels)
        args = area(Path(name), codes, row=row, col=0)
        found = patches.Patches.none()
        for part in patches.stream_patches(*args, LEGEND.codes, 1, tolerance=tolerance):
            found = found + part
    outlines = found.polygons()
    assert shapely.is_valid(outlines).all()
    assert shapely.coverage_is_valid(outlines)
    assert set(shapely.get_type_id(outlines)) <= {3}
    # cutting corners moves borders, never the outline of a map without holes
    if (codes != 255).all():
        assert shapely.area(outlines).sum() == pytest.approx(codes.size)


def test_simplified_outlines_lose_corners_and_keep_areas(tmp_path):
    codes = smooth(6)
    args = area(tmp_path, codes)
    exact, simple = polygons(tmp_path, *args), polygons(tmp_path, *args, tolerance=1.0)
    assert shapely.get_num_coordinates(simple.geometry).sum() < 0.6 * shapely.get_num_coordinates(exact.geometry).sum()
    assert shapely.coverage_is_valid(simple.geometry.to_numpy())
    both = exact.sort_values(["class_code", "area_ha"]), simple.sort_values(["class_code", "area_ha"])
    # hectares are those of the pixels, whatever the outline
    np.testing.assert_allclose(both[1].area_ha, both[0].area_ha, rtol=1e-5)
    large = simple[simple.area_ha > 5]
    np.testing.assert_allclose(large.geometry.area / 1e4, large.area_ha, rtol=0.02)
    # no border moves by more than two pixels
    borders = shapely.union_all(shapely.boundary(simple.geometry))
    shapely.prepare(borders)
    assert shapely.dwithin(borders, shapely.points(shapely.get_coordinates(exact.geometry)), 20).all()


def test_areas_are_those_of_the_pixels_and_of_the_ellipsoid(tmp_path):
    codes = smooth()
    frame = polygons(tmp_path, *area(tmp_path, codes))
    assert frame.geometry.is_valid.all()
    assert set(frame.geom_type) == {"Polygon"}
    for land in LEGEND:
        of_class = frame[frame.class_code == land.code]
        assert set(of_class.class_name) == {land.name}
        pixels = int((codes == land.code).sum())
        assert of_class.geometry.area.sum() == pytest.approx(pixels * 100, rel=1e-12)
        # the projection shrinks lengths by 0.9996 at its central meridian, areas by twice that
        assert of_class.area_ha.sum() == pytest.approx(pixels * 0.01 / 0.9996**2, rel=1e-4)
    geod = Geod(ellps="WGS84")
    degrees = frame.to_crs(4326).geometry
    geodesic = np.array([abs(geod.geometry_area_perimeter(polygon)[0]) for polygon in degrees]) / 1e4
    np.testing.assert_allclose(frame.area_ha, geodesic, rtol=1e-5)


def test_confidence_is_the_mean_over_the_pixels_also_across_strips(tmp_path):
    codes = smooth(1)
    percent = np.where(codes == 255, 255, np.random.default_rng(2).integers(34, 100, codes.shape)).astype(np.uint8)
    classes, confidence, records, extent = area(tmp_path, codes, percent)
    frame = polygons(tmp_path, classes, confidence, records, extent)
    bounds = frame.geometry.bounds
    across = frame[(bounds.miny < 9_500_000) & (bounds.maxy > 9_500_000)]  # the border of two tile rows
    assert len(across) > 5
    for row in across.itertuples():
        inside = features.geometry_mask([row.geometry], codes.shape, extent.transform, invert=True)
        assert set(codes[inside]) == {row.class_code}
        assert row.confidence == pytest.approx(percent[inside].mean() / 100)


def test_dates_span_the_tiles_that_a_patch_touches(tmp_path):
    codes = np.full((300, 300), 1, np.uint8)
    codes[:, 200:] = 2
    codes[10:20, 10:20] = 7
    classes, confidence, records, extent = area(tmp_path, codes, row=0, col=0)
    by_tile = {r.tile: r for r in records}
    by_tile["x0y1"] = record(GRID, "x0y1", "2019-06-01", "2021-07-02")
    by_tile["x1y1"] = record(GRID, "x1y1", "2018-06-01", "2018-07-02")
    frame = polygons(tmp_path, classes, confidence, list(by_tile.values()), extent).set_index("class_code")
    spans = {code: (row.date_from, row.date_to) for code, row in frame.iterrows()}
    assert spans == {
        7: (dt.date(2020, 1, 5), dt.date(2020, 2, 7)),
        1: (dt.date(2019, 6, 1), dt.date(2021, 7, 2)),
        2: (dt.date(2018, 6, 1), dt.date(2021, 7, 2)),
    }


def test_small_patches_join_their_neighbours(tmp_path):
    codes = np.full((300, 300), 1, np.uint8)
    codes[100:110, 100:110] = 2  # 1 ha
    codes[250:262, 100:110] = 2  # 1.2 ha, across a border of tiles
    codes[50:55, 50:55] = 7  # 0.25 ha
    codes[5:8, :] = 255
    codes[:5, :] = 255
    codes[2, 2:6] = 7  # 0.04 ha without any neighbour
    frame = polygons(tmp_path, *area(tmp_path, codes, row=0, col=0), minimum_ha=1.0)
    pixels = {code: sorted(round(a / 100) for a in group.geometry.area) for code, group in frame.groupby("class_code")}
    assert pixels == {1: [292 * 300 - 220], 2: [100, 120]}


@pytest.mark.parametrize("minimum_ha", [0.3, 2.0])
def test_every_polygon_reaches_the_minimum_and_no_area_is_lost(tmp_path, minimum_ha):
    codes = smooth(3, (520, 260), sigma=2.5)
    frame = polygons(tmp_path, *area(tmp_path, codes), minimum_ha=minimum_ha)
    assert frame.geometry.area.min() >= minimum_ha * 1e4
    assert frame.geometry.area.sum() / 100 == pytest.approx((codes != 255).sum(), rel=0.01)
    everything = polygons(tmp_path, *area(tmp_path, codes))
    assert len(frame) < len(everything) / 2


def test_change_maps_have_polygons_of_the_clearing_alone(tmp_path):
    codes = np.zeros((100, 300), np.uint8)
    codes[20:40, 20:40] = 1
    codes[28:30, 28:30] = 0  # a small hole
    codes[60:62, 60:62] = 1
    frame = polygons(tmp_path, *area(tmp_path, codes), legend=CHANGE, codes=(1,), minimum_ha=0.5)
    assert frame.class_name.tolist() == ["clearing"]
    assert frame.geometry.area.tolist() == [40_000]


def test_geopackage_and_geoparquet_say_the_same(tmp_path):
    args = area(tmp_path, smooth(4))
    frame = polygons(tmp_path, *args)
    info = pyogrio.read_info(tmp_path / "map.gpkg")
    assert info["layer_name"] == "polygons"
    assert info["crs"] == "EPSG:32722"
    assert info["geometry_type"] == "Polygon"
    assert dict(zip(info["fields"], info["ogr_types"], strict=True)) == {
        "class_code": "OFTInteger",
        "class_name": "OFTString",
        "area_ha": "OFTReal",
        "confidence": "OFTReal",
        "date_from": "OFTDate",
        "date_to": "OFTDate",
    }
    package = gpd.read_file(tmp_path / "map.gpkg")
    assert frame.crs.to_epsg() == 32722
    np.testing.assert_array_equal(package.area_ha, frame.area_ha)
    assert package.geometry.geom_equals(frame.geometry).all()
    assert [str(day) for day in package.date_to.dt.date] == [str(day) for day in frame.date_to]


def test_duckdb_reads_the_same(tmp_path):
    # geometry and its CRS by DuckDB's own reader; the extension "spatial" would have to be downloaded
    frame = polygons(tmp_path, *area(tmp_path, smooth(4)), tolerance=1.0)
    file = tmp_path / "map.parquet"
    (crs,) = duckdb.sql(f"select distinct ST_CRS(geometry) from '{file}'").fetchall()[0]
    assert pyproj.CRS.from_json(crs).to_epsg() == 32722
    rows = duckdb.sql(
        f"select class_name, count(*), sum(area_ha), max(date_to) from '{file}' where confidence > 0.5 group by 1"
    ).fetchall()
    expected = frame.groupby("class_name")
    assert {name: (count, day) for name, count, _, day in rows} == {
        name: (len(group), dt.date(2020, 2, 7)) for name, group in expected
    }
    for name, _, hectares, _ in rows:
        assert hectares == pytest.approx(expected.get_group(name).area_ha.sum())
    found = duckdb.sql(f"select ST_AsWKB(geometry) from '{file}'").fetchall()
    assert shapely.equals(shapely.from_wkb([wkb for (wkb,) in found]), frame.geometry.to_numpy()).all()


def test_a_map_without_any_polygon_still_has_its_files(tmp_path):
    codes = np.zeros((30, 30), np.uint8)
    frame = polygons(tmp_path, *area(tmp_path, codes), legend=CHANGE, codes=(1,))
    assert len(frame) == 0
    package = gpd.read_file(tmp_path / "map.gpkg")
    assert len(package) == 0
    assert list(package.columns) == list(frame.columns)


def test_a_resolution_that_is_no_round_number_keeps_borders_together(tmp_path):
    grid = Grid("EPSG:26912", 31.53, 256, (300_000.7, 4_100_000.3))
    codes = smooth(5, (400, 300))
    frame = polygons(tmp_path, *area(tmp_path, codes, grid=grid))
    assert frame.geometry.area.sum() == pytest.approx((codes != 255).sum() * 31.53**2, rel=1e-9)
    labelled = sum(ndimage.label(codes == code)[1] for code in LEGEND.codes)
    assert len(frame) == labelled
