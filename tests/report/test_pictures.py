from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from geossl.bands import Statistics, sensor
from geossl.legend import NO_LABEL, LandClass, Legend
from geossl.report.charts import curves
from geossl.report.pictures import NOTHING, OVERLAYS, map_uri, overlay, photo_uri, quicklook, shares, shrink
from geossl.report.records import TrainingCurves

S2 = sensor("sentinel-2-l2a").subset(["B02", "B03", "B04", "B08"])
LEGEND = Legend((LandClass(3, "forest", "#1f6b3a"), LandClass(7, "water", "#2b6cb0")))


def _statistics(low: float, high: float) -> Statistics:
    n = len(S2.bands)
    return Statistics((1,) * n, (0.0,) * n, (1.0,) * n, (0.0,) * n, (1.0,) * n, (low,) * n, (high,) * n)


def _decode(uri: str) -> Image.Image:
    kind, data = uri.split(",", 1)
    assert kind.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_quicklook_stretches_true_colours() -> None:
    image = np.full((4, 2, 5), 200, np.int16)
    image[:, 0] = [-500, 200, 1100, 2000, 9000]
    image[2, 1, 0] = 2000  # only red is bright
    image[0, 1, 1] = -32768  # blue was not measured
    picture = quicklook(image, S2, _statistics(200, 2000))
    assert picture.shape == (2, 5, 3)
    row = picture[0, :, 0].astype(int)
    assert row[0] == 0
    assert row[0] < row[1] < row[2] < row[3] == row[4] == 255
    assert 100 < row[2] < 170
    red, green, blue = picture[1, 0]
    assert red == 255
    assert green == blue < 80
    assert tuple(picture[1, 1]) == NOTHING


def test_shrinking_keeps_codes_and_averages_pictures() -> None:
    codes = np.zeros((100, 50), np.uint8)
    codes[::2] = 200
    small = shrink(codes, 20)
    assert small.shape == (20, 10)
    assert set(np.unique(small)) <= {0, 200}
    board = np.indices((64, 64)).sum(0) % 2 * 255
    picture = np.repeat(board[..., None], 3, -1).astype(np.uint8)
    assert np.abs(shrink(picture, 8).astype(int) - 127).max() <= 1
    assert shrink(picture, 64) is picture


def test_maps_wear_their_legend() -> None:
    codes = np.array([[3, 7, NO_LABEL]], np.uint8)
    image = _decode(map_uri(codes, LEGEND)).convert("RGB")
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0x1F, 0x6B, 0x3A), (0x2B, 0x6C, 0xB0), NOTHING]
    assert shares(np.array([[3, 3, 7, 255]], np.uint8), LEGEND) == pytest.approx([2 / 3, 1 / 3])
    assert shares(np.full((2, 2), 255, np.uint8), LEGEND) == [0, 0]


def test_photos_survive_encoding() -> None:
    y, x = np.mgrid[:64, :64]
    picture = np.stack([x * 4, y * 4, 255 - x * 2], -1).astype(np.uint8)
    back = np.asarray(_decode(photo_uri(picture)).convert("RGB")).astype(int)
    assert np.abs(back - picture).mean() < 6


def test_masks_are_drawn_in_their_own_colours() -> None:
    grey = np.full((2, 3, 3), 100, np.uint8)
    first, second = np.zeros((2, 3), bool), np.zeros((2, 3), bool)
    first[0, 0], second[1, 2] = True, True
    shown = overlay(grey, {"cloud": first, "shadow": second}).astype(int)
    for at, colour in (((0, 0), OVERLAYS[0]), ((1, 2), OVERLAYS[1])):
        assert np.corrcoef(shown[at], colour)[0, 1] > 0.99
    assert np.ptp(shown[0, 1]) == 0


def test_charts_follow_the_scheme_of_the_page() -> None:
    step = np.arange(200)
    values = np.where(step % 10 == 0, np.sqrt(step), np.nan)
    training = TrainingCurves("run", step, {"loss": 1 / (1 + step), "effective rank": values})
    svg = curves(training)
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    texts = {"".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")}
    assert {"loss", "effective rank", "step"} <= texts
    assert "currentColor" in svg
    assert "prefers-color-scheme:dark" in svg
    assert "#010203" not in svg
    assert svg == curves(training)
