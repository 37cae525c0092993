"""The pictures of a project's report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import torch
from affine import Affine
from pydantic import TypeAdapter
from rasterio.enums import Resampling

from geossl.augment import Normalize
from geossl.bands import Statistics
from geossl.chips.index import ChipIndex, build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.reader import ChipReader
from geossl.cube.collection import Collection
from geossl.cube.overview import Overview
from geossl.downstream.images import DatedImages
from geossl.features import embed
from geossl.imagery.clouds import Quality
from geossl.legend import Legend
from geossl.maps.alerts.style import ALERTS
from geossl.methods.registry import build_method
from geossl.methods.settings import MethodSettings
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.project.overview import overview, scene_steps
from geossl.report.pictures import NOTHING, quicklook
from geossl.report.records import (
    AlertSheet,
    CaptionedPicture,
    ChangeExample,
    ClassMap,
    CloudMask,
    Neighbours,
    Outline,
    Picture,
    ScenePicture,
    ShownChip,
)

MOST_SCENES = 12
"""Scenes shown; of more, as many spread evenly over time."""

MAP_SIDE = 960
EXAMPLE_SIDE = 160
"""Pixels on the ground grid around a change example."""

MARGIN = 40
"""Pixels of surroundings that a change example shows at least."""

_NEWEST_ALERTS = 12
"""Alerts in the table."""

_VIEWS = 16
"""Chips that are shown with a view."""

_CHIPS = 512
"""Chips among which neighbours are sought."""

_LOOKED_AT, _READ = 0.95, 512
"""Clear share of chips that are shown, and how many of a small area are read for it."""


def scene_pictures(scenes: Collection, statistics: Statistics) -> list[ScenePicture]:
    """Quicklooks of scenes spread evenly over time."""
    steps = scene_steps(scenes)
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(MOST_SCENES, len(steps))).round().astype(int))
    pictures = []
    for scene in (list(steps)[i] for i in chosen):
        tiles = steps[scene]
        clear = float(np.mean([scenes.clear_fraction(tile_id)[step] for tile_id, step in tiles.items()]))
        tile_id, step = next(iter(tiles.items()))
        when = _datetime(scenes.times(tile_id)[step])
        small = overview(scenes, tiles, side=320)
        pictures.append(ScenePicture(scene, when, clear, quicklook(small.image, scenes.sensor, statistics)))
    return pictures


def composite_pictures(images: Collection, statistics: Statistics) -> list[CaptionedPicture]:
    """The newest composites, at most three."""
    found = []
    for name, tiles in list(scene_steps(images).items())[-3:]:
        picture = quicklook(overview(images, tiles).image, images.sensor, statistics)
        found.append(CaptionedPicture(name, picture, "median of all clear observations"))
    return found


def cloud_mask(scenes: Collection, statistics: Statistics) -> CloudMask | None:
    """The scene whose cloud cover is the most telling (nearest to a third); None where none has clouds."""
    steps = scene_steps(scenes)
    clear = {
        scene: float(np.mean([scenes.clear_fraction(tile_id)[step] for tile_id, step in tiles.items()]))
        for scene, tiles in steps.items()
    }
    for scene in sorted(clear, key=lambda scene: abs(clear[scene] - 2 / 3)):
        view = overview(scenes, steps[scene])
        layers = {
            "cloud": _has(view, Quality.CLOUD | Quality.CIRRUS),
            "shadow": _has(view, Quality.SHADOW),
            "snow": _has(view, Quality.SNOW),
        }
        shown = {name: mask for name, mask in layers.items() if mask.any()}
        if shown:
            return CloudMask(scene, quicklook(view.image, scenes.sensor, statistics), shown)
    return None


def _clear(scenes: Collection, size: int) -> ChipIndex:
    """Chips to look at, all but clear: of stored chunks that are, or where a small area has none, by their pixels."""
    index = build_index(scenes, size, min_clear=_LOOKED_AT)
    whole = index.clear >= _LOOKED_AT
    if whole.any():
        return index.select(whole)
    few = index.select(np.sort(np.random.default_rng(0).permutation(len(index))[:_READ]))
    return few.select(ChipReader(scenes).clear(few) >= _LOOKED_AT)


def views(scenes: Collection, encoder: Encoder, card: Card) -> list[ShownChip]:
    """Chips of all dates, each with a view of it as the method of the encoder draws them; none of an imported one."""
    if "method" not in card.settings:
        return []
    method = build_method(TypeAdapter(MethodSettings).validate_python(card.settings["method"]), encoder)
    index = _clear(scenes, int(card.settings["chip"]))
    rng = np.random.default_rng(0)
    index = index.select(np.sort(rng.choice(len(index), min(_VIEWS, len(index)), replace=False)))
    if len(index) == 0:
        return []
    batch = next(iter(ChipLoader(ChipReader(scenes), index, len(index), shuffle=False)))
    normalize = Normalize.from_statistics(card.statistics)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        seen = method.view(batch | {"image": normalize(batch["image"], batch["valid"])})
    # what was not seen is 0 in all bands
    shown = (seen * normalize.std + normalize.mean).masked_fill((seen == 0).all(dim=1, keepdim=True), torch.nan).numpy()
    return [
        ShownChip(*(quicklook(image, card.sensor, card.statistics) for image in pair))
        for pair in zip(batch["image"].numpy(), shown, strict=True)
    ]


def neighbours(
    scenes: Collection, encoder: Encoder, card: Card, *, queries: int = 4, matches: int = 5
) -> list[Neighbours]:
    """Chips of the newest clear scenes, each with those that the encoder finds most like it."""
    size = int(card.settings.get("chip", 128))
    index = _clear(scenes, size)
    if len(index) <= matches + 1:
        return []
    newest = np.argsort(index.time, kind="stable")[-4 * _CHIPS :]
    rng = np.random.default_rng(0)
    index = index.select(np.sort(rng.choice(newest, min(_CHIPS, len(newest)), replace=False)))
    loader = ChipLoader(ChipReader(scenes), index, 32, shuffle=False)
    pictures: list[Picture] = []

    def shown() -> Iterator[dict[str, object]]:
        for batch in loader:
            pictures.extend(quicklook(image, card.sensor, card.statistics) for image in batch["image"].numpy())
            yield dict(batch)

    vectors = embed(encoder, shown(), Normalize.from_statistics(card.statistics))
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    found = []
    for query in _spread(vectors, queries):
        likeness = vectors @ vectors[query]
        # the same ground at another date would be no find
        same = (
            (index.tile == index.tile[query])
            & (np.abs(index.row - index.row[query]) < size)
            & (np.abs(index.col - index.col[query]) < size)
        )
        likeness[same] = -np.inf
        best = np.argsort(-likeness)[:matches]
        found.append(Neighbours(pictures[query], [pictures[i] for i in best], [float(likeness[i]) for i in best]))
    return found


def class_map(path: Path, title: str, legend: Legend, data: DatedImages, statistics: Statistics) -> ClassMap:
    """A published map, thinned out from its overviews, beside the imagery of the same ground.

    A map of change lies over its later image, beside the earlier one.
    """
    with rasterio.open(path) as raster:
        factor = max(1, -(-max(raster.shape) // MAP_SIDE))
        shape = raster.height // factor, raster.width // factor
        codes = raster.read(1, out_shape=shape, resampling=Resampling.nearest)
        area = abs(raster.transform.a * raster.transform.e) * raster.height * raster.width / codes.size
        grid, corner = data.collection.grid, raster.transform @ (0, 0)
        top = round((grid.origin[1] - corner[1]) / grid.resolution)
        left = round((corner[0] - grid.origin[0]) / grid.resolution)
        rows = top + (np.arange(shape[0]) + 0.5) * raster.height / shape[0]
        cols = left + (np.arange(shape[1]) + 0.5) * raster.width / shape[1]
    found = {tile_id: data.steps(tile_id) for tile_id in data.collection.tile_ids}
    images = [
        _looked_up(data, {tile: steps[date] for tile, steps in found.items() if steps}, rows, cols, statistics)
        for date in range(len(data.dates))
    ]
    if any(image is None for image in images):
        return ClassMap(title, codes, legend, pixel_area=area)
    before, *after = images
    names = ("before", "after, with the map") if after else ("imagery", "map")
    return ClassMap(title, codes, legend, area, before=before, names=names, ground=after[0] if after else None)


def alert_sheet(folder: Path, name: str, data: DatedImages, statistics: Statistics, root: Path) -> AlertSheet:
    """The alerts of one release over the newest imagery, beside that from before the monitoring."""
    found = class_map(folder / f"{name}-status.tif", f"Alerts {name}", ALERTS, data, statistics)
    frame = gpd.read_parquet(folder / f"{name}.parquet")
    with rasterio.open(folder / f"{name}-status.tif") as raster:
        scale = Affine.scale(found.codes.shape[1] / raster.width, found.codes.shape[0] / raster.height)
        place = scale @ ~raster.transform
    codes = found.codes.copy()
    middle = frame.geometry.representative_point()
    for x, y, code in sorted(zip(middle.x, middle.y, frame["status_code"], strict=True), key=lambda each: each[2]):
        col, row = (int(at) for at in place @ (x, y))
        codes[max(0, row - 1) : row + 2, max(0, col - 1) : col + 2] = code  # small ones would not be seen
    newest = frame.sort_values(["first_date", "area_ha"], ascending=False)[:_NEWEST_ALERTS]
    where = newest.geometry.representative_point().to_crs("EPSG:4326")
    rows = [
        (str(day), status, f"{hectares:.1f}", f"{point.x:.5f}, {point.y:.5f}", patch)
        for day, status, hectares, point, patch in zip(
            newest["first_date"], newest["status"], newest["area_ha"], where, newest["alert_id"], strict=True
        )
    ]
    count = frame["status"].value_counts()
    states = ", ".join(f"{count[each]} {each}" for each in ALERTS.names if each in count) or "none"
    file = (folder / f"{name}.gpkg").relative_to(root)
    notes = [
        f"{len(frame)} alerts ({states}), {frame['area_ha'].sum():,.1f} ha in all",
        f"To judge them, open {file} in QGIS, and let geossl read it back: geossl alerts review {file}",
    ]
    about = (
        f"The image nearest to {data.dates[0]}, when the monitoring began, beside the newest with the alerts. "
        "Small ones are drawn larger than they are."
    )
    return AlertSheet(name, notes, rows, replace(found, codes=codes, pixel_area=None, caption=about))


def _looked_up(
    data: DatedImages, steps: dict[str, int], rows: np.ndarray, cols: np.ndarray, statistics: Statistics
) -> Picture | None:
    """The nearest pixels of one date's imagery at global rows and columns; None where there is none."""
    if not steps:
        return None
    view = overview(data.collection, steps, side=MAP_SIDE)
    picture = quicklook(view.image, data.sensor, statistics)
    r, c = (
        np.floor((at - start) / view.every).astype(int) for at, start in zip((rows, cols), view.origin, strict=True)
    )
    inside = np.ix_((r >= 0) & (r < picture.shape[0]), (c >= 0) & (c < picture.shape[1]))
    shown = np.full((len(rows), len(cols), 3), NOTHING, np.uint8)
    shown[inside] = picture[np.ix_(r[inside[0].ravel()], c[inside[1].ravel()])]
    return shown


