"""Labels beside the imagery that they lie on, in one picture."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geossl.legend import NO_LABEL, Legend
from geossl.report.records import Picture

_GAP, _LINE, _SWATCH = 8, 18, 12


def label_picture(photo: Picture, codes: NDArray[np.uint8], legend: Legend) -> Picture:
    """The photo on the left; on the right the same, faded, under the labels; the legend below.

    Parameters
    ----------
    photo:
        (H, W, 3)
    codes:
        (H, W) class codes, NO_LABEL where there is none.
    """
    colors = np.zeros((256, 3), np.float32)
    for land in legend:
        colors[land.code] = land.rgb
    labelled = codes != NO_LABEL
    right = photo.astype(np.float32).mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.6 + 80
    right[labelled] = 0.15 * right[labelled] + 0.85 * colors[codes[labelled]]
    height, width = codes.shape
    font = ImageFont.load_default(13)
    shown = [land for land in legend if (codes == land.code).any()]
    rows = _rows([_SWATCH + 4 + round(font.getlength(land.name)) + 14 for land in shown], 2 * width + _GAP)
    sheet = Image.new("RGB", (2 * width + _GAP, height + _GAP + (max(rows, default=(0, 0))[0] + 1) * _LINE), "white")
    sheet.paste(Image.fromarray(photo), (0, 0))
    sheet.paste(Image.fromarray(right.clip(0, 255).astype(np.uint8)), (width + _GAP, 0))
    draw = ImageDraw.Draw(sheet)
    for land, (row, x) in zip(shown, rows, strict=True):
        y = height + _GAP + row * _LINE
        draw.rectangle((x, y, x + _SWATCH, y + _SWATCH), fill=land.rgb, outline="grey")
        draw.text((x + _SWATCH + 4, y - 2), land.name, "black", font)
    return np.asarray(sheet)


def thin_labels(codes: NDArray[np.uint8], every: int) -> NDArray[np.uint8]:
    """Every so-many-th pixel of (H, W) codes, or where that has no label any other of its square, so that small
    labels stay to be seen."""
    height, width = (length // every for length in codes.shape)
    squares = codes[: height * every, : width * every].reshape(height, every, width, every)
    nearest = squares[:, 0, :, 0]
    any_other: NDArray[np.uint8] = squares.min(axis=(1, 3))  # NO_LABEL is the greatest
    return np.where(nearest == NO_LABEL, any_other, nearest)


def png(picture: Picture) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _rows(widths: list[int], room: int) -> list[tuple[int, int]]:
    """Row and x of things of these widths, set one after the other."""
    places, row, x = [], 0, 0
    for width in widths:
        if x and x + width > room:
            row, x = row + 1, 0
        places.append((row, x))
        x += width
    return places
