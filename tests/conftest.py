"""What several rooms' tests share."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr
from hypothesis import settings
from scipy.ndimage import gaussian_filter

from geossl import bands
from geossl.cube import layout
from geossl.cube.repository import Cube
from geossl.grid import Grid
from geossl.legend import NO_LABEL, LandClass, Legend

# Speed is a benchmark, never a test; and continuous integration meets the same examples every time.
settings.register_profile("geossl", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("geossl")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

TINY_LEGEND = Legend(
    (LandClass(1, "water", "#2b83ba"), LandClass(2, "pasture", "#ffffbf"), LandClass(3, "forest", "#1a9641")),
    title="Tiny land cover",
)


@pytest.hookimpl(tryfirst=True)  # xdist looks at the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and all that share the small project, so that nothing is prepared twice."""
    for item in items:
        shared = "small_project" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("small project" if shared else str(item.path)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real imagery; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real imagery at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def fill(small_disk: Path) -> Callable[[int], Path]:
    """``fill(leave)`` leaves so many bytes of the small disk free; deleting the file that it returns frees the rest."""

    def fill(leave: int) -> Path:
        file = small_disk / "filling"
        file.write_bytes(bytes(shutil.disk_usage(small_disk).free - leave))
        return file

    return fill


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
                layout.append_step(
                    group, layout.Step(f"scene-{month}", time, f"sum-{month}", fractions), image, quality
                )
                clear.append(image[:, quality == 0])
            codes = np.digitize(field[2], (-0.5, 0.5)).astype(np.uint8) + 1
            codes[:64, :64] = NO_LABEL
            layout.create_label_tile(labels, tile, codes)
        pixels = np.concatenate(clear, axis=1)
        of_bands = (
            pixels.mean(1),
            pixels.std(1),
            pixels.min(1),
            pixels.max(1),
            *np.percentile(pixels, (2, 98), axis=1),
        )
        columns = [tuple(map(float, values)) for values in of_bands]
        layout.set_statistics(collection, bands.Statistics((pixels.shape[1],) * 4, *columns))
        return "a tiny cube"

    cube.transact(fill)
    return cube


@pytest.fixture(scope="session")
def radar_cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """Sentinel-1 on the tiny cube's grid, to read from: of its second tile and of the one east of that.

    Collection ``sentinel-1-rtc``: four steps of smooth random fields, two of them within three days of the tiny
    cube's first, one 3.6 days after its second, one 17 days after its third; a no-data stripe at step 1.
    """
    cube = Cube.create(str(tmp_path_factory.mktemp("radar") / "cube"))
    sensor = bands.sensor("sentinel-1-rtc")
    rng = np.random.default_rng(8)

    def fill(session: icechunk.Session) -> str:
        root, grid = zarr.open_group(session.store, mode="r+"), Grid("EPSG:32622", 10, 512)
        collection = layout.create_collection(root, sensor.name, sensor, grid)
        for ix in (98, 99):
            group = layout.create_tile(collection, grid[ix, -500], sensor)
            field = gaussian_filter(rng.normal(size=(2, 512, 512)), (0, 16, 16))
            field /= field.std()
            for number, day in enumerate(("03-09T05:00", "03-12T17:00", "04-14T05:00", "05-28T05:00")):
                image = (-1200 + 300 * field + rng.normal(scale=80, size=field.shape)).astype(np.int16)
                quality = np.zeros((512, 512), np.uint8)
                if number == 1:
                    image[:, :96], quality[:96] = -32768, 1
                step = layout.Step(
                    f"pass-{number}", np.datetime64(f"2024-{day}"), "sum", layout.chunk_fractions(quality == 0)
                )
                layout.append_step(group, step, image, quality)
        figures = [(9,) * 2, (-1200.0,) * 2, (310.0,) * 2, *[(0.0,) * 2] * 4]
        layout.set_statistics(collection, bands.Statistics(*figures))
        return "radar"

    cube.transact(fill)
    return cube


SMALL_PROJECT = """\
name: small
store: store
grid: { tile: 256 }
cluster: { workers: 2 }
sensor: { name: sentinel-2-l2a, bands: [B02, B03, B04, B08, B11] }
sources:
  - { kind: folder, path: imagery/scenes }
composite: { months: 6 }
split: { block: 32, buffer: 4, fractions: [0.5, 0.2, 0.3], seed: 3 }
pretrain:
  method: { name: simclr, pairs: season }
  encoder: { name: unet-tiny }
  epochs: 2
  chip: 32
  batch_size: 32
evaluate: { labels: [60], draws: 2 }
tasks:
  landcover:
    kind: landcover
    date: 2022-10-01
    labels: { path: imagery/labels/landcover.gpkg, column: class }
    settings: { labels: 200, finetune: { steps: 10, window: 64, windows: 64 } }
  clearing:
    kind: change
    before: 2021-10-01
    after: 2022-10-01
    labels: { path: imagery/labels/clearings.gpkg, date_column: date }
    settings: { labels: 200, finetune: { steps: 10, window: 64, windows: 64 } }
map: { minimum_ha: 0.1 }
"""


@pytest.fixture(scope="session")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small project on a generated landscape; nothing of it has run yet.

    Tests of several rooms share it, so they may bring it forward (`run_all`), never break it.
    """
    from geossl.demo.landscape import LandscapeSettings, write_landscape

    folder = tmp_path_factory.mktemp("small")
    dates = [
        dt.date.fromisoformat(day) for day in ("2021-08-07", "2021-09-26", "2022-07-18", "2022-09-01", "2022-10-21")
    ]
    write_landscape(folder / "imagery", LandscapeSettings(size=512, dates=tuple(dates)))
    (folder / "geossl.yaml").write_text(SMALL_PROJECT)
    return folder
