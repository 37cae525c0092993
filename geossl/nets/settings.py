"""Which encoder: settings alone, so that the project file is checked without loading torch."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    embedding: Literal["bands", "wavelengths", "dofa"] = Field(
        "bands",
        description="vit-* only: kernels learnt for each band (bands), or made from wavelength or polarisation "
        "(wavelengths), so that one encoder takes several sensors; dofa: the same as in the public DOFA weights, "
        "whose patches lie one pixel off.",
    )

    @model_validator(mode="after")
    def _embeds_patches(self) -> Self:
        if self.embedding != "bands" and not self.name.startswith("vit-"):
            raise ValueError(f"embedding: {self.embedding} is for vit-* encoders, which {self.name} is not")
        return self
