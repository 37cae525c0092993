"""The alerts of each tile on disk, and what they follow from; only tiles with news are made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geossl.files import read_json, write_json
from geossl.grid import Grid, Tile
from geossl.maps.alerts.looks import LookFolder, SceneLook
from geossl.maps.alerts.rule import NEVER, OUTSIDE, Rule, follow
from geossl.maps.tiles import tile_raster
from geossl.progress import Progress, silent

REVIEWED = 3
"""Status of a pixel that a person confirmed."""

BANDS = ("status", "percent", "first", "confirmed", "standing", "raised", "withdrawn")
"""Of a tile's raster, int16: status as in the rule (and :data:`REVIEWED`), highest probability of clearing in
percent, and days since :data:`~geossl.maps.alerts.rule.EPOCH`, NEVER where there is none: first look of the
alert, confirmation, last look that still saw forest, the look that raised the alert; and the one that raised an
alert that was withdrawn."""


@dataclass(frozen=True)
class Judged:
    """What people said of a tile's alerts; every array is (H, W)."""

    confirmed: NDArray[np.bool_]
    first: NDArray[np.int16]
    """Day of the alert, where they confirmed it."""
    until: NDArray[np.int16]
    """Day of the newest image that they may have judged by; NEVER where they said nothing."""
    key: str
    """Another verdict, another key."""


class AlertTiles:
    """A folder of rasters with the :data:`BANDS` of each tile, and their records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def raster(self, tile_id: str) -> Path:
        return self.folder / f"{tile_id}.tif"

    def record(self, tile_id: str) -> dict[str, Any] | None:
        """What the raster on disk was made from; None where there is none."""
        return read_json(self.folder / f"{tile_id}.json") if self.raster(tile_id).is_file() else None

    def read(self, tile_id: str) -> dict[str, NDArray[np.int16]]:
        """(H, W) by the name of the band."""
        with rasterio.open(self.raster(tile_id)) as source:
            return dict(zip(BANDS, source.read(), strict=True))

    def write(self, tile: Tile, bands: Mapping[str, NDArray[np.int16]], record: dict[str, Any]) -> None:
        # a record never outlives its raster: without it the tile counts as not made
        (self.folder / f"{tile.id}.json").unlink(missing_ok=True)
        with tile_raster(self.raster(tile.id), tile, count=len(BANDS), dtype="int16", predictor=2) as target:
            for band, name in enumerate(BANDS, 1):
                target.write(bands[name], band)
                target.set_band_description(band, name)
        write_json(self.folder / f"{tile.id}.json", record)


def update_tiles(
    store: AlertTiles,
    grid: Grid,
    tiles: Sequence[str],
    forest: Callable[[str], NDArray[np.bool_]],
    looks: Sequence[SceneLook],
    folder: LookFolder,
    rule: Rule,
    *,
    forest_key: str,
    judged: Callable[[str], Judged | None] = lambda _: None,
    progress: Progress = silent,
) -> list[str]:
    """Follow the looks of every tile that has other looks, verdicts, forest or rule than its raster on disk.

    Parameters
    ----------
    forest:
        Tile id → (H, W) where there was forest before.
    forest_key:
        Names the forest: another one, another key.

    Returns
    -------
    Ids of the tiles that were made again.
    """
    again: list[str] = []
    for done, tile_id in enumerate(tiles):
        progress("alerts", done, len(tiles))
        verdicts = judged(tile_id)
        here = [look for look in looks if tile_id in look.steps]
        record = {
            "bands": list(BANDS),
            "looks": [look.record() for look in here],
            "since": rule.since,
            "expire": rule.expire,
            "forest": forest_key,
            "verdicts": None if verdicts is None else verdicts.key,
        }
        if store.record(tile_id) == record:
            continue
        store.write(grid.tile(tile_id), _follow(tile_id, forest(tile_id), here, folder, rule, verdicts), record)
        again.append(tile_id)
    progress("alerts", len(tiles), len(tiles))
    return again


def _follow(
    tile_id: str,
    forest: NDArray[np.bool_],
    looks: Sequence[SceneLook],
    folder: LookFolder,
    rule: Rule,
    verdicts: Judged | None,
) -> dict[str, NDArray[np.int16]]:
    """The bands of a tile."""
    ignored = None if verdicts is None else verdicts.until[forest]
    alerts = follow(folder.looks(looks, tile_id, forest), int(forest.sum()), rule, ignored)
    status = alerts.status(rule.since)
    none = ~np.isin(status, (1, 2))
    values = {"status": status.astype(np.int16), "percent": alerts.percent.astype(np.int16)}
    values |= {name: getattr(alerts, name) for name in BANDS[2:]}
    for name in BANDS[1:-1]:
        values[name][none] = 0 if name == "percent" else NEVER
    out = {name: np.full(forest.shape, {"status": OUTSIDE, "percent": 0}.get(name, NEVER), np.int16) for name in BANDS}
    for name in BANDS:
        out[name][forest] = values[name]
    if verdicts is not None:
        yes = verdicts.confirmed
        for name in BANDS:
            out[name][yes] = {"status": REVIEWED, "percent": 100}.get(name, NEVER)
        out["first"][yes] = out["raised"][yes] = verdicts.first[yes]
        out["confirmed"][yes] = verdicts.until[yes]
    return out


def state_key(store: AlertTiles, tiles: Sequence[str]) -> str:
    """Names the alerts of all tiles: whatever they follow from."""
    records = [store.record(tile_id) for tile_id in tiles]
    return hashlib.blake2b(json.dumps(records, sort_keys=True).encode(), digest_size=8).hexdigest()
