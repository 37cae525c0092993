"""What a project says about its yearly releases. Imports nothing heavy."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReleaseSettings(BaseModel):
    """What a reporting year is, and what counts as cleared in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_month: int = Field(
        default=1,
        ge=1,
        le=12,
        description="month that a reporting year begins with; from 2 on, the year is named after the one it ends in "
        "(8: the year 2025 is August 2024 to July 2025, as PRODES has it)",
    )
    minimum_ha: float = Field(
        default=0.5, ge=0, description="smaller patches do not count as cleared; measured on the ground, corners touch"
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        description="classes of the map that are clearing; null: every class but the first, and without what a river "
        "took, where the map tells that",
    )
