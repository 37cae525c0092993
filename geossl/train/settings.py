"""How to pretrain: settings alone, so that the project file is checked without loading torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from geossl.chips.settings import PoolSettings, SamplingSettings
from geossl.methods.settings import MethodSettings, SimclrSettings
from geossl.nets.settings import EncoderSettings, InitSettings
from geossl.train.remote.settings import LaunchSettings


class PretrainSettings(BaseModel):
    """One pretraining."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: MethodSettings = Field(SimclrSettings(), description="What the encoder learns from.")
    encoder: EncoderSettings = Field(EncoderSettings(), description="What learns.")
    init: InitSettings | None = Field(None, description="What the encoder starts from; null: from chance.")
    epochs: int = Field(100, ge=1, description="How often every chip is seen.")
    minutes: float | None = Field(None, gt=0, description="Stop after so many minutes at the latest.")
    batch_size: int = Field(64, ge=2, description="Chips in one step, on each device.")
    chip: int = Field(128, ge=16, description="Side of a chip, in pixels.")
    blocks: Literal["all", "train"] = Field(
        "all",
        description="Which blocks of the split the chips come from: all (held-out ones without their labels), or train.",
    )
    min_clear: float = Field(0.5, ge=0, le=1, description="Smallest share of clear pixels in a chip.")
    sampling: SamplingSettings = Field(SamplingSettings(), description="Which chips are seen more often than others.")
    pool: list[PoolSettings] = Field(
        default_factory=list,
        description="Other collections to train on as well, of the same bands and units, normalised alike.",
    )
    bad_chunks: int = Field(
        10, ge=0, description="How many damaged chunks of a cube are reported and passed over before it stops."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of AdamW.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    precision: Literal["auto", "32", "bf16"] = Field(
        "auto", description="Arithmetic: bf16 where the device is faster with it (auto), or always the one named."
    )
    launch: LaunchSettings = Field(
        LaunchSettings(),
        description="Where it runs: in this process (null), or by one of torchrun, Slurm and Kubernetes.",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of the training; by default torch decides.")
    seed: int = Field(0, ge=0, description="Seed of weights, views and masks.")
