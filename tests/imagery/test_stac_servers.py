"""A real STAC API: stac-fastapi.pgstac on PostgreSQL and PostGIS, from search to pixels in a cube."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from pystac.extensions.eo import Band, EOExtension
from rasterio.transform import from_origin
from rasterio.warp import transform_geom
from shapely.geometry import box, mapping, shape

from geossl.bands import Sensor, sensor
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings
from geossl.errors import SettingsError
from geossl.grid import Grid
from geossl.imagery.scene import Rejected, Scene, in_order
from geossl.imagery.sources import open_source
from geossl.imagery.stac import StacSettings

from .stac_servers import missing_for_pgstac, pgstac, post

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing_for_pgstac()), reason=missing_for_pgstac())]

START = datetime(2020, 1, 1, tzinfo=UTC)
MANY = 250
"""Items of the collection that is only searched: three pages."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pgstac(tmp_path_factory.mktemp("pgstac")) as address:
        yield address


def collect(api: str, name: str, items: list[dict[str, Any]]) -> None:
    """A new collection with these items, POSTed one by one."""
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    post(f"{api}/collections", {"type": "Collection", "stac_version": "1.0.0", "id": name, "description": name,
                                "license": "CC0-1.0", "links": [], "extent": extent})  # fmt: skip
    for item in items:
        post(f"{api}/collections/{name}/items", item | {"collection": name})


@pytest.fixture(scope="module")
def many(api: str) -> list[dict[str, Any]]:
    """Items on half-degree squares, one every six hours, of any cloud cover and some without."""
    rng = np.random.default_rng(11)
    items = []
    for number in range(MANY):
        west, south = (float(value) for value in rng.uniform((-179, -80), (178, 79)).round(3))
        footprint = box(west, south, west + 0.5, south + 0.5)
        properties: dict[str, Any] = {"datetime": (START + timedelta(hours=6 * number)).isoformat()}
        if number % 7:
            properties["eo:cloud_cover"] = float(rng.integers(0, 101))
        items.append({"type": "Feature", "stac_version": "1.0.0", "id": f"item-{number:03}", "links": [],
                      "geometry": dict(mapping(footprint)), "bbox": list(footprint.bounds), "properties": properties,
                      "assets": {"B1": {"href": f"https://example.org/{number}.tif"}}})  # fmt: skip
    collect(api, "many", items)
    return items


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"bbox": (-60, -30, 40, 50)},
        {"start": START + timedelta(days=20, hours=1), "end": START + timedelta(days=60)},
        {"max_cloud": 30},
        {"bbox": (170, -90, -170, 90), "start": START + timedelta(days=3), "max_cloud": 90},
        {"end": START - timedelta(seconds=1)},
    ],
)
def test_a_search_finds_what_was_asked(
    api: str, many: list[dict[str, Any]], make_sensor: Callable[..., Sensor], asked: dict[str, Any]
) -> None:
    """Against the same conditions, applied to the items as they were posted."""

    def wanted(item: dict[str, Any]) -> bool:
        west, south, east, north = asked.get("bbox", (-180, -90, 180, 90))
        spans = [(west, east)] if west <= east else [(west, 180), (-180, east)]
        place, properties = shape(item["geometry"]), item["properties"]
        return (
            any(box(left, south, right, north).intersects(place) for left, right in spans)
            and asked.get("start", START) <= datetime.fromisoformat(properties["datetime"])
            and datetime.fromisoformat(properties["datetime"]) <= asked.get("end", datetime.now(UTC))
            and properties.get("eo:cloud_cover", 0) <= asked.get("max_cloud", 100)
        )

    source = open_source(StacSettings(href=api, collections=("many",), **asked), Path())
    found = in_order(source.scenes(make_sensor()))
    expected = [item["id"] for item in many if wanted(item)]
    assert [entry.id for entry in found if isinstance(entry, Scene)] == expected
    assert len(found) == len(expected)
    if not asked:
        assert len(expected) == MANY


def test_a_collection_that_is_not_there_is_empty_and_an_api_path_is_explained(
    api: str, many: list[dict[str, Any]], make_sensor: Callable[..., Sensor]
) -> None:
    source = open_source(StacSettings(href=api, collections=("nothing",)), Path())
    assert list(source.scenes(make_sensor())) == []
    for href, reason in ((f"{api}/collections/many", "is a collection of a STAC API"),
                         (f"{api}/search?collections=many", "is one page of a search")):  # fmt: skip
        with pytest.raises(SettingsError, match=reason):
            list(open_source(StacSettings(href=href), Path()).scenes(make_sensor()))


