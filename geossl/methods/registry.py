"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geossl.methods.dense import Dense
from geossl.methods.dino import Dino
from geossl.methods.lejepa import Lejepa
from geossl.methods.mae import Mae
from geossl.methods.method import Method
from geossl.methods.mocov2 import MocoV2
from geossl.methods.mocov3 import MocoV3
from geossl.methods.relative import Relative
from geossl.methods.settings import MethodSettings
from geossl.methods.simclr import Simclr
from geossl.methods.transforms import Transforms
from geossl.nets.encoder import Encoder

METHODS: dict[str, Callable[[Any, Encoder], Method]] = {
    "mae": Mae,
    "simclr": Simclr,
    "relative": Relative,
    "transforms": Transforms,
    "dense": Dense,
    "mocov2": MocoV2,
    "mocov3": MocoV3,
    "lejepa": Lejepa,
    "dino": Dino,
}


def build_method(settings: MethodSettings, encoder: Encoder) -> Method:
    """The method that ``settings`` name, around ``encoder``."""
    return METHODS[settings.name](settings, encoder)
