"""What a user may say about learning from labels and about scoring. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geossl.nets.settings import HeadName


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


LossName = Literal["balanced", "focal", "dice"]


class FinetuneSettings(_Settings):
    """How a network is trained on labels."""

    steps: int = Field(300, gt=0, description="Most optimiser steps.")
    minutes: float | None = Field(None, gt=0, description="Stop after this wall-clock time (null: no limit).")
    batch_size: int = Field(16, gt=0, description="Windows a step.")
    window: Literal[64, 128, 256] = Field(64, description="Side of a training window in pixels.")
    windows: int = Field(
        512, gt=0, description="Most training windows kept in memory; those with rare classes come first."
    )
    head: HeadName = Field(
        "fpn",
        description="What stands on the encoder's maps: fpn, a light feature pyramid; linear, one weight a feature "
        "and class, which needs the fewest labels.",
    )
    encoder: Literal["frozen", "full", "lora"] = Field(
        "full",
        description="full: the encoder learns too, at encoder_rate; frozen: it stays as it is, which is quick and "
        "needs few labels; lora: the layers of a transformer (vit-*) learn low-rank additions of lora_rank.",
    )
    loss: LossName = Field(
        "balanced",
        description="balanced: cross-entropy in which every class counts the same; focal: pixels already told well "
        "count little; dice: the overlap of each class.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of the head.")
    encoder_rate: float = Field(
        0.3, gt=0, description="Learning rate of the encoder's last layer as a share of the head's."
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Each layer of the encoder learns at this share of the rate of the layer after it, so that early "
        "layers keep what pretraining taught (0.65 to 0.9 for transformers; 1: all alike).",
    )
    lora_rank: int = Field(8, gt=0, description="Rank of the additions of encoder: lora.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    patience: int = Field(5, gt=0, description="Stop after this many validations (25 steps each) without a new best.")

    @model_validator(mode="before")
    @classmethod
    def _of_old(cls, values: Any) -> Any:
        """`encoder_rate: 0` was how an encoder was frozen before `encoder: frozen`."""
        if isinstance(values, dict) and values.get("encoder_rate") == 0:
            values = {k: v for k, v in values.items() if k != "encoder_rate"} | {"encoder": "frozen"}
        return values


class LandcoverSettings(_Settings):
    """How a land-cover model is learnt."""

    mode: Literal["auto", "few", "finetune"] = Field(
        "auto",
        description="few: a closed-form head on fixed features, best with few labels; finetune: train the whole "
        "network; auto: both, and keep the one that scores better on validation blocks.",
    )
    labels: int | None = Field(
        None,
        gt=1,
        description="Learn from this many labelled pixels, balanced over the classes, and validate on half as many "
        "(null: from all).",
    )
    seed: int = Field(0, ge=0, description="Draws the labelled pixels, initial weights and order of windows.")
    finetune: FinetuneSettings = Field(default_factory=FinetuneSettings)


UnlabelledMethod = Literal["embedding", "irmad", "cva"]
"""How far a pixel moved between two dates is told without labels."""

Of = Literal["clearing", "any"]
"""What a change map without labels is of."""


class ChangeSettings(_Settings):
    """How a two-date change model is learnt; without labels, only the first two count."""

    method: UnlabelledMethod = Field(
        "cva",
        description="without labels: embedding (distance of the encoder's features), irmad (Nielsen 2007) or cva "
        "(length of the change vector); the last two need no pretraining",
    )
    of: Of = Field(
        "clearing",
        description="without labels: clearing counts what moved and lost vegetation, any whatever moved",
    )

    labels: int | None = Field(
        None,
        gt=1,
        description="Learn from this many labelled pixels, half of them changed where there are as many, and "
        "validate on half as many (null: from all).",
    )
    seed: int = Field(0, ge=0, description="Draws the labelled pixels, initial weights and order of windows.")
    finetune: FinetuneSettings = Field(default_factory=FinetuneSettings)


class IndexForest(_Settings):
    """Forest by vegetation indices of the earlier image; at least one of them."""

    kind: Literal["index"]
    ndvi: float | None = Field(None, ge=-1, le=1, description="least (nir - red) / (nir + red)")
    ndmi: float | None = Field(
        None, ge=-1, le=1, description="least (nir - swir) / (nir + swir); water has much of it, so set ndvi as well"
    )

    @model_validator(mode="after")
    def _says_something(self) -> IndexForest:
        if self.ndvi is None and self.ndmi is None:
            raise ValueError("forest by index needs ndvi, ndmi or both")
        return self


class RasterForest(_Settings):
    """Forest by a raster on any grid."""

    kind: Literal["raster"]
    path: Path = Field(description="GeoTIFF of whole numbers; relative to the project file")
    values: tuple[int, ...] = Field((1,), min_length=1, description="its numbers that mean forest")


class LandcoverForest(_Settings):
    """Forest by the model of a land-cover task, applied to the earlier image."""

    kind: Literal["landcover"]
    task: str = Field(description="name of the land-cover task")
    classes: tuple[str, ...] = Field(("forest",), min_length=1, description="its classes that are forest")


ForestSettings = Annotated[IndexForest | RasterForest | LandcoverForest, Field(discriminator="kind")]
"""Where change is looked for: what was forest before."""


RIVER = "river"
"""Name of the class of what a river took."""


class RiverSettings(_Settings):
    """What of the loss is ground that a river or a lake took, by MNDWI, (green - swir) / (green + swir), afterwards.

    The bed is open water, and what is joined to it and as wet or sandy as a bank (Xu 2006; the two thresholds, as
    those of an edge, of which the low one counts only where it leads to the high one).
    """

    water: float = Field(0.0, ge=-1, le=1, description="least MNDWI of open water")
    bed: float = Field(
        -0.3, ge=-1, le=1, description="least MNDWI of sand and mud beside it; soil and pasture are below"
    )

    @model_validator(mode="after")
    def _in_order(self) -> RiverSettings:
        if self.bed > self.water:
            raise ValueError(f"river: bed ({self.bed}) is above water ({self.water})")
        return self


class EvaluateSettings(_Settings):
    """How held-out scores are taken."""

    every: int = Field(2, gt=0, description="Score every so-many-th pixel in both directions: neighbours look alike.")
    labels: tuple[int, ...] = Field(
        (100, 500), min_length=1, description="Numbers of labelled pixels for the scores of frozen features."
    )
    draws: int = Field(3, gt=0, description="Draws of labelled pixels for the scores of frozen features.")
    floors: bool = Field(
        True, description="Also fit and score everything a pretrained model must beat; costs about two more fits."
    )
