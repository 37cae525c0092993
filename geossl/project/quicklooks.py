"""A small picture of each scene, as it was when it came in."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from geossl.cube.overview import Overview
from geossl.files import write_bytes
from geossl.imagery.clouds import Quality, is_clear
from geossl.imagery.scene import Scene
from geossl.report.pictures import OVERLAYS, stretched

_LONGEST = 200
"""Characters of a file name; most file systems allow 255 bytes."""


def write_quicklook(folder: Path, scene: Scene, view: Overview) -> None:
    """Write ``<scene id>.png``: natural colours, stretched by the scene's own clear pixels, clouds outlined.

    Parameters
    ----------
    view:
        Red, green and blue of the scene.
    """
    seen = (view.quality & Quality.NODATA) == 0
    clear = is_clear(view.quality)
    values = view.image[:, clear if clear.any() else seen].astype(np.float32)
    low, high = np.percentile(values, (2, 98), axis=1) if values.size else np.zeros((2, len(view.image)))
    picture = stretched(view.image, ~seen, low, high)
    picture[_edge(seen & ~clear)] = OVERLAYS[0]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", optimize=True)
    write_bytes(quicklook_file(folder, scene.id), buffer.getvalue())


def quicklook_file(folder: Path, scene_id: str) -> Path:
    """Where the picture of a scene lies; ids may hold anything, file names may not."""
    name = quote(scene_id, safe=" +,=@()")
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.blake2b(scene_id.encode(), digest_size=8).hexdigest()}"
    return folder / f"{name}.png"


def _edge(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask with a neighbour outside it."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner
