"""What a user may say about alerts."""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel, ConfigDict, Field

from geossl.cube.settings import LabelSettings


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ForestSettings(_Settings):
    """Which classes of a land-cover task are forest."""

    task: str = Field(description="name of a land-cover task; its champion maps the cover before `since`")
    classes: tuple[str, ...] = Field(("forest",), min_length=1, description="its classes that are forest")


class AlertSettings(_Settings):
    """Alerts of cleared forest, brought up to date by every new scene."""

    since: dt.date = Field(description="alerts count from this day on; what was no forest before is not watched")
    forest: ForestSettings | None = Field(
        None, description="what was forest before; null: what stayed green in the images before, found without labels"
    )
    expire_days: int = Field(
        180, gt=0, description="an alert that is not confirmed within this many days is withdrawn by the next look"
    )
    minimum_ha: float = Field(0.1, ge=0, description="smaller patches are no alerts yet; RADD's is 0.1")
    reference: LabelSettings | None = Field(
        None, description="dated clearings that `geossl alerts --score` judges by; they teach nothing"
    )
