"""Methods, views and batches of smooth random places."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from geossl.augment import Views
from geossl.methods.pairs import View
from geossl.methods.registry import build_method
from geossl.methods.settings import MethodSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

SIDE = 32


def build(name: str, encoder: str = "unet-tiny", bands: int = 3, **settings: Any) -> Any:
    """A method with the same weights whenever it is built."""
    torch.manual_seed(0)
    which: MethodSettings = TypeAdapter(MethodSettings).validate_python({"name": name, **settings})
    return build_method(which, build_encoder(EncoderSettings(name=encoder, image=SIDE), bands))


def smooth(count: int, bands: int = 3, side: int = SIDE) -> Tensor:
    """Images (B, C, H, W) of low frequencies, each of another place."""
    coarse = torch.randn(count, bands, 5, 5)
    return nn.functional.interpolate(coarse, (side, side), mode="bicubic") + 0.05 * torch.randn(
        count, bands, side, side
    )


def batch_of(count: int, bands: int = 3, dates: int = 1) -> dict[str, Any]:
    """A normalised batch without an invalid pixel."""
    image = smooth(count * dates, bands)
    valid = torch.ones(count * dates, SIDE, SIDE, dtype=torch.bool)
    if dates > 1:
        image, valid = image.unflatten(0, (count, dates)), valid.unflatten(0, (count, dates))
    return {"image": image, "valid": valid}


def view_of(batch: dict[str, Any], crop: float = 0.5) -> View:
    """A random view."""
    views = Views(crop=crop)
    placement = views.place(len(batch["image"]), torch.device("cpu"))
    return View(*views.at(placement, batch["image"], batch["valid"]), placement)


def outputs(module: nn.Module) -> list[Tensor]:
    """What a part of a method says from now on, as it says it."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda *arguments: seen.append(arguments[-1].detach()))
    return seen
