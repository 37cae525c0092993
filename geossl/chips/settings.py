"""Which chips a training sees how often: settings alone, so that the project file is checked without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class RegionSettings(BaseModel):
    """A place that is seen more or less often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    area: tuple[float, float, float, float] | Path = Field(
        description="West, south, east, north in degrees, or a vector file."
    )
    weight: float = Field(ge=0, description="How often a chip whose centre lies there is seen, relative to elsewhere.")


class SamplingSettings(BaseModel):
    """Which chips are seen more often than others. An epoch always has as many chips as there are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clear: float = Field(
        0.0, ge=0, description="Power of a chip's clear share by which it is seen; 0: all alike, 1: in proportion."
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How far rare kinds of ground, told apart by their bands' means and spreads, are evened out with "
        "common ones; 0: not at all, 1: each kind equally often (a chip at most four times as often as the average).",
    )
    regions: list[RegionSettings] = Field(
        default_factory=list, description="Places that are seen more or less often; where they overlap, both count."
    )


class CollectionSettings(BaseModel):
    """Where a collection lies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cube: str | None = Field(
        None,
        description="Where its cube lies (another project's store/cube, or s3://bucket/path); null: this project's.",
    )
    collection: str = Field(description="Name of the collection, such as sentinel-2-l2a.")


class BesideSettings(CollectionSettings):
    """The collection that gives the other view of each place; on the same grid."""

    days: float = Field(ge=0, description="Most days, of 24 hours, between the two views of a place.")


class PoolSettings(CollectionSettings):
    """Another collection to train on, or a pair of them."""

    weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Its share of the batches, where the project's own scenes have 1."
    )
    beside: BesideSettings | None = Field(
        None,
        description="For a method that compares two views of a place: the other view is a scene of this collection, "
        "on the same grid, of the same ground and few days before or after; be it of another sensor. null: both views are "
        "of this collection, as method.pairs says.",
    )
