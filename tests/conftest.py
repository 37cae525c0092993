"""What several rooms' tests share."""

from __future__ import annotations

from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter

from geossl import bands
from geossl.cube import layout
from geossl.cube.repository import Cube
from geossl.grid import Grid
from geossl.legend import NO_LABEL, LandClass, Legend

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

TINY_LEGEND = Legend(
    (LandClass(1, "water", "#2b83ba"), LandClass(2, "pasture", "#ffffbf"), LandClass(3, "forest", "#1a9641")),
    title="Tiny land cover",
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real imagery; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real imagery at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """A small cube to read from; a test that writes makes its own.

    Collection ``sentinel-2-l2a``: four bands, 10 m, EPSG:32622, two tiles of 512 pixels × three steps
    of smooth random fields, with a cloud (step 1), a no-data stripe (step 2) and statistics stored.
    Labels ``landcover``: three classes that follow the red field, one corner unlabelled.
    """
    cube = Cube.create(str(tmp_path_factory.mktemp("tiny") / "cube"))
    sensor = bands.sensor("sentinel-2-l2a").subset(("blue", "green", "red", "nir"))
    grid = Grid("EPSG:32622", 10, 512)
    rng = np.random.default_rng(7)
    clear: list[np.ndarray] = []

    def fill(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        collection = layout.create_collection(root, sensor.name, sensor, grid)
        labels = layout.create_labels(root, "landcover", grid, TINY_LEGEND, task="landcover")
        for ix in (97, 98):
            tile = grid[ix, -500]
            group = layout.create_tile(collection, tile, sensor)
            field = gaussian_filter(rng.normal(size=(4, 512, 512)), (0, 24, 24))
            field /= field.std()
            for month in range(3):
                image = (1500 + 400 * field + 100 * month + rng.normal(scale=20, size=field.shape)).astype(np.int16)
                quality = np.zeros((512, 512), np.uint8)
                if month == 1:
                    image[:, 100:300, 60:260], quality[100:300, 60:260] = 7000, 2
                if month == 2:
                    image[..., :40], quality[:, :40] = -32768, 1
                fractions = layout.chunk_fractions(quality == 0)
                time = np.datetime64(f"2024-0{month + 3}-10T13:40")
                layout.append_step(group, layout.Step(f"scene-{month}", time, f"sum-{month}", fractions), image, quality)
                clear.append(image[:, quality == 0])
            codes = np.digitize(field[2], (-0.5, 0.5)).astype(np.uint8) + 1
            codes[:64, :64] = NO_LABEL
            layout.create_label_tile(labels, tile, codes)
        pixels = np.concatenate(clear, axis=1)
        of_bands = (pixels.mean(1), pixels.std(1), pixels.min(1), pixels.max(1), *np.percentile(pixels, (2, 98), axis=1))
        columns = [tuple(map(float, values)) for values in of_bands]
        layout.set_statistics(collection, bands.Statistics((pixels.shape[1],) * 4, *columns))
        return "a tiny cube"

    cube.transact(fill)
    return cube
