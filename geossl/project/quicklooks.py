"""A small picture of each scene, as it was when it came in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from geossl.cube.overview import Overview
from geossl.files import file_name, write_bytes
from geossl.imagery.clouds import Quality, is_clear
from geossl.imagery.scene import Scene
from geossl.report.pictures import OVERLAYS, stretched


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
    """Where the picture of a scene lies."""
    return folder / file_name(scene_id, ".png")


def _edge(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask with a neighbour outside it."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner
