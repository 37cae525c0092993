"""Closing gaps keeps every used step, whichever of its chunks exist, and nothing else."""

from __future__ import annotations

import icechunk
import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.cube import layout
from geossl.cube.gaps import close_gaps

from .conftest import CORNER, GRID, SENSOR

PRESENT = st.booleans()


@settings(max_examples=25, deadline=None)
@given(
    committed=st.lists(PRESENT, max_size=2),
    planned=st.lists(st.tuples(PRESENT, st.booleans()), min_size=1, max_size=4),
)
def test_used_steps_move_down(committed: list[bool], planned: list[tuple[bool, bool]]) -> None:
    """``committed`` says which old steps have chunks; ``planned`` which new ones do, and which are used."""
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    collection = layout.create_collection(layout.create_root(session.store), "c", SENSOR, GRID)
    tile = GRID[CORNER]
    group = layout.create_pixels(collection, tile, SENSOR)
    total = len(committed) + len(planned)
    layout.resize_pixels(group, total)
    expected = np.full((total, 2, 256, 256), -32768, np.int16)
    for step, present in enumerate([*committed, *(present for present, _ in planned)]):
        if present:
            expected[step] = step + 1
            flags = np.full((256, 256), step + 2, np.uint8)
            layout.write_pixels(group, step, {"image": expected[step], "quality": flags})
    used = [len(committed) + position for position, (_, use) in enumerate(planned) if use]
    close_gaps(session, f"c/{tile.id}", len(committed), used)
    session.commit("done")
    stored = zarr.open_group(repository.readonly_session("main").store, mode="r")[f"c/{tile.id}"]
    kept = expected[[*range(len(committed)), *used]]
    np.testing.assert_array_equal(stored["image"][:], kept)
    flags = np.where(kept[:, 0] == -32768, 1, kept[:, 0] + 1)
    np.testing.assert_array_equal(stored["quality"][:], flags)
