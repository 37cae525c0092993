"""One training step of a masked autoencoder as each library computes it: forward, loss, backward, optimiser.

torchgeo's task is loaded as it is. Where what its other modules import is missing (rasterio, GeoPandas), its
file `tasks/mae.py` is loaded without them. The paper's code, facebookresearch/mae, is read from the folder that
`FACEBOOK_MAE` names; around it only what its old timm and NumPy took for granted is given back.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from geossl.methods.mae import Mae
from geossl.methods.settings import MaeSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.train.launch import unfuse_attention

from .harness import Skipped

Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """What both sides compute."""

    encoder: str = "vit-small"
    patch: int = 16
    bands: int = 13
    side: int = 224
    batch: int = 16
    decoder: tuple[int, int] = (512, 1)
    """Width and depth; torchgeo's default."""
    device: str = "cpu"

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2

    def images(self) -> Tensor:
        """Normalised pixels in memory, the same for either side."""
        return torch.randn(self.batch, self.bands, self.side, self.side, generator=torch.Generator().manual_seed(0)).to(
            self.device
        )


def our_step(case: Case, *, bf16: bool, augment: bool = False, compiled: bool = False) -> Step:
    """`Mae` with the optimiser that `pretrain` gives it."""
    torch.manual_seed(0)
    width, depth = case.decoder
    encoder = build_encoder(
        EncoderSettings.model_validate({"name": case.encoder, "patch": case.patch, "image": case.side}), case.bands
    )
    method = Mae(MaeSettings(decoder_dim=width, decoder_depth=depth), encoder)
    method = method.to(case.device, memory_format=torch.channels_last)
    if bf16 and case.device == "cpu":
        unfuse_attention(method)  # as Pretraining does
    image = case.images()
    valid = torch.ones(case.batch, case.side, case.side, dtype=torch.bool, device=case.device)
    if augment:
        if compiled:
            method.compile()  # as Pretraining does

        def loss() -> Tensor:
            return method({"image": image, "valid": valid}).total

    else:
        losses = torch.compile(method.losses) if compiled else method.losses

        def loss() -> Tensor:
            return losses(image, valid, torch.rand(case.batch, case.patches, device=case.device)).total

    weights = [weight for weight in method.parameters() if weight.requires_grad]
    return whole_step(loss, torch.optim.AdamW(weights, 1e-4, fused=True), case.device, bf16=bf16)


def torchgeo_step(case: Case, *, bf16: bool, augment: bool = False) -> Step:
    """`torchgeo.tasks.MAE` with the optimiser that it configures; what it would log is computed, as always."""
    torch.manual_seed(0)
    width, depth = case.decoder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what lightly will remove
        task: Any = torchgeo_mae()(
            model=f"{case.encoder.replace('-', '_')}_patch{case.patch}_{case.side}",
            in_channels=case.bands,
            transform=None if augment else nn.Identity(),
            decoder_dim=width,
            decoder_depth=depth,
            decoder_num_heads=width // 32,
            size=case.side,
        ).to(case.device)
    task.log = lambda *_, **__: None  # there is no Trainer to log to
    image = case.images()
    optimizer = torch.optim.AdamW(task.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    return whole_step(lambda: task.training_step({"image": image}, 0), optimizer, case.device, bf16=bf16)


def reference_step(case: Case, *, bf16: bool) -> Step:
    """`models_mae.py` of facebookresearch/mae with AdamW as its `main_pretrain.py` makes it."""
    torch.manual_seed(0)
    width, depth = case.decoder
    sizes: Any = importlib.import_module("timm").create_model(f"{case.encoder.replace('-', '_')}_patch16_224")
    model: Any = facebook_mae()(
        img_size=case.side,
        patch_size=case.patch,
        in_chans=case.bands,
        embed_dim=sizes.embed_dim,
        depth=len(sizes.blocks),
        num_heads=sizes.blocks[0].attn.num_heads,
        decoder_embed_dim=width,
        decoder_depth=depth,
        decoder_num_heads=width // 32,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        norm_pix_loss=True,
    ).to(case.device)
    image = case.images()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    return whole_step(lambda: model(image)[0], optimizer, case.device, bf16=bf16)


def whole_step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, device: str, *, bf16: bool) -> Step:
    """Forward under autocast, backward, optimiser."""

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            total = loss()
        total.backward()
        optimizer.step()

    return step


@functools.cache
def torchgeo_mae() -> Any:
    """The class `torchgeo.tasks.MAE`."""
    try:
        from torchgeo.tasks import MAE
    except ImportError:
        found = importlib.util.find_spec("torchgeo")
        if found is None or found.origin is None:
            raise Skipped("torchgeo is not installed") from None
        return _alone(Path(found.origin).parent)
    return MAE


def _alone(root: Path) -> Any:
    """torchgeo's `tasks/mae.py` and `tasks/base.py`, without data sets and other models."""

    def package(name: str, folder: Path | None = None, **content: Any) -> types.ModuleType:
        module = types.ModuleType(name)
        module.__path__ = [] if folder is None else [str(folder)]
        vars(module).update(content)
        return module

    for name in [name for name in sys.modules if name.split(".")[0] == "torchgeo"]:
        del sys.modules[name]  # what a failed import left
    stand_ins = {
        "torchgeo": package("torchgeo", root),
        "torchgeo.tasks": package("torchgeo.tasks", root / "tasks"),
        "torchgeo.datasets": package("torchgeo.datasets"),
        "torchgeo.datasets.utils": package("torchgeo.datasets.utils", Sample=dict),
        "torchgeo.models": package("torchgeo.models", get_weight=None),
        "torchgeo.tasks.utils": package("torchgeo.tasks.utils", load_state_dict=None),
    }
    sys.modules.update(stand_ins)
    return importlib.import_module("torchgeo.tasks.mae").MAE


@functools.cache
def facebook_mae() -> Any:
    """`MaskedAutoencoderViT` of facebookresearch/mae, whose loss is written for three bands, for any number."""
    folder = os.environ.get("FACEBOOK_MAE", "")
    if not (Path(folder) / "models_mae.py").is_file():
        raise Skipped("FACEBOOK_MAE does not name a clone of facebookresearch/mae")
    with _old_libraries(), mock.patch.object(sys, "path", [folder, *sys.path]):
        original: Any = importlib.import_module("models_mae").MaskedAutoencoderViT

    class AnyBands(original):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            with _old_libraries():
                super().__init__(**options)

        def patchify(self, imgs: Tensor) -> Tensor:
            batch, bands, side, _ = imgs.shape
            patch = self.patch_embed.patch_size[0]
            cells = side // patch
            x = imgs.reshape(shape=(batch, bands, cells, patch, cells, patch))
            x = torch.einsum("nchpwq->nhwpqc", x)
            return x.reshape(shape=(batch, cells * cells, patch**2 * bands))

    return AnyBands


@contextlib.contextmanager
def _old_libraries() -> Iterator[None]:
    """`np.float`, and a `Block` of timm that takes `qk_scale`."""
    transformer: Any = importlib.import_module("timm.models.vision_transformer")
    block = transformer.Block

    def old(*sizes: Any, qk_scale: None = None, **options: Any) -> nn.Module:
        return block(*sizes, **options)

    with (
        mock.patch.object(np, "float", float, create=True),
        mock.patch.object(transformer, "Block", old),
    ):
        yield
