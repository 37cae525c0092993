"""Which method and how: settings alone, so that the project file is checked without loading torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class MaeSettings(BaseModel):
    """Masked autoencoder (https://arxiv.org/abs/2111.06377), for vit-* encoders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["mae"] = "mae"
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="Share of the patches that are hidden.")
    masking: Literal["independent", "consistent"] = Field(
        "independent",
        description="With encoder.groups: each group of bands is hidden at places of its own (independent), or all "
        "at the same places (consistent).",
    )
    decoder_dim: int = Field(128, ge=32, multiple_of=32, description="Width of the decoder.")
    decoder_depth: int = Field(2, ge=1, description="Blocks of the decoder.")
    crop: float = Field(0.5, gt=0, le=1, description="Smallest share of a chip's area that a random crop keeps.")

    @property
    def wants_pairs(self) -> bool:
        """Whether it compares two dates of one place."""
        return False


class PairSettings(BaseModel):
    """What every method that compares two views of each place can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: Literal["same", "season"] = Field(
        "same",
        description="What two views of one place are: two views of one image (same), or of two dates (season). Of two "
        "collections, and sensors, they are in pretrain.pool's beside.",
    )
    crop: float = Field(0.5, gt=0, le=1, description="Smallest share of a chip's area that a random crop keeps.")
    gain: float = Field(0.1, ge=0, description="Spread of a random factor for each band.")
    bias: float = Field(0.1, ge=0, description="Spread of a random offset for each band, in standard deviations.")
    noise: float = Field(0.1, ge=0, description="Spread of random noise for each pixel, in standard deviations.")
    haze: float = Field(0.0, ge=0, description="Spread of a random veil, in standard deviations of a blue band.")

    @property
    def wants_pairs(self) -> bool:
        """Whether it compares two dates of one place."""
        return self.pairs == "season"


class ContrastSettings(PairSettings):
    """What every contrastive method can be told."""

    temperature: float = Field(0.2, gt=0, description="Scale of the similarities; lower looks harder at near misses.")
    projection: int = Field(128, ge=8, description="Length of the vectors that are compared.")


class SimclrSettings(ContrastSettings):
    """Contrastive learning (https://arxiv.org/abs/2002.05709), for every encoder."""

    name: Literal["simclr"] = "simclr"


class DenseSettings(ContrastSettings):
    """Contrast of matched pixels (after https://arxiv.org/abs/2011.05499), for every encoder."""

    name: Literal["dense"] = "dense"
    points: int = Field(32, ge=1, description="Points of each chip that are compared.")
    apart: float = Field(16.0, ge=0, description="Points nearer than so many pixels are not told apart.")


class MocoV2Settings(ContrastSettings):
    """Contrast against a queue (https://arxiv.org/abs/2003.04297), for every encoder."""

    name: Literal["mocov2"] = "mocov2"
    momentum: float = Field(0.99, ge=0, le=1, description="Momentum of the second encoder at first; it rises to 1.")
    queue: int = Field(4096, ge=1, description="Keys in the queue.")


class MocoV3Settings(ContrastSettings):
    """Contrast with a momentum encoder and a predictor (https://arxiv.org/abs/2104.02057), for every encoder."""

    name: Literal["mocov3"] = "mocov3"
    projection: int = Field(256, ge=8, description="Length of the vectors that are compared.")
    hidden: int = Field(1024, ge=8, description="Width of projector and predictor.")
    momentum: float = Field(0.99, ge=0, le=1, description="Momentum of the second encoder at first; it rises to 1.")


class LejepaSettings(PairSettings):
    """Agreement of views whose projections are kept normally distributed (https://arxiv.org/abs/2511.08544), for every encoder."""

    name: Literal["lejepa"] = "lejepa"
    regularization: float = Field(
        0.05, gt=0, lt=1, description="Weight of the test for a normal distribution; the rest is agreement's."
    )
    projection: int = Field(64, ge=8, description="Length of the vectors that agree.")
    hidden: int = Field(1024, ge=8, description="Width of the projector.")


class DinoSettings(PairSettings):
    """Self-distillation of images and hidden patches (https://arxiv.org/abs/2111.07832), for every encoder."""

    name: Literal["dino"] = "dino"
    local_views: int = Field(2, ge=0, description="Small views of each chip beside the two.")
    mask_ratio: float = Field(0.5, ge=0.1, lt=1, description="Largest share of a view that is hidden.")
    prototypes: int = Field(512, ge=8, description="Prototypes by which images and patches are sorted.")
    hidden: int = Field(512, ge=8, description="Width of the heads.")
    projection: int = Field(128, ge=8, description="Length of the vectors that are compared with prototypes.")
    temperature: float = Field(0.1, gt=0, description="Scale of what the encoder says.")
    teacher_temperature: float = Field(
        0.05, ge=0.02, description="Scale of what the second encoder says; lower is surer."
    )
    momentum: float = Field(0.99, ge=0, le=1, description="Momentum of the second encoder at first; it rises to 1.")


class RelativeSettings(BaseModel):
    """Relative patch position (https://arxiv.org/abs/1505.05192), for every encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["relative"] = "relative"
    patch: int = Field(32, ge=8, description="Side of a patch in pixels, a multiple of the encoder's stride.")
    gap: float = Field(0.5, ge=0, description="Gap between the two patches, in sides of a patch.")
    jitter: float = Field(0.07, ge=0, lt=0.5, description="How far the gap varies, in sides of a patch.")
    gain: float = Field(0.1, ge=0, description="Spread of a random factor for each patch and band.")
    bias: float = Field(0.1, ge=0, description="Spread of a random offset a patch and band, in standard deviations.")
    noise: float = Field(0.1, ge=0, description="Spread of random noise for each pixel, in standard deviations.")

    @property
    def wants_pairs(self) -> bool:
        """Whether it compares two dates of one place."""
        return False


class TransformsSettings(BaseModel):
    """What was done to an image? Rotation prediction (https://arxiv.org/abs/1803.07728), for every encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["transforms"] = "transforms"
    transformations: Literal["rotation", "original-or-transformed"] = Field(
        "rotation",
        description="What is told apart: four quarter turns (rotation), or originals from images that are turned or "
        "whose quarters are exchanged (original-or-transformed).",
    )
    gain: float = Field(0.1, ge=0, description="Spread of a random factor for each band.")
    bias: float = Field(0.1, ge=0, description="Spread of a random offset for each band, in standard deviations.")
    noise: float = Field(0.1, ge=0, description="Spread of random noise for each pixel, in standard deviations.")

    @property
    def wants_pairs(self) -> bool:
        """Whether it compares two dates of one place."""
        return False


MethodSettings = Annotated[
    MaeSettings
    | SimclrSettings
    | DenseSettings
    | MocoV2Settings
    | MocoV3Settings
    | LejepaSettings
    | DinoSettings
    | RelativeSettings
    | TransformsSettings,
    Field(discriminator="name"),
]
