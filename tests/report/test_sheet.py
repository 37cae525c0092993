"""A contact sheet shows every picture where it belongs."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from geossl.report.pictures import OVERLAYS
from geossl.report.sheet import SIDE, Cell, contact_sheet


def plain(colour: tuple[int, int, int], side: int) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def test_pictures_lie_in_rows_in_order_and_the_first_is_framed() -> None:
    colours = [(10 * number, 200 - 10 * number, 90) for number in range(7)]
    cells = [
        Cell(plain(colour, (16, 64, 300)[number % 3]), [f"{number}", "2024-01-01"], framed=number == 0)
        for number, colour in enumerate(colours)
    ]
    with Image.open(io.BytesIO(contact_sheet(cells, columns=3))) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    found = [tuple(map(int, colour)) for colour in np.unique(pixels.reshape(-1, 3), axis=0)]
    assert set(colours) <= set(found)
    where = [np.argwhere((pixels == colour).all(axis=-1)) for colour in colours]
    assert all(len(area) == SIDE * SIDE for area in where)
    corners = [tuple(area.min(axis=0)) for area in where]
    assert corners == sorted(corners)
    assert len({row for row, _ in corners}) == 3
    row, col = corners[0]
    assert tuple(pixels[row - 2, col - 2]) == OVERLAYS[0]
    row, col = corners[1]
    assert tuple(pixels[row - 2, col - 2]) == (255, 255, 255)
    assert pixels[row + SIDE :, col:].min() < 128  # something is written