def change_examples(data: DatedImages, polygons: Path, statistics: Statistics, *, most: int = 3) -> list[ChangeExample]:
    """The largest changes found, before and after, with their outlines and the labelled ones."""
    frame = pyogrio.read_dataframe(polygons)
    if frame.empty:
        return []
    collection, grid = data.collection, data.collection.grid
    frame = frame.to_crs(grid.crs).nlargest(most, "area_ha").reset_index(drop=True)
    examples = []
    for number in range(len(frame)):
        centre = frame.geometry[number].representative_point()
        col = round((centre.x - grid.origin[0]) / grid.resolution)
        row = round((grid.origin[1] - centre.y) / grid.resolution)
        tile_id = grid[col // grid.tile_size, row // grid.tile_size].id
        steps = data.steps(tile_id) if tile_id in collection.tile_ids else None
        if steps is None:
            continue
        tile = collection.tile(tile_id)
        top, left = tile.pixel_origin
        west, south, east, north = frame.geometry[number].bounds
        side = int(
            max(
                EXAMPLE_SIDE,
                (east - west) / grid.resolution + 2 * MARGIN,
                (north - south) / grid.resolution + 2 * MARGIN,
            )
        )
        side = min(side, grid.tile_size)
        y = int(np.clip(row - top - side // 2, 0, grid.tile_size - side))
        x = int(np.clip(col - left - side // 2, 0, grid.tile_size - side))
        before, after = (
            quicklook(
                np.asarray(collection.image(tile_id)[step, :, y : y + side, x : x + side]), data.sensor, statistics
            )
            for step in steps
        )
        times = collection.times(tile_id)
        origin = grid.origin[0] + (left + x) * grid.resolution, grid.origin[1] - (top + y) * grid.resolution
        examples.append(
            ChangeExample(
                title=f"{frame.area_ha[number]:.1f} ha at {centre.x:.0f} E, {centre.y:.0f} N",
                before=before,
                after=after,
                before_date=_datetime(times[steps[0]]).date(),
                after_date=_datetime(times[steps[1]]).date(),
                found=list(_outlines(frame, origin, grid.resolution, side)),
            )
        )
    return examples


def _outlines(frame: object, origin: tuple[float, float], resolution: float, side: int) -> Iterator[Outline]:
    for shape in frame.geometry:  # type: ignore[attr-defined]  # geopandas ships no types
        for part in getattr(shape, "geoms", [shape]):
            ring = [((x - origin[0]) / resolution, (origin[1] - y) / resolution) for x, y in part.exterior.coords]
            if any(0 <= x <= side and 0 <= y <= side for x, y in ring):
                yield ring


def _spread(vectors: np.ndarray, count: int) -> list[int]:
    """Rows far from one another: the first of all, then always the farthest (Gonzalez 1985)."""
    chosen = [0]
    nearest = vectors @ vectors[0]
    while len(chosen) < min(count, len(vectors)):
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return chosen


def _has(view: Overview, flags: int) -> np.ndarray:
    return (view.quality & int(flags)) != 0


def _datetime(time: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(time.astype("datetime64[s]").astype(int)), tz=UTC)
