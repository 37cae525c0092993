"""Close the steps of a tile that were planned and not used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import icechunk
import zarr

from geossl.cube import layout


def close_gaps(session: icechunk.Session, path: str, committed: int, used: Sequence[int]) -> None:
    """Give a tile's arrays the length ``committed + len(used)``, with the used new steps in their order.

    Chunks are moved by reference, so this costs nothing per byte. Committed steps are never touched.

    Parameters
    ----------
    path:
        Group of the tile, whose arrays are at least as long as the planned steps need.
    committed:
        Number of steps before this wave.
    used:
        Ascending indices ≥ ``committed`` of the new steps that hold data.
    """
    group = zarr.open_group(session.store, path=path, mode="r+")
    target = {step: committed + position for position, step in enumerate(used)}
    source = {position: step for step, position in target.items()}

    def forward(chunk: Iterable[int]) -> list[int] | None:
        step, *window = chunk
        return [target[step], *window] if step in target else None

    def backward(chunk: Iterable[int]) -> list[int] | None:
        # where no chunk comes from, one that lies there is dropped: a window of pure no-data has no chunk
        step, *window = chunk
        if step < committed:
            return [step, *window]
        return [source[step], *window] if step in source else None

    if any(step != position for step, position in target.items()):
        for name in layout.pixel_arrays(group):
            session.reindex_array(f"/{path}/{name}", forward, backward)
    layout.resize_pixels(group, committed + len(used))
