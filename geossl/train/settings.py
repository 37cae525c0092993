"""How to pretrain: settings alone, so that the project file is checked without loading torch."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from geossl.chips.settings import PoolSettings, SamplingSettings
from geossl.imagery.buckets import BUCKETS
from geossl.methods.settings import DenseSettings, MethodSettings, PairSettings
from geossl.nets.settings import EncoderSettings, InitSettings
from geossl.train.remote.settings import LaunchSettings


class PretrainSettings(BaseModel):
    """One pretraining."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: MethodSettings = Field(DenseSettings(), description="What the encoder learns from.")
    encoder: EncoderSettings = Field(EncoderSettings(), description="What learns.")
    init: InitSettings | None = Field(None, description="What the encoder starts from; null: from chance.")
    epochs: int = Field(100, ge=1, description="How often every chip is seen.")
    minutes: float | None = Field(None, gt=0, description="Stop after so many minutes at the latest.")
    batch_size: int = Field(64, ge=2, description="Chips in one step, on each device.")
    accumulate: int = Field(
        1,
        ge=1,
        description="In how many parts a step computes its batch, one after the other, where memory is short. "
        "A contrastive method compares within a part.",
    )
    chip: int = Field(128, ge=16, description="Side of a chip, in pixels.")
    blocks: Literal["all", "train"] = Field(
        "all",
        description="Which blocks of the split the chips come from: all (held-out ones without their labels), or train.",
    )
    min_clear: float = Field(0.5, ge=0, le=1, description="Smallest share of clear pixels in a chip.")
    sampling: SamplingSettings = Field(SamplingSettings(), description="Which chips are seen more often than others.")
    pool: list[PoolSettings] = Field(
        default_factory=list,
        description="Other collections to train on as well: of the same bands and units, normalised alike; or, with "
        "embedding: wavelengths, of other sensors, each normalised by its own statistics. Each batch is of one of "
        "them, or, with beside, of pairs of two.",
    )
    bad_chunks: int = Field(
        10, ge=0, description="How many damaged chunks of a cube are reported and passed over before it stops."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of AdamW.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="What is saved is a running mean of the encoder's weights, of which each step keeps this share, "
        "such as 0.999, in its first steps less; null: the last weights.",
    )
    precision: Literal["auto", "32", "bf16"] = Field(
        "auto", description="Arithmetic: bf16 where the device is faster with it (auto), or always the one named."
    )
    compile: bool = Field(
        False, description="Compile the method by torch.compile: a minute at the start, then faster steps on a GPU."
    )
    deterministic: bool = Field(
        False, description="On a GPU, the same bits in every run, at some cost of speed; on a CPU it is so anyway."
    )
    launch: LaunchSettings = Field(
        LaunchSettings(),
        description="Where it runs: in this process (null), or by one of torchrun, Slurm and Kubernetes.",
    )
    checkpoints: str | None = Field(
        None,
        description="Bucket that checkpoints are copied to while it trains, such as s3://bucket/prefix, for a machine "
        "whose disk goes with it; the same training elsewhere goes on from there. null: they stay in the store.",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of the training; by default torch decides.")
    seed: int = Field(0, ge=0, description="Seed of weights, views and masks.")

    @field_validator("checkpoints")
    @classmethod
    def _is_a_bucket(cls, uri: str | None) -> str | None:
        if uri is not None and urlsplit(uri).scheme not in BUCKETS:
            raise ValueError(f"{uri!r} is no bucket: write {', '.join(f'{name}://…' for name in BUCKETS)}")
        return uri

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"batch_size: {self.batch_size} makes no {self.accumulate} equal parts of two chips or more (accumulate)"
            )
        paired = [number for number, other in enumerate(self.pool) if other.beside is not None]
        if paired and not isinstance(self.method, PairSettings):
            raise ValueError(
                f"pool[{paired[0]}].beside: method {self.method.name} does not compare two views of a place; choose "
                "simclr, dense, mocov2, mocov3, lejepa or dino, or leave beside out"
            )
        return self
