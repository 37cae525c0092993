"""Predict a map, tile by tile; only tiles whose inputs changed are predicted again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geossl.bands import require_same_radiometry
from geossl.grid import Tile
from geossl.legend import NO_LABEL, Legend
from geossl.maps.blend import Blender, Lattice, Rows
from geossl.maps.canvas import Canvas
from geossl.maps.protocols import Imagery, MapTask
from geossl.maps.seam import SeamError, seam_error
from geossl.maps.settings import MapSettings
from geossl.maps.tiles import TileFolder, TileRecord
from geossl.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class MapReport:
    """What a prediction did."""

    records: tuple[TileRecord, ...]
    """All tiles of the map, row by row, whether predicted now or before."""
    computed: tuple[str, ...]
    """Ids of the tiles that were predicted now."""
    windows: int
    """How many windows the model looked at."""
    seam: SeamError | None
    """Of this model with these windows, on the tile with the most data; None where no tile has data."""


def predict_map(
    task: MapTask,
    collection: Imagery,
    steps: Mapping[str, Sequence[int]],
    folder: Path,
    *,
    settings: MapSettings | None = None,
    tiles: Iterable[str] | None = None,
    progress: Progress = silent,
) -> MapReport:
    """Predict tiles into a folder of intermediate rasters, one tile after the other.

    A tile whose model, windows and source pixels (its own, and those of neighbours that its
    windows reach into) are those of the raster on disk is left alone; hence an interrupted run
    goes on where it stopped, and a run without news does nothing.

    Parameters
    ----------
    steps:
        Which steps of each tile to map, by tile id: one for each date of the task.
    folder:
        Where the predicted tiles lie between runs; a :class:`~geossl.maps.tiles.TileFolder`.
    tiles:
        Which tiles to predict; None: all that ``steps`` names. The others still lend their
        pixels to windows that reach across a border.

    Raises
    ------
    RadiometryError
        The model was trained for other bands or units.
    """
    settings = settings or MapSettings()
    require_same_radiometry(
        task.sensor, collection.sensor, us=f"the model {task.id}", them=f"the collection {collection.name}"
    )
    canvas = Canvas(collection, steps, task.dates)
    blender = Blender(task, canvas, Lattice.of(task, settings), settings.batch)
    store = TileFolder(folder)
    wanted = sorted(
        (collection.grid.tile(tile_id) for tile_id in (steps if tiles is None else tiles)),
        key=lambda tile: (tile.iy, tile.ix),
    )
    records: list[TileRecord] = []
    computed: list[str] = []
    for done, tile in enumerate(wanted):
        progress("map", done, len(wanted))
        planned = _plan(task, canvas, blender.lattice, tile)
        before = store.record(tile.id)
        if before is not None and before.same_inputs(planned):
            records.append(before)
            continue
        records.append(_predict_tile(blender, tile, store, planned))
        computed.append(tile.id)
    progress("map", len(wanted), len(wanted))
    return MapReport(tuple(records), tuple(computed), blender.windows, _seam(blender, store, records))


def _spans(tile: Tile) -> tuple[range, range]:
    """Global rows and columns of a tile."""
    (top, left), (height, width) = tile.pixel_origin, tile.shape
    return range(top, top + height), range(left, left + width)


def _plan(task: MapTask, canvas: Canvas, lattice: Lattice, tile: Tile) -> TileRecord:
    """The record that a tile would get if it were predicted now, but for its pixels."""
    rows, cols = _spans(tile)
    reached = sorted(canvas.tiles(lattice.reach(rows), lattice.reach(cols)), key=lambda other: other.id != tile.id)
    return TileRecord(
        tile=tile.id,
        task=task.id,
        collection=canvas.collection.name,
        snapshot=canvas.collection.snapshot,
        windows=(lattice.window, lattice.margin, lattice.overlap),
        sources=tuple(source for other in reached for source in canvas.sources(other.id)),
        extent=None,
    )


def _predict_tile(blender: Blender, tile: Tile, store: TileFolder, planned: TileRecord) -> TileRecord:
    rows, cols = _spans(tile)
    legend = blender.task.legend
    counts = np.zeros(256, np.int64)
    with_data_rows, with_data_cols = np.zeros(len(rows), np.bool_), np.zeros(len(cols), np.bool_)
    with store.writing(tile) as write:
        for part in blender.blend(rows, cols):
            bands = _to_bands(part, legend)
            row = part.rows.start - rows.start
            write(row, bands)
            counts += np.bincount(bands[0].ravel(), minlength=256)
            with_data_rows[row : row + len(part.rows)] = part.valid.any(axis=1)
            with_data_cols |= part.valid.any(axis=0)
    extent = None
    if with_data_rows.any():
        r, c = np.flatnonzero(with_data_rows), np.flatnonzero(with_data_cols)
        extent = rows[int(r[0])], rows[int(r[-1])] + 1, cols[int(c[0])], cols[int(c[-1])] + 1
    record = dataclasses.replace(planned, extent=extent, counts={code: int(counts[code]) for code in legend.codes})
    store.save(record)
    return record


def _seam(blender: Blender, store: TileFolder, records: Sequence[TileRecord]) -> SeamError | None:
    """The seam error of a model and its windows; measured once, then kept beside the tiles."""
    with_data = [record for record in records if record.extent is not None]
    if not with_data:
        return None
    most = max(with_data, key=lambda record: sum(record.counts.values()))
    of = {"task": most.task, "windows": list(most.windows)}
    if (known := store.note("seam")) is not None and known["of"] == of:
        return SeamError(**known["error"])
    assert most.extent is not None
    top, bottom, left, right = most.extent
    error = seam_error(blender, ((top + bottom) // 2, (left + right) // 2))
    store.save_note("seam", {"of": of, "error": dataclasses.asdict(error)})
    return error


def _to_bands(part: Rows, legend: Legend) -> NDArray[np.uint8]:
    """Class codes and confidence in percent, (2, H, W); what is not valid stays no-data."""
    best = part.probabilities.argmax(axis=0).astype(np.uint8)
    percent = np.rint(part.probabilities.max(axis=0) * 100).clip(0, 100).astype(np.uint8)
    bands = np.stack([legend.to_code(best), percent])
    bands[:, ~part.valid] = NO_LABEL
    return bands
