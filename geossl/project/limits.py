"""What is kept for how long, and when a person is told."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class KeepSettings(BaseModel):
    """What `geossl maintain` leaves of that which nothing needs any more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    snapshots: float = Field(
        30,
        ge=7,
        description="days that a snapshot of the cube stays after another one took its place; those that "
        "an encoder, model, map, sample or release rests on stay as long as these",
    )
    models: int = Field(
        3, ge=0, description="newest models of each task that stay beside champion, previous, anchor and challenger"
    )
    quicklooks: int = Field(2000, ge=0, description="newest pictures of scenes that stay; the scenes all do")


class NotifySettings(BaseModel):
    """When `geossl status --check` objects, and a message goes to the addresses in GEOSSL_NOTIFY."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    silence: float | None = Field(14, gt=0, description="days without a new scene in the cube; null: never mind")
    stuck: float = Field(
        24, gt=0, description="hours without progress of a training that has begun, or of maps that are behind"
    )
    full: float = Field(14, gt=0, description="days until the store's disk is full, at the rate of the last weeks")