S2 = sensor("sentinel-2-l2a").subset(["blue", "nir"])
GRID = Grid("EPSG:32622", 10, 256)
CORNER = (97, -2000)
SIDE = 300


def write_cogs(folder: Path, number: int) -> pystac.Item:
    """A scene of two COGs, as another provider describes it: by common names, its offset still to be undone."""
    left, _, _, top = GRID[CORNER].bounds
    transform = from_origin(left + 100 * 10, top - 40 * 10, 10, 10)
    outline = box(transform.c, transform.f - SIDE * 10, transform.c + SIDE * 10, transform.f)
    geometry = transform_geom("EPSG:32622", "EPSG:4326", mapping(outline))
    item = pystac.Item(f"scene-{number}", geometry, list(shape(geometry).bounds), START + timedelta(days=number),
                       {"platform": "sentinel-2a", "s2:product_type": "S2MSI2A", "proj:epsg": 32622})  # fmt: skip
    rng = np.random.default_rng(number)
    for name in ("blue", "nir", "scl"):
        path = folder / f"{number}-{name}.tif"
        if name == "scl":
            pixels = rng.integers(4, 12, (SIDE, SIDE)).astype(np.uint8)
        else:
            pixels = rng.integers(900, 12_000, (SIDE, SIDE)).astype(np.uint16)
            pixels[:20] = 0
        with rasterio.open(path, "w", driver="COG", count=1, width=SIDE, height=SIDE, dtype=pixels.dtype,
                           crs="EPSG:32622", transform=transform) as file:  # fmt: skip
            file.write(pixels, 1)
        asset = pystac.Asset(path.as_uri(), media_type=pystac.MediaType.COG)
        item.add_asset(name, asset)
        if name != "scl":
            EOExtension.ext(asset, add_if_missing=True).bands = [Band.create(name, common_name=name)]
            asset.extra_fields["raster:bands"] = [{"nodata": 0, "scale": 1e-4, "offset": -0.1}]
    return item


def test_scenes_go_from_an_api_into_a_cube(api: str, tmp_path: Path) -> None:
    """Every pixel equals what rasterio reads from the items' files, less the offset; a broken item stays out."""
    made = [write_cogs(tmp_path, number) for number in range(3)]
    broken = made[0].clone()
    broken.id = "broken"
    del broken.assets["nir"]
    collect(api, "cogs", [item.to_dict() for item in (*made, broken)])
    source = open_source(StacSettings(href=api, collections=("cogs",), files=tmp_path), tmp_path)
    cube = Cube.create(str(tmp_path / "cube"))
    report = ingest(cube, in_order(source.scenes(S2)), S2, GRID, "s2", IngestSettings())
    assert report.ingested == ["scene-0", "scene-1", "scene-2"]
    assert [entry.reason.partition(";")[0] for entry in report.set_aside if isinstance(entry, Rejected)] == [
        "broken: no asset holds band B08"
    ]
    collection = cube.view().collection("s2")
    around = [GRID[CORNER[0] + ix, CORNER[1] + iy] for ix in (-1, 0, 1) for iy in (-1, 0, 1)]
    tiles = [tile for tile in around if tile.id in collection.tile_ids]
    assert len(tiles) == len(collection.tile_ids) == 4
    covered = 0
    for tile in tiles:
        images, qualities = collection.image(tile.id)[:], collection.quality(tile.id)[:]
        for step, item in enumerate(made):
            read = []
            for name in ("blue", "nir", "scl"):
                with rasterio.open(tmp_path / f"{item.id[-1]}-{name}.tif") as file:
                    window = rasterio.windows.from_bounds(*tile.bounds, file.transform)
                    read.append(file.read(1, window=window, boundless=True, fill_value=0).astype(int))
            *raw, scl = read
            np.testing.assert_array_equal(images[step], [np.where(band == 0, -32768, band - 1000) for band in raw])
            np.testing.assert_array_equal(qualities[step] & 2 > 0, np.isin(scl, (8, 9)))
            nothing = (np.array(raw) == 0).any(axis=0) | (scl == 0)
            np.testing.assert_array_equal(qualities[step] & 1 > 0, nothing)
            covered += int((~nothing).sum())
    assert covered == 3 * (SIDE - 20) * SIDE
