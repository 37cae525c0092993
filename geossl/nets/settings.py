"""Which encoder: settings alone, so that the project file is checked without loading torch."""

from __future__ import annotations

from pathlib import Path
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
    "olmoearth-nano",
    "olmoearth-tiny",
    "olmoearth-base",
    "olmoearth-large",
]


HeadName = Literal["linear", "fpn"]
"""What a dense head is: one weight a feature and class, or a light feature pyramid."""


class EncoderSettings(BaseModel):
    """Which network, and its size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: EncoderName = Field("unet-small", description=f"The network: {', '.join(get_args(EncoderName))}.")
    patch: int = Field(
        8, ge=2, description="vit-* and olmoearth-* only: side of one patch, in pixels; of olmoearth-* at most 8."
    )
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
    groups: tuple[tuple[str, ...], ...] | None = Field(
        None,
        description="vit-* only: groups of bands, such as [[B02, B03, B04], [B08], [B11, B12]], each band in one; "
        "every place then has a token of each group (SatMAE), which takes as many times longer. null: all in one.",
    )

    @model_validator(mode="after")
    def _embeds_patches(self) -> Self:
        if self.groups is not None:
            if not self.name.startswith("vit-") or self.embedding != "bands":
                raise ValueError(
                    f"groups are for vit-* encoders with embedding: bands, not for {self.name} with {self.embedding}"
                )
            if not self.groups or not all(self.groups):
                raise ValueError("groups must each hold a band; leave groups out for one of all bands")
        if self.name.startswith("olmoearth-") and self.patch > 8:
            raise ValueError(f"{self.name} has patches of 8 pixels at most, not {self.patch}")
        if self.embedding != "bands" and not self.name.startswith("vit-"):
            raise ValueError(f"embedding: {self.embedding} is for vit-* encoders, which {self.name} is not")
        return self

    @property
    def transformer(self) -> bool:
        """Whether each place looks at the whole window, by blocks of attention."""
        return self.name.startswith(("vit-", "olmoearth-"))


class InitSettings(BaseModel):
    """What an encoder starts from instead of chance: one of `weights`, `encoder`, `champion`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str | None = Field(
        None,
        description="Public weights by torchgeo's name, such as ResNet50_Weights.SENTINEL2_ALL_MOCO. "
        "OlmoEarthV1_Weights.* want the extra geossl[olmoearth], and carry the OlmoEarth Artifact License.",
    )
    encoder: Path | None = Field(None, description="Folder of an encoder that geossl wrote.")
    champion: str | None = Field(None, description="A task: the encoder that its champion looks through.")
    bands: dict[str, str | None] = Field(
        default_factory=dict,
        description="Which of its bands each of yours starts from; null: from zero. "
        "Bands of the same name and wavelength need not be named.",
    )
    unmapped: Literal["nearest", "zero"] | None = Field(
        None,
        description="What your other bands start from: its band nearest in wavelength, or zero. "
        "null: that there are any is an error. olmoearth-* know nearest alone.",
    )
    lora: int | None = Field(
        None,
        ge=1,
        description="vit-* and olmoearth-* only: go on by adapters of this rank, such as 8, and by the kernels of new bands; "
        "all else stays as it was. null: everything learns.",
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        given = [name for name in ("weights", "encoder", "champion") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"init wants one of weights, encoder and champion, and has {' and '.join(given) or 'none'}"
            )
        return self
