"""A contact sheet: small pictures in rows, with a line or two under each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geossl.report.pictures import OVERLAYS
from geossl.report.records import Picture

SIDE = 192
"""Pixels of every picture."""

_GAP, _LINE, _FRAME = 12, 17, 4


@dataclass(frozen=True)
class Cell:
    """One picture."""

    picture: Picture
    lines: Sequence[str]
    framed: bool = False
    """Whether it stands out, as what was asked for does among the answers."""


def contact_sheet(cells: Sequence[Cell], columns: int = 5) -> bytes:
    """The cells as a PNG, row by row."""
    lines = max(len(cell.lines) for cell in cells)
    wide, high = SIDE + _GAP, SIDE + lines * _LINE + 2 * _GAP
    columns = min(columns, len(cells))
    sheet = Image.new("RGB", (columns * wide + _GAP, -(-len(cells) // columns) * high + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, cell in enumerate(cells):
        x, y = _GAP + number % columns * wide, _GAP + number // columns * high
        if cell.framed:
            box = (x - _FRAME, y - _FRAME, x + SIDE + _FRAME - 1, y + SIDE + _FRAME - 1)
            draw.rectangle(box, fill=OVERLAYS[0])
        sheet.paste(_square(cell.picture), (x, y))
        for line, text in enumerate(cell.lines):
            draw.text((x, y + SIDE + 4 + line * _LINE), text, "black", font)
    buffer = io.BytesIO()
    sheet.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _square(picture: Picture) -> Image.Image:
    """Pixels of the ground stay pixels where there are fewer than the sheet shows."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    how = Image.Resampling.NEAREST if image.width < SIDE else Image.Resampling.BOX
    return image.resize((SIDE, SIDE), how)
