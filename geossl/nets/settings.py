"""Which encoder: settings alone, so that the project file is checked without loading torch."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

EncoderName = Literal[
    "unet-tiny",
    "unet-small",
    "resnet18",
    "resnet50",
    "convnext-tiny",
    "vit-tiny",
    "vit-small",
    "vit-base",
    "vit-large",
]


class EncoderSettings(BaseModel):
    """Which network, and its size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: EncoderName = Field("unet-small", description=f"The network: {', '.join(get_args(EncoderName))}.")
    patch: int = Field(8, ge=2, description="vit-* only: side of one patch, in pixels.")
    image: int | None = Field(
        None,
        ge=8,
        description="vit-* only: image side in pixels for which positions are laid out (other sizes interpolate). "
        "By default the chip side of the pretraining.",
    )
