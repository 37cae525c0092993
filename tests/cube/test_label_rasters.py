"""Rasters of labels: names and colours of their own, public legends, years of loss."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from shapely.geometry import box

from geossl.cube.ingest import ingest
from geossl.cube.label_report import LabelReport
from geossl.cube.labels import add_labels
from geossl.cube.legends import known_legend
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings, LabelSettings
from geossl.errors import LabelError
from geossl.legend import CHANGE, NO_LABEL

from .conftest import CORNER, GRID, SENSOR, SceneMaker

WEST = GRID[CORNER]
PERIOD = (dt.date(2019, 12, 31), dt.date(2021, 12, 31))


@pytest.fixture
def imagery(cube: Cube, make_scene: SceneMaker) -> Cube:
    ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    return cube


def write(path: Path, values: NDArray[Any], pixel: float = 30, **profile: Any) -> Path:
    """A raster from the imagery's north-west corner on."""
    height, width = values.shape
    transform = rasterio.Affine(pixel, 0, WEST.bounds.left, 0, -pixel, WEST.bounds.top)
    given = {"count": 1, "dtype": values.dtype, "crs": GRID.crs, "transform": transform, **profile}
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, **given) as file:
        file.write(values, 1)
    return path


def add(cube: Cube, path: Path, dates: tuple[dt.date, dt.date] | None = None, **chosen: Any) -> LabelReport:
    before, after = dates or (None, None)
    add_labels(
        cube, "field", LabelSettings(path=Path(path.name), **chosen), "s2", path.parent, before=before, after=after
    )
    report = cube.view().labels("field").report
    assert report is not None
    return report


