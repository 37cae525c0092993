"""Labels on the grid: against rasterio, and every mistake named."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject
from shapely.geometry import Polygon, box

from geossl import bands
from geossl.cube.ingest import ingest
from geossl.cube.labels import add_labels
from geossl.cube.repository import Cube
from geossl.cube.settings import ClassSettings, IngestSettings, LabelSettings
from geossl.errors import LabelError
from geossl.grid import Grid
from geossl.imagery.folder import FolderSettings
from geossl.imagery.sources import open_source
from geossl.legend import CHANGE, NO_LABEL

from .conftest import CORNER, GRID, SENSOR, SceneMaker

WEST, EAST = GRID[CORNER], GRID[CORNER[0] + 1, CORNER[1]]
X, Y = WEST.bounds.left, WEST.bounds.top
COLORS = ["#112233", "#445566", "#778899"]


def square(column: float, row: float, size: float) -> Polygon:
    """In pixels from the north-west corner of the imagery."""
    left, top = X + column * 10, Y - row * 10
    return box(left, top - size * 10, left + size * 10, top)


def write(path: Path, shapes: list[Any], to: str | None = None, **columns: Any) -> Path:
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=GRID.crs)
    (frame.to_crs(to) if to else frame).to_file(path)
    return path


@pytest.fixture
def imagery(cube: Cube, make_scene: SceneMaker) -> Cube:
    ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    return cube


def add(cube: Cube, path: Path, dates: tuple[str, str] | None = None, **settings: Any) -> str:
    before, after = map(dt.date.fromisoformat, dates) if dates else (None, None)
    chosen = LabelSettings(path=Path(path.name), **settings)
    return add_labels(cube, "field", chosen, "s2", path.parent, before=before, after=after)


def classes(**values: tuple[int | str, ...]) -> tuple[ClassSettings, ...]:
    return tuple(
        ClassSettings(name=name, code=10 + position, color=COLORS[position], values=of_class)
        for position, (name, of_class) in enumerate(values.items())
    )


@pytest.mark.parametrize(("suffix", "crs"), [("gpkg", None), ("geojson", "EPSG:4326"), ("shp", "EPSG:32621")])
def test_polygons_are_burned_where_they_hold_a_pixels_centre(
    imagery: Cube, tmp_path: Path, suffix: str, crs: str | None
) -> None:
    shapes = [square(10.3, 20.4, 50.5), square(240, 100, 40), square(30, 30, 5)]
    path = write(tmp_path / f"field.{suffix}", shapes, to=crs, cover=["wood", "lake", "lake"])
    add(imagery, path, column="cover", classes=classes(forest=("wood",), water=("lake", "pond")), overlap="later")
    labels = imagery.view().labels("field")
    assert (labels.task, labels.before, labels.after) == ("landcover", None, None)
    assert labels.legend.names == ("forest", "water")
    assert labels.tile_ids == [WEST.id, EAST.id]
    for tile in (WEST, EAST):
        expected = rasterize(zip(shapes, (10, 11, 11), strict=True), tile.shape, NO_LABEL, transform=tile.transform)
        np.testing.assert_array_equal(labels.read(tile.id), expected)
    assert (labels.read(WEST.id) == 10).sum() == 51 * 51 - 25


def test_legend_from_the_file(imagery: Cube, tmp_path: Path) -> None:
    shapes = [square(column, 0, 10) for column in (0, 20, 40, 60)]
    add(imagery, write(tmp_path / "a.gpkg", shapes, cover=["wood", "lake", None, "wood"]), column="cover")
    labels = imagery.view().labels("field")
    assert (labels.legend.names, labels.legend.codes) == (("lake", "wood"), (1, 2))
    assert labels.read(WEST.id)[0, [0, 20, 40, 60]].tolist() == [2, 1, NO_LABEL, 2]
    # numbers, which shapefiles hold as floats, keep their codes; another file replaces the layer
    add(imagery, write(tmp_path / "b.shp", shapes, cover=[3.0, 7.0, np.nan, 3.0]), column="cover")
    labels = imagery.view().labels("field")
    assert (labels.legend.names, labels.legend.codes) == (("class 3", "class 7"), (3, 7))
    assert labels.read(WEST.id)[0, [0, 20, 40, 60]].tolist() == [3, 7, NO_LABEL, 3]


def test_the_same_file_again_makes_no_commit(imagery: Cube, tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [square(0, 0, 9), square(9, 0, 9)], cover=["wood", "lake"])
    first = add(imagery, path, column="cover")
    assert add(imagery, path, column="cover") == first == imagery.snapshot()
    assert add(imagery, path, column="cover", ignore=("wood",), classes=classes(a=("lake",), b=("x",))) != first
    labels = imagery.view().labels("field").read(WEST.id)
    assert np.unique(labels).tolist() == [10, NO_LABEL]


def test_mistakes_are_named(imagery: Cube, tmp_path: Path) -> None:
    shapes = [square(0, 0, 9), square(9, 0, 9)]
    good = write(tmp_path / "a.gpkg", shapes, cover=["wood", "lake"], height=[1.5, 2.5])
    before = imagery.snapshot()
    with pytest.raises(LabelError, match=r"no class claims 'lake'; the file holds 'lake', 'wood'"):
        add(imagery, good, column="cover", classes=classes(forest=("wood",), water=("pond",)))
    with pytest.raises(LabelError, match=r"do not say which column[^→]*→ set `column` to one of cover, height"):
        add(imagery, good)
    with pytest.raises(LabelError, match=r"no column 'kind'[^→]*→ set `column` to one of cover, height"):
        add(imagery, good, column="kind")
    with pytest.raises(LabelError, match="neither a whole number nor a word"):
        add(imagery, good, column="height")
    with pytest.raises(LabelError, match="cannot be read"):
        add(imagery, tmp_path / "absent.gpkg", column="cover")
    (tmp_path / "text.gpkg").write_text("no vector file")
    with pytest.raises(LabelError, match="cannot be read"):
        add(imagery, tmp_path / "text.gpkg", column="cover")
    bare = write(tmp_path / "b.shp", shapes, cover=["wood", "lake"])
    bare.with_suffix(".prj").unlink()
    with pytest.raises(LabelError, match="no coordinate system"):
        add(imagery, bare, column="cover")
    for layer in ("first", "second"):
        geopandas.read_file(good).to_file(tmp_path / "many.gpkg", layer=layer)
    with pytest.raises(LabelError, match=r"several layers[^→]*→ set `layer` to one of first, second"):
        add(imagery, tmp_path / "many.gpkg", column="cover")
    with pytest.raises(LabelError, match="cannot be read"):
        add(imagery, tmp_path / "many.gpkg", layer="third", column="cover")
    away = write(tmp_path / "c.gpkg", [square(-900, 0, 9)], cover=["wood"])
    with pytest.raises(LabelError, match=r"no label of .* lies on the imagery"):
        add(imagery, away, column="cover", classes=classes(forest=("wood",), water=("lake",)))
    with pytest.raises(LabelError, match=r"date column[^→]*→ set the task's `date`"):
        add(imagery, good, column="cover", date_column="cover")
    with pytest.raises(LabelError, match="earlier one first"):
        add(imagery, good, ("2024-01-01", "2023-01-01"), column="cover")
    assert imagery.snapshot() == before


def test_clearings_by_date(imagery: Cube, tmp_path: Path) -> None:
    shapes = [square(column, 0, 10) for column in (0, 20, 40, 60, 60, 80)]
    dates = ["2019-06-01", "2020-01-01", "2021-01-01", "2018-01-01", "2020-07-01", None]
    path = write(tmp_path / "clearings.geojson", shapes, to="EPSG:4326", when=dates)
    period = ("2020-01-01", "2021-01-01")
    add(imagery, path, period, date_column="when")
    labels = imagery.view().labels("field")
    assert (labels.task, labels.legend) == ("change", CHANGE)
    assert (labels.before, labels.after) == (dt.date(2020, 1, 1), dt.date(2021, 1, 1))
    # earlier, on the first day, on the last day, earlier and again in between, unknown, untouched
    assert labels.read(WEST.id)[5, [5, 25, 45, 65, 85, 105]].tolist() == [NO_LABEL, NO_LABEL, 1, 1, NO_LABEL, 0]
    assert (labels.read(EAST.id) == 0).all()

    write(tmp_path / "area.gpkg", [square(35, 2, 100)])
    add(imagery, path, period, date_column="when", area="area.gpkg")
    labels = imagery.view().labels("field")
    assert labels.tile_ids == [WEST.id]
    codes = labels.read(WEST.id)
    assert codes[5, [5, 36, 45, 105, 136]].tolist() == [NO_LABEL, 0, 1, 0, NO_LABEL]
    assert (codes[:2] == NO_LABEL).all()


@pytest.mark.parametrize("years", [[2019, 2020, 2021, 2022], ["2019", "2020", "2021", "2022"]])
def test_clearings_by_year(imagery: Cube, tmp_path: Path, years: list[int | str]) -> None:
    """A bare year counts as its last day, so that two year ends enclose whole years."""
    shapes = [square(column, 0, 10) for column in (0, 20, 40, 60)]
    path = write(tmp_path / "clearings.gpkg", shapes, year=years)
    add(imagery, path, ("2019-12-31", "2021-12-31"), date_column="year")
    codes = imagery.view().labels("field").read(WEST.id)
    assert codes[5, [5, 25, 45, 65]].tolist() == [NO_LABEL, 1, 1, 0]


@pytest.mark.parametrize("column", ["name", "number"])
def test_change_classes_by_name_or_number(imagery: Cube, tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "a.gpkg", [square(0, 0, 9), square(9, 0, 9)], name=["clearing", "no change"], number=[1, 0])
    add(imagery, path, ("2020-01-01", "2021-01-01"), column=column)
    assert imagery.view().labels("field").read(WEST.id)[0, [0, 9, 30]].tolist() == [1, 0, NO_LABEL]


def test_a_raster_in_its_own_numbers(imagery: Cube, tmp_path: Path) -> None:
    """On another resolution, with no-data, and larger numbers than a code can be."""
    values = np.random.default_rng(1).choice(np.array([300, 41, 5, 0], np.uint16), (60, 60))
    transform = rasterio.Affine(37, 0, X + 111, 0, -37, Y - 55)
    path = tmp_path / "cover.tif"
    profile = {"width": 60, "height": 60, "count": 1, "dtype": "uint16", "crs": GRID.crs, "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **profile) as file:
        file.write(values, 1)
    with pytest.raises(LabelError, match="no class claims 300"):
        add(imagery, path, classes=classes(a=(41,), b=(5,)))
    add(imagery, path, classes=classes(a=(41,), b=(5, 300)))
    labels = imagery.view().labels("field")
    columns, rows = (~transform) @ (WEST.geobox.coordinates["x"].values, WEST.geobox.coordinates["y"].values)
    expected = nearest(values, rows, columns, {41: 10, 5: 11, 300: 11})
    np.testing.assert_array_equal(labels.read(WEST.id), expected)


def nearest(
    values: NDArray[np.uint16], rows: NDArray[np.float64], columns: NDArray[np.float64], codes: dict[int, int]
) -> NDArray[np.uint8]:
    inside = np.ix_((rows >= 0) & (rows < 60), (columns >= 0) & (columns < 60))
    expected = np.full((256, 256), NO_LABEL, np.uint8)
    there = values[
        np.ix_(rows[(rows >= 0) & (rows < 60)].astype(int), columns[(columns >= 0) & (columns < 60)].astype(int))
    ]
    expected[inside] = np.vectorize(lambda value: codes.get(value, NO_LABEL))(there)
    return expected


def test_zion_land_cover_is_warped_as_rasterio_does(cube: Cube, shared_data: Path) -> None:
    """From another datum and another resolution onto the Landsat scene's own grid."""
    folder = shared_data / "zion-landsat8-nlcd"
    sensor = bands.sensor("landsat-8-l1").subset(["red"])
    source = FolderSettings(
        path=str(folder),
        pattern="{scene}_{band}.tif",
        date="2015-08-18T18:00:00Z",  # type: ignore[arg-type]  # pydantic parses it
        bands={"B4": "b4"},
    )
    grid = Grid("EPSG:32612", 30, 512, origin=(15, 15))
    ingest(cube, open_source(source, folder).scenes(sensor), sensor, grid, "s2", IngestSettings())
    add(cube, folder / "nlcd.tif")
    labels = cube.view().labels("field")
    assert labels.legend.codes == (1, 2, 3, 4, 5, 6, 7, 8)
    with rasterio.open(folder / "nlcd.tif") as file:
        source_values = file.read(1)
        to_source = pyproj.Transformer.from_crs(grid.crs, file.crs, always_xy=True)
        for tile_id in labels.tile_ids:
            tile = grid.tile(tile_id)
            expected = np.full(tile.shape, 255, np.uint8)
            reproject(
                rasterio.band(file, 1),
                expected,
                dst_transform=tile.transform,
                dst_crs=grid.crs,
                dst_nodata=255,
                resampling=Resampling.nearest,
                tolerance=0,
            )
            np.testing.assert_array_equal(labels.read(tile_id), expected)
            # and without GDAL: where PROJ puts some pixels' centres
            picked = np.random.default_rng(0).integers(0, 512, (2, 2000))
            x, y = tile.geobox.coordinates["x"].values[picked[1]], tile.geobox.coordinates["y"].values[picked[0]]
            columns, rows = (~file.transform) @ to_source.transform(x, y)
            there = (rows >= 0) & (rows < file.height) & (columns >= 0) & (columns < file.width)
            source_codes = source_values[rows[there].astype(int), columns[there].astype(int)]
            assert (labels.read(tile_id)[*picked][there] == source_codes).all()
