"""What of a file cannot be used is counted and said, never silently lost or guessed."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from shapely.geometry import LineString, Point, Polygon, box

from geossl.cube.ingest import ingest
from geossl.cube.label_report import LabelReport
from geossl.cube.label_shapes import Shapes, between, days
from geossl.cube.labels import add_labels
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings, LabelSettings
from geossl.errors import LabelError
from geossl.grid import Grid
from geossl.legend import NO_LABEL

from .conftest import CORNER, GRID, SENSOR, SceneMaker

WEST = GRID[CORNER]
X, Y = WEST.bounds.left, WEST.bounds.top
BOWTIE = Polygon([(X + 100, Y - 100), (X + 300, Y - 300), (X + 300, Y - 100), (X + 100, Y - 300)])


def square(column: float, row: float, size: float) -> Polygon:
    """In pixels from the north-west corner of the imagery."""
    left, top = X + column * 10, Y - row * 10
    return box(left, top - size * 10, left + size * 10, top)


def write(path: Path, shapes: list[Any], **columns: Any) -> Path:
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=GRID.crs).to_file(path)
    return path


@pytest.fixture
def imagery(cube: Cube, make_scene: SceneMaker) -> Cube:
    ingest(cube, [make_scene(0)], SENSOR, GRID, "s2", IngestSettings())
    return cube


def add(cube: Cube, *paths: Path, date: str | None = None, **chosen: Any) -> LabelReport:
    named = LabelSettings(path=tuple(Path(path.name) for path in paths), **chosen)
    add_labels(cube, "field", named, "s2", paths[0].parent, date=None if date is None else dt.date.fromisoformat(date))
    report = cube.view().labels("field").report
    assert report is not None
    return report


def test_what_cannot_be_used_is_counted(imagery: Cube, tmp_path: Path) -> None:
    shapes = {
        1: (square(10, 10, 20), "wood"),
        2: (square(20, 20, 20), "lake"),  # 10 × 10 pixels are claimed twice
        3: (square(50.6, 50.6, 0.8), "lake"),  # between four centres
        4: (LineString([(X + 20, Y - 2000), (X + 220, Y - 2000)]).buffer(0.5), "lake"),  # 20 pixels long, 0.1 wide
        5: (square(-90, 0, 9), "wood"),
        6: (shapely.affinity.translate(BOWTIE, 500, -500), "lake"),
        7: (Polygon([(X, Y), (X + 50, Y - 50), (X + 100, Y - 100)]), "wood"),
        8: (None, "wood"),
        9: (square(100, 100, 3), None),
        10: (Point(X + 1555, Y - 1555), "wood"),
        11: (square(22, 22, 2), "lake"),  # hidden beneath another, yet no sliver
    }
    path = write(tmp_path / "a.gpkg", [shape for shape, _ in shapes.values()], cover=[c for _, c in shapes.values()])
    report = add(imagery, path, column="cover")
    assert report.overlaps == [("lake", "wood", 100)]
    assert report.slivers.ids == ["3", "4"]
    assert (report.outside, report.shapes) == (1, 11)
    assert report.repaired.ids == ["6"]
    assert list(report.aside) == ["8", "7"]
    assert "beyond repair" in report.aside["7"]
    assert report.blank.ids == ["9"]
    codes = imagery.view().labels("field").read(WEST.id)
    names = imagery.view().labels("field").legend.names
    assert report.pixels == {name: int((codes == code).sum()) for code, name in zip((1, 2), names, strict=True)}
    assert (codes[20:30, 20:30] == NO_LABEL).all()
    assert codes[155, 155] == 2
    told = "\n".join(report.lines())
    assert "lake and wood overlap on 100 pixels (1.00 ha): no label there" in told
    assert "2 shapes hold no pixel's centre and label nothing: features 3, 4" in told
    assert "1 of 11 shapes lie outside the imagery" in told
    # and back from the cube's attributes
    assert LabelReport.from_dict(report.to_dict()) == report

    report = add(imagery, path, column="cover", overlap="later")
    assert report.overlaps == [("lake", "wood", 100)]
    assert (imagery.view().labels("field").read(WEST.id)[20:30, 20:30] == 1).all()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_conflicts_are_those_of_every_pair_of_shapes(tmp_path: Path, data: st.DataObject) -> None:
    """Any shapes: the codes, the overlaps and the slivers follow from each shape burned alone."""
    grid = Grid("EPSG:32622", 10, 256)
    tile = grid[0, 0]
    place = st.floats(-30, 290, allow_nan=False, width=32)
    side = st.floats(0.25, 60, allow_nan=False, width=32)
    drawn = data.draw(st.lists(st.tuples(place, place, side, side, st.integers(0, 90)), min_size=1, max_size=8))
    shapes = []
    for column, row, wide, high, turn in drawn:
        part = box(0, 0, wide * 10, high * 10)
        part = shapely.affinity.rotate(part, turn) if turn else part
        shapes.append(shapely.affinity.translate(part, tile.bounds.left + column * 10, tile.bounds.top - row * 10))
    named = data.draw(st.lists(st.sampled_from("abc"), min_size=len(shapes), max_size=len(shapes)))
    path = tmp_path / "any.geojson"
    geopandas.GeoDataFrame({"c": named}, geometry=shapes, crs=grid.crs).to_file(path)
    codes = {"a": 1, "b": 2, "c": 3}
    file = Shapes([path], None, "c", grid.crs)
    kept = geopandas.read_file(path).to_crs(grid.crs).geometry  # GeoJSON rounds
    alone = [rasterize([shape], tile.shape, transform=tile.transform) > 0 for shape in kept]
    claims = {name: np.zeros(tile.shape, bool) for name in codes}
    for name, mask in zip(named, alone, strict=True):
        claims[name] |= mask
    expected = np.full(tile.shape, NO_LABEL, np.uint8)
    once = sum(claim.astype(int) for claim in claims.values()) == 1
    for name, claim in claims.items():
        expected[claim & once] = codes[name]
    np.testing.assert_array_equal(file.codes(tile, codes), expected)
    report = file.report({code: name for name, code in codes.items()})
    found = {(a, b): n for a, b, n in report.overlaps}
    wanted = {(a, b): int((claims[a] & claims[b]).sum()) for a, b in itertools.combinations("abc", 2)}
    assert found == {pair: n for pair, n in wanted.items() if n}
    near = [shape.intersects(tile.extent.geom) for shape in kept]
    assert report.outside == near.count(False)
    assert report.slivers.ids == [
        str(n) for n, (mask, touches) in enumerate(zip(alone, near, strict=True)) if touches and not mask.any()
    ]


def test_versions_count_through_the_history(imagery: Cube, tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    shapes = [square(0, 0, 9), square(9, 0, 9)]
    for version, covers in enumerate((["wood", "lake"], ["lake", "wood"]), start=1):
        write(path, shapes, cover=covers)  # the second differs in the table beside the shapes alone
        add(imagery, path, column="cover")
        add(imagery, path, column="cover")
        labels = imagery.view().labels("field")
        assert (labels.version, labels.source) == (version, "a.shp")
        assert labels.read(WEST.id)[0, 0] == (2, 1)[version - 1]
    assert [entry.message for entry in imagery.log()][:2] == [
        "labels field, version 2, from a.shp on 1 tile(s)",
        "labels field, version 1, from a.shp on 1 tile(s)",
    ]
    old = imagery.view(imagery.log()[1].snapshot).labels("field")
    assert (old.version, old.read(WEST.id)[0, 0]) == (1, 2)
    assert old.checksum != labels.checksum


def test_dated_labels_of_land_cover_belong_to_their_image(imagery: Cube, tmp_path: Path) -> None:
    when = ["2024-01-01", "2024-03-01", "2023-06-01", None, "2024"]
    path = write(
        tmp_path / "a.geojson",
        [square(20 * n, 0, 9) for n in range(5)],
        cover=["wood", "lake", "wood", "wood", "wood"],
        when=when,
    )
    report = add(imagery, path, date="2024-02-15", column="cover", date_column="when", days=50)
    labels = imagery.view().labels("field")
    assert labels.read(WEST.id)[5, [5, 25, 45, 65, 85]].tolist() == [2, 1, NO_LABEL, NO_LABEL, 2]
    assert (report.other_dates, labels.date) == (2, dt.date(2024, 2, 15))


def test_several_files_are_one(imagery: Cube, tmp_path: Path) -> None:
    """A GeoPackage and, in degrees, a GeoParquet of the same column."""
    first = write(tmp_path / "a.gpkg", [square(0, 0, 9), square(50.6, 50.6, 0.8)], cover=["wood", "wood"])
    frame = geopandas.GeoDataFrame({"cover": ["lake"]}, geometry=[square(4, 0, 9)], crs=GRID.crs)
    second = tmp_path / "b.parquet"
    frame.to_crs("EPSG:4326").to_parquet(second)
    report = add(imagery, first, second, column="cover")
    assert imagery.view().labels("field").source == "a.gpkg, b.parquet"
    assert report.pixels == {"lake": 36, "wood": 36}
    assert report.overlaps == [("lake", "wood", 45)]
    assert report.slivers.ids == ["a.gpkg:2"]


def test_wrong_input_is_told_what_where_and_what_to_do(imagery: Cube, tmp_path: Path) -> None:
    shapes = [square(0, 0, 9), square(9, 0, 9)]
    before = imagery.snapshot()
    for covers in ([None, None], ["", " "]):
        path = write(tmp_path / "empty.gpkg", shapes, cover=covers, name=["a", "b"])
        with pytest.raises(LabelError, match=r"column 'cover' of .*empty.gpkg is empty[^→]*→ fill it in"):
            add(imagery, path, column="cover")
    path = write(tmp_path / "one.gpkg", shapes, cover=["wood", "wood"])
    with pytest.raises(LabelError, match=r"hold one class only, 'wood'[^→]*→ a map tells at least two apart"):
        add(imagery, path, column="cover")
    path = write(tmp_path / "away.gpkg", [square(-900, 0, 9)], cover=["wood"])
    with pytest.raises(
        LabelError, match=r"labels lie at longitude -\d+\.\d+ to .*, the imagery at longitude -\d.*\n.*→ check"
    ):
        add(imagery, path, column="cover")
    path = write(tmp_path / "thin.gpkg", [square(50.6, 50.6, 0.8), square(60.6, 50.6, 0.8)], cover=["wood", "lake"])
    with pytest.raises(LabelError, match=r"not one pixel[^→]*→.*hold no pixel's centre"):
        add(imagery, path, column="cover")
    many = [square(n, 0, 1) for n in range(260)]
    path = write(tmp_path / "ids.gpkg", many, parcel=[f"p{n}" for n in range(260)])
    with pytest.raises(LabelError, match="260 different values, more than a legend can have classes"):
        add(imagery, path, column="parcel")
    bare = geopandas.GeoDataFrame({"cover": ["wood", "lake"]}, geometry=shapes)
    bare.to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(LabelError, match="no coordinate system"):
        add(imagery, tmp_path / "bare.parquet", column="cover")
    with pytest.raises(LabelError, match=r"have an `area`[^→]*→ use it for change"):
        add(imagery, write(tmp_path / "a.gpkg", shapes, cover=["wood", "lake"]), column="cover", area="a.gpkg")
    assert imagery.snapshot() == before


@given(
    first=st.dates(dt.date(1990, 1, 1), dt.date(2030, 1, 1)),
    length=st.integers(0, 400),
    before=st.dates(dt.date(1990, 1, 1), dt.date(2030, 1, 1)),
    period=st.integers(1, 2000),
)
def test_a_change_on_some_day_of_a_span(first: dt.date, length: int, before: dt.date, period: int) -> None:
    """Surely inside, surely after, or neither: by looking at every day of the span."""
    after = before + dt.timedelta(days=period)
    span = [first + dt.timedelta(days=day) for day in range(length + 1)]
    ends = (np.array([day], "datetime64[D]") for day in (span[0], span[-1]))
    inside, neither, straddling = (bool(found[0]) for found in between(*ends, (before, after)))
    kinds = {"early" if day <= before else "inside" if day <= after else "late" for day in span}
    assert inside == (kinds == {"inside"})
    assert neither == (kinds not in ({"inside"}, {"late"}))
    assert straddling == (len(kinds) > 1)


def test_a_bare_year_is_any_of_its_days() -> None:
    first, last = days(pd.Series(["2020", 2021.0, "2022-03-04", None, "soon"], dtype=object))
    assert first.astype(str).tolist() == ["2020-01-01", "2021-01-01", "2022-03-04", "NaT", "NaT"]
    assert last.astype(str).tolist() == ["2020-12-31", "2021-12-31", "2022-03-04", "NaT", "NaT"]