def test_names_and_colours_of_the_raster_itself(imagery: Cube, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.tile(np.array([1, 2, 3], np.uint8), (60, 20)))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (1, 2, 3, 255), 2: (16, 32, 48, 255), 3: (255, 0, 0, 255)})
    aux = path.with_name("a.tif.aux.xml")
    aux.write_text(
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames><Category>nothing</Category><Category>wood</Category>'
        "<Category>lake</Category><Category/></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    add(imagery, path)
    legend = imagery.view().labels("field").legend
    assert (legend.names, legend.codes) == (("wood", "lake", "class 3"), (1, 2, 3))
    assert [land.color for land in legend] == ["#010203", "#102030", "#ff0000"]
    # an attribute table, as MRLC writes it; the side-car is part of what the layer was made from
    aux.write_text(
        '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable>'
        '<FieldDefn index="0"><Name>Value</Name><Type>0</Type><Usage>5</Usage></FieldDefn>'
        '<FieldDefn index="1"><Name>Land Cover</Name><Type>2</Type><Usage>2</Usage></FieldDefn>'
        '<Row index="0"><F>3</F><F>Moor</F></Row><Row index="1"><F>1</F><F>Forest</F></Row>'
        "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
    )
    add(imagery, path)
    assert imagery.view().labels("field").legend.names == ("Forest", "class 2", "Moor")
    assert imagery.view().labels("field").version == 2


@pytest.mark.parametrize(
    ("name", "values", "codes", "names"),
    [
        ("worldcover", [10, 100, 95], (10, 95, 100), ("tree cover", "mangroves", "moss and lichen")),
        ("nlcd", [42, 11, 52], (11, 42, 52), ("open water", "evergreen forest", "shrub or scrub")),
        ("corine", [311, 512, 231], (18, 23, 41), ("pastures", "broad-leaved forest", "water bodies")),
        ("corine", [23, 41, 18], (18, 23, 41), ("pastures", "broad-leaved forest", "water bodies")),
    ],
)
def test_public_legends(
    imagery: Cube, tmp_path: Path, name: str, values: list[int], codes: tuple[int, ...], names: tuple[str, ...]
) -> None:
    path = write(tmp_path / "a.tif", np.tile(np.array([*values, 0], np.uint16), (60, 15)), nodata=0)
    report = add(imagery, path, classes=name)
    labels = imagery.view().labels("field")
    assert (labels.legend.codes, labels.legend.names) == (codes, names)
    assert set(report.pixels) == set(names)
    add(imagery, path, classes=name, ignore=(values[0],))
    assert len(imagery.view().labels("field").legend) == 2
    wrong = write(tmp_path / "b.tif", np.tile(np.array([*values, 200], np.uint16), (60, 15)))
    with pytest.raises(LabelError, match=r"no class claims 200[^→]*→ add them"):
        add(imagery, wrong, classes=name)


def test_public_legends_have_one_color_and_number_a_class() -> None:
    for name, count in (("nlcd", 20), ("worldcover", 11), ("corine", 44)):
        classes = known_legend(name)  # type: ignore[arg-type]  # names of the literal
        assert len({c.code for c in classes}) == len({c.color for c in classes}) == len(classes) == count
        assert len({value for c in classes for value in c.values}) == sum(len(c.values) for c in classes)
    # the CLC codes rise with the grid codes, in groups of three digits
    codes = [c.values[1] for c in known_legend("corine")]
    assert codes == sorted(codes, key=str)
    assert all(111 <= int(code) <= 523 for code in codes)


def test_years_of_loss(imagery: Cube, tmp_path: Path) -> None:
    """Hansen's lossyear on its own, coarser and shifted grid in degrees, against gdalwarp."""
    rng = np.random.default_rng(0)
    values = rng.choice(np.array([0, 18, 19, 20, 21, 22, 255], np.uint8), (400, 500), p=[0.5, *[0.08] * 5, 0.1])
    west, north = WEST.extent.to_crs("EPSG:4326").boundingbox.left, WEST.extent.to_crs("EPSG:4326").boundingbox.top
    transform = rasterio.Affine(0.00025, 0, west - 0.0011, 0, -0.00025, north + 0.0013)
    path = write(tmp_path / "lossyear.tif", values, crs="EPSG:4326", transform=transform, nodata=255)
    report = add(imagery, path, PERIOD, year_offset=2000)
    labels = imagery.view().labels("field")
    assert (labels.legend, labels.task, labels.before) == (CHANGE, "change", PERIOD[0])
    expected = warped(path, tmp_path)
    wanted = np.array([NO_LABEL] * 256, np.uint8)
    wanted[[0, 22]], wanted[[20, 21]] = 0, 1  # 18 and 19 were lost before
    np.testing.assert_array_equal(labels.read(WEST.id), wanted[expected])
    assert report.undecided == 0
    # dates within a year: what was lost in that year may be on either side
    report = add(imagery, path, (dt.date(2019, 6, 30), dt.date(2021, 6, 30)), year_offset=2000)
    wanted[[0, 22]], wanted[20], wanted[[18, 19, 21]] = 0, 1, NO_LABEL
    labels = imagery.view().labels("field")
    np.testing.assert_array_equal(labels.read(WEST.id), wanted[expected])
    everywhere = np.concatenate([expected, warped(path, tmp_path, GRID[CORNER[0] + 1, CORNER[1]])])
    assert report.undecided == int(np.isin(everywhere, (19, 21)).sum())
    assert f"{report.undecided:,} pixels were cleared in a year that lies only partly between" in "\n".join(
        report.lines()
    )
    # only some of the ground was looked at
    left, top = WEST.bounds.left, WEST.bounds.top
    looked_at = geopandas.GeoDataFrame(geometry=[box(left, top - 500, left + 500, top)], crs=GRID.crs)
    looked_at.to_file(tmp_path / "area.gpkg")
    add(imagery, path, PERIOD, year_offset=2000, area="area.gpkg")
    codes = imagery.view().labels("field").read(WEST.id)
    assert (codes[:50, :50] != NO_LABEL).any()
    codes[:50, :50] = NO_LABEL
    assert (codes == NO_LABEL).all()


def warped(path: Path, folder: Path, tile: Any = WEST) -> NDArray[np.uint8]:
    if shutil.which("gdalwarp") is None:
        pytest.skip("needs gdalwarp")
    bounds = [str(end) for end in (tile.bounds.left, tile.bounds.bottom, tile.bounds.right, tile.bounds.top)]
    out = folder / "warped.tif"
    command = ["gdalwarp", "-q", "-overwrite", "-r", "near", "-et", "0", "-t_srs", GRID.crs, "-te", *bounds]
    subprocess.run([*command, "-tr", "10", "10", str(path), str(out)], check=True, timeout=60)
    with rasterio.open(out) as file:
        return file.read(1)


def test_mistakes_are_named(imagery: Cube, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.tile(np.array([0, 18], np.uint8), (60, 30)))
    with pytest.raises(LabelError, match=r"hold 18, which with `year_offset: 0` is the year 18\n.*2000 for Hansen"):
        add(imagery, path, PERIOD, year_offset=0)
    with pytest.raises(LabelError, match=r"years of loss, but land cover"):
        add(imagery, path, year_offset=2000)
    path = write(tmp_path / "b.tif", np.ones((60, 60), np.float32))
    with pytest.raises(LabelError, match=r"hold float32, not whole numbers[^→]*→ .*-ot Byte"):
        add(imagery, path)
    path = write(tmp_path / "c.tif", np.ones((60, 60), np.uint8), crs=None)
    with pytest.raises(LabelError, match=r"no coordinate system[^→]*→ assign it"):
        add(imagery, path)
    with pytest.raises(LabelError, match="cannot be joined"):
        add_labels(imagery, "field", LabelSettings(path=(Path("b.tif"), Path("c.tif"))), "s2", tmp_path)
    path = write(tmp_path / "d.tif", np.ones((60, 60), np.uint8))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(LabelError, match="labels"):
        add(imagery, path)


def test_zion_has_names(cube: Cube, shared_data: Path) -> None:
    """The real raster's categories become the legend (its grid is compared in test_labels)."""
    from geossl.cube.label_files import Raster

    assert Raster(shared_data / "zion-landsat8-nlcd" / "nlcd.tif").look.names[4] == "Forest"
