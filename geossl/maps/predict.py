"""Predict a map, tile by tile; only tiles whose inputs changed are predicted again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geossl.bands import require_same_radiometry
from geossl.grid import Tile
from geossl.maps.blend import Blender, Lattice
from geossl.maps.canvas import Canvas
from geossl.maps.protocols import Imagery, MapTask
from geossl.maps.seam import SeamError, seam_error
from geossl.maps.settings import MapSettings
from geossl.maps.space import room
from geossl.maps.tiles import TileFolder, TileRecord
from geossl.maps.work import Planned, Rectangle, predict_on, predict_tiles, tile_spans
from geossl.progress import Progress, silent

if TYPE_CHECKING:
    from distributed import Client


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
    client: Client | None = None,
    progress: Progress = silent,
) -> MapReport:
    """Predict tiles into a folder of intermediate rasters, one tile after the other.

    A tile whose model, windows and source pixels (its own, and those of neighbours that its
    windows reach into) are those of the raster on disk is left alone; hence an interrupted run
    goes on where it stopped, and a run without news does nothing. Where only neighbours changed,
    only the pixels whose windows reach into those are predicted again.

    Parameters
    ----------
    steps:
        Which steps of each tile to map, by tile id: one for each date of the task.
    folder:
        Where the predicted tiles lie between runs; a :class:`~geossl.maps.tiles.TileFolder`.
    tiles:
        Which tiles to predict; None: all that ``steps`` names. The others still lend their
        pixels to windows that reach across a border.
    client:
        Workers that predict, which must see ``folder`` and the collection's store as this process does; None: this
        process, on its GPU where it has one.

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
    blender = Blender(task, canvas, Lattice.of(task, settings), settings.batch, flips=settings.flips)
    store = TileFolder(folder)
    wanted = sorted(
        (collection.grid.tile(tile_id) for tile_id in (steps if tiles is None else tiles)),
        key=lambda tile: (tile.iy, tile.ix),
    )
    records: dict[str, TileRecord] = {}
    todo: list[Planned] = []
    for tile in wanted:
        planned = _plan(blender, tile)
        before = store.record(tile.id)
        if before is not None and before.same_inputs(planned):
            planned = before
        else:
            todo.append(Planned(tile, planned, _stale(blender.lattice, tile, before, planned)))
        records[tile.id] = planned
    folder.mkdir(parents=True, exist_ok=True)
    with room(folder, "the rest of the map", lambda: _bytes_left(store, [each.tile for each in todo])):
        predicted = predict_tiles(blender, todo, store) if client is None else predict_on(client, blender, todo, store)
        progress("map", 0, len(todo))
        for done, record in enumerate(predicted, start=1):
            records[record.tile] = record
            progress("map", done, len(todo))
    found = tuple(records.values())
    return MapReport(found, tuple(each.tile.id for each in todo), blender.windows, _seam(blender, store, found))


def _bytes_left(store: TileFolder, tiles: Sequence[Tile]) -> int:
    """What the tiles that have no record yet will take, going by those that have one."""
    done = [store.size(tile.id) for tile in tiles if store.note(tile.id) is not None]
    each = sum(done) / len(done) if done else 2 * tiles[0].shape[0] * tiles[0].shape[1]
    return int(each * (len(tiles) - len(done)))


def _plan(blender: Blender, tile: Tile) -> TileRecord:
    """The record that a tile would get if it were predicted now, but for its pixels."""
    canvas, lattice = blender.canvas, blender.lattice
    rows, cols = tile_spans(tile)
    reached = sorted(canvas.tiles(lattice.reach(rows), lattice.reach(cols)), key=lambda other: other.id != tile.id)
    return TileRecord(
        tile=tile.id,
        task=blender.task.id,
        collection=canvas.collection.name,
        snapshot=canvas.collection.snapshot,
        windows=(lattice.window, lattice.margin, lattice.overlap),
        flips=blender.flips,
        sources=tuple(source for other in reached for source in canvas.sources(other.id)),
        extent=None,
    )


def _stale(lattice: Lattice, tile: Tile, before: TileRecord | None, planned: TileRecord) -> tuple[Rectangle, ...]:
    """The parts of a tile that are not as they would be predicted now."""
    whole = tile_spans(tile)
    if before is None or not dataclasses.replace(planned, sources=before.sources).same_inputs(before):
        return (whole,)
    old, new = before.by_tile(), planned.by_tile()
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    if tile.id in changed:
        return (whole,)
    spans = [tile_spans(tile.grid.tile(name)) for name in changed]
    found = [(_shared(lattice.touched(r), whole[0]), _shared(lattice.touched(c), whole[1])) for r, c in spans]
    # beside a tile that changed lies all that its neighbours above and below touch as well
    return tuple(dict.fromkeys(one for one in found if not any(_holds(other, one) for other in found if other != one)))


def _shared(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _holds(outer: Rectangle, inner: Rectangle) -> bool:
    return all(a.start <= b.start and b.stop <= a.stop for a, b in zip(outer, inner, strict=True))


def _seam(blender: Blender, store: TileFolder, records: Sequence[TileRecord]) -> SeamError | None:
    """The seam error of a model and its windows; measured once, then kept beside the tiles."""
    with_data = [record for record in records if record.extent is not None]
    if not with_data:
        return None
    most = max(with_data, key=lambda record: sum(record.counts.values()))
    of = {"task": most.task, "windows": list(most.windows), "flips": most.flips}
    fields = {field.name for field in dataclasses.fields(SeamError)}
    if (known := store.note("seam")) is not None and known["of"] == of and known["error"].keys() == fields:
        return SeamError(**known["error"])
    assert most.extent is not None
    top, bottom, left, right = most.extent
    error = seam_error(blender, ((top + bottom) // 2, (left + right) // 2))
    store.save_note("seam", {"of": of, "error": dataclasses.asdict(error)})
    return error
