"""What people said of alerts, as a label layer of the cube: every review is a commit of its history.

The layer's codes are those of change labels: 1 where a clearing was confirmed, 0 where an alert was rejected.
Two more arrays of each tile say when: ``first``, the day of the alert, and ``until``, the day of the newest
image that the verdict rests on.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import icechunk
import numpy as np
import zarr
from numpy.typing import NDArray

from geossl.cube import layout
from geossl.cube.arrays import create_array, subarray, subgroup
from geossl.cube.repository import Cube, View
from geossl.grid import CHUNK, Grid
from geossl.legend import CHANGE, NO_LABEL

REJECTED, CONFIRMED = CHANGE.codes

_DAYS = ("first", "until")


@dataclass(frozen=True)
class TileVerdicts:
    """The verdicts on one tile; every array is (H, W)."""

    label: NDArray[np.uint8]
    """:data:`CONFIRMED`, :data:`REJECTED`, or NO_LABEL."""
    first: NDArray[np.int16]
    """Days as the layer counts them; 0 where there is no verdict."""
    until: NDArray[np.int16]

    @property
    def key(self) -> str:
        """Other verdicts, another key."""
        digest = hashlib.blake2b(digest_size=8)
        for array, dtype in ((self.label, np.uint8), (self.first, np.int16), (self.until, np.int16)):
            digest.update(np.ascontiguousarray(array, dtype))
        return digest.hexdigest()

    def over(self, older: TileVerdicts | None) -> TileVerdicts:
        """These, and the older ones where they say nothing."""
        if older is None:
            return self
        said = self.label != NO_LABEL
        pairs = ((getattr(self, name), getattr(older, name)) for name in ("label", *_DAYS))
        return TileVerdicts(*(np.where(said, new, old) for new, old in pairs))


def add_verdicts(
    cube: Cube,
    name: str,
    grid: Grid,
    verdicts: Mapping[str, TileVerdicts],
    said: Mapping[str, tuple[str, str, str]],
    *,
    epoch: dt.date,
    dates: tuple[dt.date, dt.date],
    source: str,
) -> str:
    """Put verdicts over those of a layer, in one commit; the newer one holds where both say something.

    Parameters
    ----------
    verdicts:
        By tile id.
    said:
        Patch id → verdict, reason, and the release that was judged.
    epoch:
        Day 0 of their days.
    dates:
        From when on the alerts count, and the newest image that was judged.
    source:
        Name of the file they come from.

    Returns
    -------
    str
        The newest snapshot. The same verdicts again do nothing.
    """

    def work(session: icechunk.Session) -> str | None:
        root = zarr.open_group(session.store, mode="r+")
        place = f"{layout.LABELS}/{name}"
        stored: Any = subgroup(root, place).attrs.asdict() if place in root else {}
        known, keys = stored.get("verdicts", {}), stored.get("tiles", {})
        together = known | {patch: list(each) for patch, each in said.items()}
        merged = {}
        for tile_id, new in verdicts.items():
            old = _read(root, name, tile_id)
            found = new.over(old)
            if old is None or found.key != old.key:
                merged[tile_id] = found
        if together == known and not merged:
            return None
        keys = keys | {tile_id: found.key for tile_id, found in merged.items()}
        attributes: dict[str, Any] = {
            "task": "change",
            "before": dates[0].isoformat(),
            "after": dates[1].isoformat(),
            "source": source,
            "checksum": hashlib.blake2b(repr((sorted(together.items()), sorted(keys.items()))).encode()).hexdigest()[
                :32
            ],
            "arrays": list(_DAYS),
            "verdicts": together,
            "tiles": keys,
        }
        if place not in root:
            layout.create_labels(root, name, grid, CHANGE, **attributes)
        group = subgroup(root, place)
        group.attrs.update(attributes)
        for tile_id, found in merged.items():
            _write(group, grid, tile_id, found, epoch)
        counts = {word: sum(each[0] == word for each in said.values()) for word in ("confirmed", "rejected")}
        return f"verdicts {name} from {source}: {counts['confirmed']} confirmed, {counts['rejected']} rejected"

    return cube.transact(work)


def read_verdicts(view: View, name: str, tile_id: str) -> TileVerdicts | None:
    """The verdicts on a tile; None where there are none."""
    return _read(view.root, name, tile_id)


def said_of(view: View, name: str) -> dict[str, tuple[str, str, str]]:
    """Patch id → the last verdict, reason, and the release that was judged."""
    if name not in view.label_names():
        return {}
    stored: Any = subgroup(view.root, f"{layout.LABELS}/{name}").attrs.get("verdicts", {})
    return {patch: (each[0], each[1], each[2]) for patch, each in stored.items()}


def verdict_key(view: View, name: str) -> str | None:
    """Names all verdicts of a layer; None where there is none."""
    return str(subgroup(view.root, f"{layout.LABELS}/{name}").attrs["checksum"]) if name in view.label_names() else None


def _read(root: zarr.Group, name: str, tile_id: str) -> TileVerdicts | None:
    place = f"{layout.LABELS}/{name}/{tile_id}"
    if place not in root:
        return None
    return TileVerdicts(*(np.asarray(subarray(root, f"{place}/{array}")[:]) for array in ("label", *_DAYS)))


def _write(group: zarr.Group, grid: Grid, tile_id: str, verdicts: TileVerdicts, epoch: dt.date) -> None:
    tile = grid.plain.tile(tile_id)
    if tile_id not in group:
        layout.create_label_tile(group, tile, verdicts.label)
        attributes = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref", "units": f"days since {epoch}"}
        for name in _DAYS:
            create_array(
                subgroup(group, tile_id),
                name,
                tile.shape,
                (CHUNK, CHUNK),
                np.dtype("i2"),
                dims=("y", "x"),
                attributes=attributes,
            )
    for name in ("label", *_DAYS):
        subarray(group, f"{tile_id}/{name}")[:] = getattr(verdicts, name)
