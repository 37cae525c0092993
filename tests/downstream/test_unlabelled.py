"""A clearing map without labels: what counts as a clearing, and what does not."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import icechunk
import numpy as np
import pytest
import torch
import zarr

from geossl import bands
from geossl.cube import layout
from geossl.cube.repository import Cube
from geossl.downstream.images import DatedImages
from geossl.downstream.settings import ChangeSettings, UnlabelledMethod
from geossl.downstream.task import load_task, save_task
from geossl.downstream.unlabelled import fit, otsu
from geossl.errors import LabelError
from geossl.grid import Grid
from geossl.nets.card import Card
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

SIZE = 256
CLEARED = np.s_[40:100, 40:100]
FLOODED = np.s_[160:200, 40:100]
GREENED = np.s_[40:100, 160:220]

# stored reflectance of red, near infrared and short-wave infrared
FOREST, BARE, WATER = (300, 3200, 1400), (1400, 2400, 3000), (300, 150, 80)


def _world(folder: Path, names: tuple[str, ...] = ("B04", "B08", "B11")) -> DatedImages:
    """Forest with some bare ground: one part is cleared, one flooded, one greened; the later date is brighter."""
    sensor = bands.sensor("sentinel-2-l2a").subset(names)
    grid = Grid("EPSG:32622", 10, SIZE)
    rng = np.random.default_rng(0)
    before = np.empty((3, SIZE, SIZE))
    before[:] = np.array(FOREST)[:, None, None]
    for place in (np.s_[200:, 200:], GREENED):
        before[:, *place] = np.array(BARE)[:, None, None]
    after = before.copy()
    for place, surface in ((CLEARED, BARE), (FLOODED, WATER), (GREENED, FOREST)):
        after[:, *place] = np.array(surface)[:, None, None]
    after = after * 1.1 + 100

    def fill(session: icechunk.Session) -> str:
        root = zarr.open_group(session.store, mode="r+")
        group = layout.create_tile(layout.create_collection(root, sensor.name, sensor, grid), grid[0, 0], sensor)
        quality = np.zeros((SIZE, SIZE), np.uint8)
        for year, image in ((2020, before), (2022, after)):
            noisy = (image + rng.normal(scale=60, size=image.shape)).astype(np.int16)[: len(names)]
            step = layout.Step(
                f"s{year}", np.datetime64(f"{year}-07-01"), str(year), layout.chunk_fractions(quality == 0)
            )
            layout.append_step(group, step, noisy, quality)
        return "two dates"

    cube = Cube.create(str(folder / "cube"))
    cube.transact(fill)
    return DatedImages(cube.view().collection(sensor.name), (dt.date(2020, 7, 1), dt.date(2022, 7, 1)))


def _card(images: DatedImages) -> Card:
    c = len(images.sensor.bands)
    statistics = bands.Statistics(
        (1,) * c, (1500.0,) * c, (1000.0,) * c, (0.0,) * c, (4000.0,) * c, (0.0,) * c, (4000.0,) * c
    )
    return Card(EncoderSettings(name="unet-tiny"), images.sensor, statistics, "none", id="none")


@pytest.mark.parametrize("method", ["embedding", "irmad", "cva"])
def test_lost_forest_is_found_and_water_new_growth_and_brightness_are_not(
    method: UnlabelledMethod, tmp_path: Path
) -> None:
    images = _world(tmp_path)
    card = _card(images)
    torch.manual_seed(0)
    task = fit(images, build_encoder(card.architecture, 3).eval(), card, ChangeSettings(method=method))
    image, valid = images.images("x0y0")
    found = task.predict(image[None], valid[None])[0, 1] > 0.5
    truth = np.zeros((SIZE, SIZE), bool)
    truth[CLEARED] = True
    assert found[50:90, 50:90].mean() > 0.95
    assert found[FLOODED].mean() < 0.05
    assert found[GREENED].mean() < 0.05
    assert (found & truth).sum() / (found | truth).sum() > 0.8
    save_task(tmp_path / "task", task)
    again = load_task(tmp_path / "task").predict(image[None], valid[None])
    np.testing.assert_array_equal(again, task.predict(image[None], valid[None]))


def test_without_near_infrared_it_says_what_is_missing(tmp_path: Path) -> None:
    images = _world(tmp_path, ("B04", "B03"))
    card = _card(images)
    with pytest.raises(LabelError, match=r"near infrared beside .* has red, green"):
        fit(images, None, card, ChangeSettings(method="cva"))
    task = fit(images, None, card, ChangeSettings(of="any"))
    assert task.legend.names == ("no change", "change")
    assert task.card.settings["method"] == "cva"


def test_embedding_distance_without_an_encoder_is_refused(tmp_path: Path) -> None:
    images = _world(tmp_path)
    with pytest.raises(LabelError, match="embedding distance needs an encoder"):
        fit(images, None, _card(images), ChangeSettings(method="embedding"))


def test_otsu_parts_two_groups_where_their_means_differ_most() -> None:
    values = np.concatenate([np.linspace(0, 1, 500), np.linspace(4, 5, 50)]).astype(np.float32)
    assert 1 <= otsu(values) <= 4
