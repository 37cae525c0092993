"""The table of scenes as stac-geoparquet, for every tool that reads STAC or GeoParquet."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from geossl.cube.arrays import subgroup
from geossl.cube.columns import read_columns
from geossl.cube.repository import View
from geossl.cube.scenes import read_table
from geossl.errors import StoreError
from geossl.files import aside


def ledger_items(view: View, collection: str) -> list[dict[str, Any]]:
    """The STAC Items that the scenes were ingested from, each with what became of it.

    Their properties ``geossl:revision``, ``geossl:checksum``, ``geossl:tiles`` (ids of the tiles on which the
    scene has a step) and ``geossl:clear_fraction`` (of these tiles together) say so; ``geossl:snapshot`` says as of when.

    Raises
    ------
    StoreError
        There is no such collection, or it holds composites.
    """
    source = view.collection(collection)
    if source.kind != "scenes":
        raise StoreError(f"collection {collection!r} holds composites, which have no items", "name one of scenes")
    tiles = source.tile_ids
    paths = [f"{collection}/{tile}/{array}" for tile in tiles for array in ("scene_id", "clear_fraction")]
    columns = iter(read_columns(view.session.store, paths))
    steps: dict[str, dict[str, float]] = defaultdict(dict)
    for tile, ids, clear in zip(tiles, columns, columns, strict=True):
        for scene, share in zip(ids.tolist(), clear.tolist(), strict=True):
            steps[scene][tile] = share
    items = source.items()
    for scene, entry in read_table(subgroup(view.root, collection)).items():
        items[scene]["collection"] = collection
        items[scene]["properties"] |= {
            "geossl:revision": entry.revision,
            "geossl:checksum": entry.checksum,
            "geossl:tiles": list(steps[scene]),
            "geossl:clear_fraction": float(np.mean(list(steps[scene].values()))),
            "geossl:snapshot": view.snapshot,
        }
    return list(items.values())


def export_ledger(view: View, collection: str, path: Path) -> int:
    """Write the scenes of a collection as stac-geoparquet; returns how many there are."""
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    items = ledger_items(view, collection)
    if not items:
        raise StoreError(f"collection {collection!r} holds no scene", "ingest some first")
    table = parse_stac_items_to_arrow(items)
    with aside(path) as partial:
        to_parquet(table, partial)
    return len(items)
