"""What an interpreter looks at: every sampled place, date by date, in true and in false colours."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geossl.areas.sample import Point, Sample, picture_name
from geossl.bands import Sensor, Statistics
from geossl.cube.collection import Collection
from geossl.files import aside, write_text
from geossl.progress import Progress
from geossl.report.pictures import OVERLAYS, quicklook, stretched

SIDE = 64
"""Pixels of the ground across a picture."""

_ZOOM = 4
_GAP, _LINE = 8, 18


def write_pictures(
    folder: Path,
    sample: Sample,
    images: Collection,
    statistics: Statistics,
    steps: Mapping[str, Sequence[int]],
    progress: Progress,
) -> None:
    """One PNG a point, and a page of all.

    Parameters
    ----------
    steps:
        Which steps of every tile to show, in order of time.
    """
    grid, done = images.grid, 0
    by_tile: dict[str, list[Point]] = {}
    for point in sample.points:
        ix = int((point.x - grid.origin[0]) // (grid.resolution * grid.tile_size))
        iy = int((grid.origin[1] - point.y) // (grid.resolution * grid.tile_size))
        by_tile.setdefault(grid[ix, iy].id, []).append(point)
    (folder / "chips").mkdir(parents=True, exist_ok=True)
    for tile_id, points in by_tile.items():
        # neighbours share the chunks that were just read
        for point in sorted(points, key=lambda point: (point.row // 256, point.col // 256)):
            progress("pictures", done, len(sample.points))
            with aside(folder / picture_name(point.plot)) as partial:
                _strip(images, statistics, tile_id, point, steps[tile_id]).save(partial, format="PNG")
            done += 1
    progress("pictures", done, len(sample.points))
    write_text(folder / "index.html", _page(sample))


def dates_to_show(images: Collection, tile_id: str, own: Sequence[int], most: int) -> list[int]:
    """The steps that a map looked at, and others that are clear, spread evenly over time; in order of time."""
    clear, times = images.clear_fraction(tile_id), images.times(tile_id)
    usable = np.flatnonzero((clear >= 0.5 * clear.max(initial=0)) & (clear > 0))
    others = usable[np.argsort(times[usable], kind="stable")]
    others = others[~np.isin(others, own)]
    few = min(max(most - len(own), 0), len(others))
    picked = others[np.linspace(0, len(others) - 1, few).round().astype(int)] if few else []
    return sorted({*own, *(int(step) for step in picked)}, key=lambda step: times[step])


def _strip(images: Collection, statistics: Statistics, tile_id: str, point: Point, steps: Sequence[int]) -> Image.Image:
    """A column for each date: natural colours above, infrared below, the sampled pixel framed."""
    tile, resolution = images.tile(tile_id), images.grid.resolution
    row = int((tile.bounds.top - point.y) // resolution)
    col = int((point.x - tile.bounds.left) // resolution)
    top, left = (int(np.clip(at - SIDE // 2, 0, tile.shape[0] - SIDE)) for at in (row, col))
    false = _false_colours(images.sensor)
    wide, rows = SIDE * _ZOOM, 1 if false is None else 2
    strip = Image.new("RGB", ((wide + _GAP) * len(steps) + _GAP, (wide + _GAP) * rows + _LINE + _GAP), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(13)
    times, image = images.times(tile_id), images.image(tile_id)
    for number, step in enumerate(steps):
        pixels = np.asarray(image[step, :, top : top + SIDE, left : left + SIDE])
        x = _GAP + number * (wide + _GAP)
        draw.text((x, 2), str(times[step])[:10], "black", font)
        for line, picture in enumerate(_pictures(pixels, images.sensor, statistics, false)):
            y = _LINE + _GAP + line * (wide + _GAP)
            strip.paste(Image.fromarray(picture).resize((wide, wide), Image.Resampling.NEAREST), (x, y))
            corner = x + (col - left) * _ZOOM, y + (row - top) * _ZOOM
            draw.rectangle(
                (corner[0] - 2, corner[1] - 2, corner[0] + _ZOOM + 1, corner[1] + _ZOOM + 1), None, OVERLAYS[0], 2
            )
    return strip


def _pictures(
    pixels: NDArray[Any], sensor: Sensor, statistics: Statistics, false: Sequence[int] | None
) -> Iterator[NDArray[np.uint8]]:
    yield quicklook(pixels, sensor, statistics)
    if false is not None:
        stored = pixels[list(false)]
        missing = np.isnan(sensor.radiometry.to_physical(stored)).any(axis=0)
        low, high = (np.array([p[b] for b in false]) for p in (statistics.p02, statistics.p98))
        yield stretched(stored, missing, low, high)


def _false_colours(sensor: Sensor) -> tuple[int, int, int] | None:
    """Near infrared, short-wave infrared and red (or, without short waves, green) as red, green and blue."""
    common = {band.common_name: number for number, band in enumerate(sensor.bands)}
    near = common.get("nir", common.get("nir08"))
    short = common.get("swir16", common.get("swir22"))
    if near is None or "red" not in common:
        return None
    if short is not None:
        return near, short, common["red"]
    return (near, common["red"], common["green"]) if "green" in common else None


def _page(sample: Sample) -> str:
    rows = "\n".join(
        f'<figure id="{p.plot}"><img loading="lazy" src="{picture_name(p.plot)}" alt="Plot {p.plot} at every date">'
        f"<figcaption>Plot {p.plot} at {p.lon:.6f}, {p.lat:.6f}</figcaption></figure>"
        for p in sample.points
    )
    title = html.escape(f"Sample {sample.id}: {len(sample.points)} plots")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font-family:sans-serif;margin:2em}figure{margin:0 0 2em}img{max-width:100%}</style>\n"
        f"<h1>{title}</h1>\n<p>Above: natural colours. Below: near infrared, short-wave infrared and red. "
        f"The framed pixel, {sample.resolution:g} m wide, is what to judge: {html.escape(', '.join(sample.legend.names))}."
        f"</p>\n{rows}\n</html>\n"
    )
