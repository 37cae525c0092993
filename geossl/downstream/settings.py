"""What a user may say about learning from labels and about scoring. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FinetuneSettings(_Settings):
    """How a network is trained on labels."""

    steps: int = Field(300, gt=0, description="Most optimiser steps.")
    minutes: float | None = Field(None, gt=0, description="Stop after this wall-clock time (null: no limit).")
    batch_size: int = Field(16, gt=0, description="Windows a step.")
    window: Literal[64, 128, 256] = Field(64, description="Side of a training window in pixels.")
    windows: int = Field(
        512, gt=0, description="Most training windows kept in memory; those with rare classes come first."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of the head.")
    encoder_rate: float = Field(
        0.3, ge=0, description="The encoder's learning rate as a share of the head's; 0 keeps the encoder as it is."
    )
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    patience: int = Field(5, gt=0, description="Stop after this many validations (25 steps each) without a new best.")


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


class ChangeSettings(_Settings):
    """How a two-date change model is learnt."""

    labels: int | None = Field(
        None,
        gt=1,
        description="Learn from this many labelled pixels, half of them changed where there are as many, and "
        "validate on half as many (null: from all).",
    )
    seed: int = Field(0, ge=0, description="Draws the labelled pixels, initial weights and order of windows.")
    finetune: FinetuneSettings = Field(default_factory=FinetuneSettings)


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
