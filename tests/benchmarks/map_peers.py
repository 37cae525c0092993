"""The same map by what others offer: torchgeo's grid of chips, and TerraTorch's tiled inference."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio._env import set_gdal_config  # its public Env ends with its block
from rasterio.windows import Window
from torch import Tensor

from geossl.downstream.task import TrainedTask

from .harness import Skipped
from .map_scene import BATCH, MARGIN, OVERLAP, WINDOW

WORKERS = 2
STRIDE = WINDOW - 2 * MARGIN - OVERLAP

CACHE = 64 << 20
"""Bytes of decoded blocks that GDAL keeps in each process: a row of windows, not the whole scene, as with large ones."""


def by_torchgeo(scene: Path, task: TrainedTask, path: Path) -> Callable[[], None]:
    """Chips by GridGeoSampler; the middle of each prediction is written, as its makers advise."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset
    from torchgeo.samplers import GridGeoSampler

    dataset = RasterDataset([str(scene)])
    sampler = GridGeoSampler(dataset, size=WINDOW, stride=STRIDE)
    loader: Any = DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=sampler,
        num_workers=WORKERS,
        persistent_workers=True,
        worker_init_fn=_limit_cache,
    )
    normalize = _normalize(task)
    valid = torch.ones(BATCH, 1, WINDOW, WINDOW, dtype=torch.bool)
    border = (WINDOW - STRIDE) // 2

    def predict() -> None:
        with rasterio.open(path, "w", **_profile(scene)) as out, torch.inference_mode():
            inverse = ~out.transform
            for batch in loader:
                image = normalize(batch["image"])[:, None]
                bands = _bands(task.network(image, valid[: len(image)]).softmax(dim=1), task)
                for each, transform in zip(bands, batch["transform"], strict=True):
                    left, top = (round(at) for at in inverse * (float(transform[2]), float(transform[5])))
                    _write(out, each.numpy(), top, left, border)

    return predict


def by_terratorch(scene: Path, task: TrainedTask, path: Path) -> Callable[[], None]:
    """The whole scene in memory, windows blended by cosine."""
    tiled = _tiled_inference()
    normalize = _normalize(task)
    valid = torch.ones(BATCH, 1, WINDOW, WINDOW, dtype=torch.bool)

    def predict() -> None:
        with rasterio.open(scene) as file:
            image = torch.from_numpy(file.read().astype(np.float32))[None]
        with torch.inference_mode():
            proba = tiled.tiled_inference(
                lambda x, **_: task.network(x[:, None], valid[: len(x)]).softmax(dim=1),
                normalize(image),
                crop=WINDOW,
                stride=STRIDE,
                delta=MARGIN,
                batch_size=BATCH,
            )
            (bands,) = _bands(proba, task)
        with rasterio.open(path, "w", **_profile(scene)) as out:
            out.write(bands.numpy())

    return predict


def _tiled_inference() -> Any:
    """TerraTorch's module alone: the package imports every model that it has.

    ``TERRATORCH`` names a folder that it was installed into (``uv pip install --no-deps --target FOLDER terratorch``).
    """
    folder = Path(os.environ.get("TERRATORCH", ""))
    file = folder / "terratorch" / "tasks" / "tiled_inference.py"
    if not file.is_file():
        raise Skipped("TERRATORCH names no folder with terratorch")
    for name in ("terratorch", "terratorch.models", "terratorch.models.utils"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["terratorch.models.utils"].pad_images = None  # type: ignore[attr-defined]  # only for odd sizes
    spec = importlib.util.spec_from_file_location("terratorch.tasks.tiled_inference", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _normalize(task: TrainedTask) -> Callable[[Tensor], Tensor]:
    """Of float images, in place."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (task.statistics.mean, task.statistics.std))
    return lambda image: image.sub_(mean).div_(std)


def _bands(proba: Tensor, task: TrainedTask) -> Tensor:
    """Class codes and confidence in percent, (B, 2, H, W) uint8."""
    codes = torch.tensor(task.legend.codes, dtype=torch.uint8)
    best = proba.max(dim=1)
    return torch.stack([codes[best.indices], (best.values * 100).round().to(torch.uint8)], dim=1)


def _profile(scene: Path) -> dict[str, Any]:
    """Of the map that every side writes."""
    with rasterio.open(scene) as file:
        kept = {name: file.profile[name] for name in ("height", "width", "crs", "transform")}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1}
    return kept | blocks | {"driver": "GTiff", "dtype": "uint8", "count": 2, "nodata": 255}


def _write(out: Any, bands: Any, top: int, left: int, border: int) -> None:
    """Write what lies inside, without the border but where the scene ends; the grid's outer chips reach beyond it."""
    rows, cols = (
        range(at + border if at > 0 else 0, at + WINDOW - border if at + WINDOW < length else length)
        for at, length in ((top, out.height), (left, out.width))
    )
    inside = bands[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
    out.write(inside, window=Window(cols.start, rows.start, len(cols), len(rows)))


def _limit_cache(_: int) -> None:
    set_gdal_config("GDAL_CACHEMAX", CACHE)
