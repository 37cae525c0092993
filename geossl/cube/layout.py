"""How arrays lie in a cube: groups, arrays, chunks, attributes. Nothing here reads a file or commits.

::

    /                                   attributes: geossl:format, geossl:id, geossl:quarantine
    /<collection>/                      attributes: sensor, grid, kind, statistics
    /<collection>/scenes/               one value a scene: id, checksum, revision, tiles, steps, item (STAC)
    /<collection>/<tile>/image          (time, band, y, x)  stored numbers; one chunk = all bands of 256 × 256 pixels
    /<collection>/<tile>/quality        (time, y, x)        uint8 flags
    /<collection>/<tile>/clear_count    (time, y, x)        uint16, composites only
    /<collection>/<tile>/time …         one value a step: time, scene_id, revision, source_checksum, clear_fraction
    /<collection>/<tile>/chunk_clear    (time, cy, cx)      clear fraction of every chunk window
    /<collection>/<tile>/band, x, y, spatial_ref
    /<collection>/<tile>/image_20m      (time, band_20m, y_20m, x_20m)  on a grid that keeps bands native, and so on for
                                        every group of coarser bands, each with band_20m, x_20m, y_20m, spatial_ref_20m
    /labels/<name>/                     attributes: grid, legend, task, before, after, date, source, checksum, version,
                                        report; /labels/ itself counts versions
    /labels/<name>/<tile>/label         (y, x)              uint8 class codes, with x, y, spatial_ref

Which bands lie where on a grid of native bands says :mod:`geossl.cube.groups`. A chunk of a coarser group has fewer
pixels, 128 × 128 of twice the size: chunk (cy, cx) of a step is the same ground in every array of a tile.

Steps are in order of arrival. No-data is both Zarr's ``fill_value`` and CF's ``_FillValue``: xarray
masks only by the second.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from odc.geo.crs import CRS
from zarr.abc.store import Store

from geossl.bands import Sensor, Statistics
from geossl.cube.arrays import create_array, names_in, resize, subarray, subgroup
from geossl.cube.chunks import StoredArray, write_windows
from geossl.cube.columns import write_rows
from geossl.cube.groups import band_groups
from geossl.errors import StoreError
from geossl.grid import CHUNK, Grid, Tile
from geossl.imagery.clouds import Quality
from geossl.legend import NO_LABEL, Legend

FORMAT = 3
"""Version of the layout; a cube of a newer one is refused, one of an older one is read but not written to.

2 knows the number of steps of every scene, so that a lost or doubled step is found; 3 may keep bands in groups of
native resolution. :mod:`geossl.cube.migrate` brings an older cube along.
"""

FORMAT_KEY = "geossl:format"
ID_KEY = "geossl:id"
QUARANTINE_KEY = "geossl:quarantine"
LABELS = "labels"
SCENES = "scenes"

RECORDS = ("time", "scene_id", "revision", "source_checksum", "clear_fraction", "chunk_clear")
"""Arrays of a tile with one value (or row) a step."""

LABEL_ARRAYS = ("label", "x", "y", "spatial_ref")
"""Arrays of a tile of labels."""

_STEPS_PER_CHUNK = 1024
_ITEMS_PER_CHUNK = 64
_FLAGS: dict[str, Any] = {
    "long_name": "quality flags",
    "flag_masks": [int(flag) for flag in Quality],
    "flag_meanings": " ".join(str(flag.name).lower() for flag in Quality),
}
_TIME = {
    "standard_name": "time",
    "units": "nanoseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "axis": "T",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TILE_ID = re.compile(r"x-?\d+y-?\d+")


@dataclass(frozen=True, slots=True)
class Step:
    """The record of one scene (or composite) on one tile: everything but its pixels."""

    scene_id: str
    time: np.datetime64
    """UTC."""
    checksum: str
    """What the pixels were made from; another checksum makes a new revision."""
    chunk_clear: NDArray[np.float32]
    """(cy, cx) clear fraction of every chunk window."""
    revision: int = 0


def check_name(name: str) -> str:
    """The name, if it may name a collection or labels; :class:`StoreError` otherwise."""
    if not _NAME.fullmatch(name) or name == LABELS:
        raise StoreError(f"{name!r} cannot name a collection", "use letters, digits, '.', '_' and '-'")
    return name


def create_root(store: Store) -> zarr.Group:
    """The empty cube. Its random id tells it from a later cube at the same address."""
    return zarr.create_group(store, attributes={FORMAT_KEY: FORMAT, ID_KEY: uuid.uuid4().hex}, zarr_format=3)


def format_version(root: zarr.Group) -> int:
    """Version of the layout that a cube was written with; KeyError where it is none."""
    return int(root.attrs[FORMAT_KEY])  # type: ignore[arg-type]  # JSON


def cube_id(root: zarr.Group) -> str:
    """The cube's random id."""
    return str(root.attrs[ID_KEY])


def collection_names(root: zarr.Group) -> list[str]:
    """Names of all collections, sorted."""
    return sorted(name for name in root.group_keys() if name != LABELS)


def label_names(root: zarr.Group) -> list[str]:
    """Names of all label layers, sorted."""
    return sorted(subgroup(root, LABELS).group_keys()) if LABELS in root else []


def tile_ids(group: zarr.Group) -> list[str]:
    """Ids of the tiles of a collection or label layer, row by row from the north-west."""
    # by name alone: to learn that they are groups, Zarr would open every one
    found = (name for name in names_in(group) if _TILE_ID.fullmatch(name))
    return sorted(found, key=lambda name: tuple(int(part) for part in name[1:].split("y"))[::-1])


def create_collection(root: zarr.Group, name: str, sensor: Sensor, grid: Grid, kind: str = "scenes") -> zarr.Group:
    """An empty collection; ``kind`` is ``scenes`` or ``composite``."""
    attributes = {"sensor": sensor.to_dict(), "grid": grid.to_dict(), "kind": kind}
    group = root.create_group(check_name(name), attributes=attributes)
    if kind == "scenes":
        table = group.create_group(SCENES)
        for column_name, dtype in (("id", str), ("checksum", str), ("revision", np.dtype("i4")), ("tiles", str)):
            create_array(table, column_name, (0,), (_STEPS_PER_CHUNK,), dtype, dims=("scene",))
        create_step_counts(table, 0)
        create_array(table, "item", (0,), (_ITEMS_PER_CHUNK,), str, dims=("scene",))
    return group


def create_step_counts(table: zarr.Group, scenes: int) -> zarr.Array[Any]:
    """The column of a scene table that says on how many tiles each scene has a step."""
    return create_array(table, "steps", (scenes,), (_STEPS_PER_CHUNK,), np.dtype("i4"), dims=("scene",))


def scene_counts(root: zarr.Group) -> dict[str, int]:
    """Collection of scenes → number of its scenes."""
    tables = {name: f"{name}/{SCENES}/id" for name in collection_names(root)}
    return {name: subarray(root, path).shape[0] for name, path in tables.items() if path in root}


def set_statistics(collection: zarr.Group, statistics: Statistics) -> None:
    """Store per-band statistics with a collection."""
    collection.attrs["statistics"] = statistics.to_dict()


def create_labels(root: zarr.Group, name: str, grid: Grid, legend: Legend, **attributes: Any) -> zarr.Group:
    """An empty label layer; ``attributes`` are task, before, after, date, source. Replaces one of that name."""
    attributes = {"grid": grid.plain.to_dict(), "legend": legend.to_dict(), **attributes}
    return root.require_group(LABELS).create_group(check_name(name), attributes=attributes, overwrite=True)


def next_version(root: zarr.Group, name: str) -> int:
    """Count a label layer of that name: 1, 2, … through all of the cube's history, also where one was dropped."""
    labels = root.require_group(LABELS)
    counts: Any = labels.attrs.get("versions", {})
    version = int(counts.get(name, 0)) + 1
    labels.attrs["versions"] = {**counts, name: version}
    return version


def pixel_names(sensor: Sensor, grid: Grid, kind: str) -> list[str]:
    """Names of the large arrays of a collection's tiles, which :func:`is_pixels` tells from all others."""
    images = [group.name("image") for group in band_groups(sensor, grid)]
    return [*images, "quality", *(["clear_count"] if kind == "composite" else [])]


def is_pixels(name: str) -> bool:
    """Whether an array of a tile is one of its large ones."""
    return name in ("quality", "clear_count") or name.partition("_")[0] == "image"


def place_names(sensor: Sensor, grid: Grid) -> list[str]:
    """Names of the arrays that say where the pixels of a collection's tiles are, and of which bands."""
    return [group.name(name) for group in band_groups(sensor, grid) for name in ("band", "x", "y", "spatial_ref")]


def scene_columns(version: int) -> list[str]:
    """Names of the columns of a scene table, by the cube's format."""
    return ["id", "checksum", "revision", "tiles", "item", *(["steps"] if version > 1 else [])]


def create_tile(collection: zarr.Group, tile: Tile, sensor: Sensor, *, composite: bool = False) -> zarr.Group:
    """An empty tile of a collection: all of its arrays, no step."""
    create_pixels(collection, tile, sensor, composite=composite)
    return create_records(collection, tile, sensor)


def create_pixels(collection: zarr.Group, tile: Tile, sensor: Sensor, *, composite: bool = False) -> zarr.Group:
    """The large arrays of a tile, without a step: images, ``quality``, and of composites ``clear_count``."""
    group = collection.create_group(tile.id)
    dtype = np.dtype(sensor.radiometry.dtype)
    nodata = sensor.radiometry.nodata
    attributes: dict[str, Any] = {"long_name": sensor.title or sensor.name}
    if nodata is not None:
        from xarray.backends.zarr import FillValueCoder  # only whoever creates tiles pays for this import

        attributes["_FillValue"] = FillValueCoder.encode(nodata, dtype)
    for part in band_groups(sensor, tile.grid):
        bands, side = len(part.bands), CHUNK // part.factor
        create_array(
            group,
            part.name("image"),
            (0, bands, *tile.coarser(part.factor).shape),
            (1, bands, side, side),
            dtype,
            fill=0 if nodata is None else nodata,
            dims=("time", *map(part.name, ("band", "y", "x"))),
            attributes=attributes | _placed(part.suffix),
        )
    shape, chunks, dims = (0, *tile.shape), (1, CHUNK, CHUNK), ("time", "y", "x")
    create_array(
        group, "quality", shape, chunks, np.dtype("u1"), fill=Quality.NODATA, dims=dims, attributes=_FLAGS | _placed()
    )
    if composite:
        count = {"long_name": "number of clear observations"} | _placed()
        create_array(group, "clear_count", shape, chunks, np.dtype("u2"), dims=dims, attributes=count)
    return group


def create_records(collection: zarr.Group, tile: Tile, sensor: Sensor) -> zarr.Group:
    """The small arrays of a tile, without a step: coordinates and what is known of each step."""
    group = subgroup(collection, tile.id)
    windows = (tile.shape[0] // CHUNK, tile.shape[1] // CHUNK)
    fraction = {"units": "1", "valid_range": [0.0, 1.0]}
    _per_step(group, "time", np.dtype("i8"), attributes=_TIME)
    _per_step(group, "scene_id", str)
    _per_step(group, "revision", np.dtype("i4"))
    _per_step(group, "source_checksum", str)
    _per_step(group, "clear_fraction", np.dtype("f4"), attributes=fraction)
    _per_step(group, "chunk_clear", np.dtype("f4"), windows, ("cy", "cx"), attributes=fraction)
    for part in band_groups(sensor, tile.grid):
        names = np.array(part.of(sensor).band_names, dtype=np.dtypes.StringDType())
        create_array(group, part.name("band"), names.shape, names.shape, str, dims=(part.name("band"),))[:] = names
        create_georeference(group, tile.coarser(part.factor), part.suffix)
    return group


def create_georeference(group: zarr.Group, tile: Tile, suffix: str = "") -> None:
    """Pixel centres ``x``, ``y`` and the CRS of a tile, as CF wants them; all names end in the suffix."""
    for name, values in coordinates(tile).items():
        attributes = {"standard_name": f"projection_{name}_coordinate", "units": "m", "axis": name.upper()}
        size, dim = values.shape, name + suffix
        create_array(group, dim, size, size, values.dtype, dims=(dim,), attributes=attributes)[:] = values
    crs = CRS(tile.grid.crs)
    reference = crs.proj.to_cf() | {"spatial_ref": crs.to_wkt(), "GeoTransform": geotransform(tile)}
    create_array(group, f"spatial_ref{suffix}", (), (), np.dtype("i4"), attributes=reference)


def coordinates(tile: Tile) -> dict[str, NDArray[np.float64]]:
    """Pixel centres of a tile along ``x`` and ``y``, in CRS units."""
    found = tile.geobox.coordinates
    return {name: np.asarray(found[name].values) for name in ("x", "y")}


def geotransform(tile: Tile) -> str:
    """A tile's affine transform as GDAL writes it into CF metadata."""
    a = tile.transform
    return f"{a.c!r} {a.a!r} {a.b!r} {a.f!r} {a.d!r} {a.e!r}"


def create_label_tile(labels: zarr.Group, tile: Tile, codes: NDArray[np.uint8]) -> None:
    """One tile of a label layer: (H, W) class codes, :data:`~geossl.legend.NO_LABEL` where there is none."""
    group = labels.create_group(tile.id)
    create_georeference(group, tile)
    attributes = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref", "_FillValue": NO_LABEL}
    array = create_array(
        group,
        "label",
        tile.shape,
        (CHUNK, CHUNK),
        np.dtype("u1"),
        fill=NO_LABEL,
        dims=("y", "x"),
        attributes=attributes,
    )
    array[:] = codes


def resize_pixels(group: zarr.Group, steps: int) -> None:
    """Give the large arrays of a tile this number of steps; only a writing session's parent does so."""
    for name in pixel_arrays(group):
        resize(subarray(group, name), steps)


def pixel_arrays(group: zarr.Group) -> list[str]:
    """Names of a tile's large arrays, sorted."""
    return sorted(filter(is_pixels, names_in(group)))


def write_pixels(group: zarr.Group, step: int, pixels: Mapping[str, NDArray[Any]]) -> None:
    """Write whole chunks of one step: by the name of a large array, its numbers (…, H, W)."""
    write_windows({StoredArray.of(subarray(group, name)): values for name, values in pixels.items()}, step)


def write_records(collection: zarr.Group, steps: Mapping[str, Mapping[int, Step]]) -> None:
    """Write what is known of steps, by tile id and index."""
    tables = {
        f"{collection.path}/{tile_id}": {index: _row(step) for index, step in of_tile.items()}
        for tile_id, of_tile in steps.items()
    }
    write_rows(collection.store, tables)


def _row(step: Step) -> dict[str, Any]:
    return {
        "time": step.time.astype("datetime64[ns]").astype(np.int64),
        "scene_id": step.scene_id,
        "revision": step.revision,
        "source_checksum": step.checksum,
        "clear_fraction": step.chunk_clear.mean(dtype=np.float64),
        "chunk_clear": step.chunk_clear,
    }


def step_count(collection: zarr.Group, tile_id: str) -> int:
    """Number of steps of a tile."""
    return int(subarray(collection, f"{tile_id}/image").shape[0])


def pixel_chunks(store: Store, collection: str, tile: Tile, sensor: Sensor) -> dict[str, StoredArray]:
    """The chunks of a tile's large arrays, by name, without asking the store for their metadata."""
    dtype, path = np.dtype(sensor.radiometry.dtype), f"{collection}/{tile.id}"
    fill = dtype.type(sensor.radiometry.nodata or 0)
    found = {"quality": StoredArray(store, f"{path}/quality", (1, CHUNK, CHUNK), np.dtype("u1"), Quality.NODATA)}
    for part in band_groups(sensor, tile.grid):
        name, side = part.name("image"), CHUNK // part.factor
        found[name] = StoredArray(store, f"{path}/{name}", (1, len(part.bands), side, side), dtype, fill)
    return found


def append_step(group: zarr.Group, step: Step, image: NDArray[Any], quality: NDArray[np.uint8]) -> int:
    """Append one step of a tile with one group of bands, without Dask and forks; returns its index."""
    index = subarray(group, "image").shape[0]
    resize_pixels(group, index + 1)
    write_pixels(group, index, {"image": image, "quality": quality})
    write_rows(group.store, {group.path: {index: _row(step)}})
    return index


def chunk_fractions(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Share of true pixels in every chunk window: (H, W) → (H/256, W/256)."""
    height, width = mask.shape
    windows = mask.reshape(height // CHUNK, CHUNK, width // CHUNK, CHUNK)
    return windows.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)


def _per_step(
    group: zarr.Group,
    name: str,
    dtype: np.dtype[Any] | type[str],
    shape: tuple[int, ...] = (),
    dims: tuple[str, ...] = (),
    attributes: dict[str, Any] | None = None,
) -> None:
    chunks = (_STEPS_PER_CHUNK, *shape)
    create_array(group, name, (0, *shape), chunks, dtype, dims=("time", *dims), attributes=attributes)


def _placed(suffix: str = "") -> dict[str, Any]:
    """What CF wants to know of the place of an array of pixels."""
    place = f"spatial_ref{suffix}"
    return {"grid_mapping": place, "coordinates": f"{place} scene_id revision clear_fraction"}
