"""Settings of the map stage."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MapSettings(BaseModel):
    """How maps are predicted and published."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int | None = Field(
        default=None, gt=0, description="side in pixels of what the model sees at once; null: the model's own"
    )
    margin: int | None = Field(
        default=None,
        ge=0,
        description="pixels along a window's border that are not used, for lack of context; null: the model's own",
    )
    overlap: int | None = Field(
        default=None,
        ge=0,
        description="pixels over which neighbouring windows are blended; null: at least a tenth of what is used of a "
        "window, and such that windows are a multiple of 32 pixels apart, which suits networks that pool",
    )
    batch: int | None = Field(
        default=None, gt=0, description="windows predicted at once; null: as many as have half a million pixels"
    )
    flips: bool = Field(
        default=False,
        description="predict every window eight times, flipped and turned by quarters, and take the mean: eight times "
        "as long, often a little better",
    )
    minimum_ha: float = Field(
        default=0.5,
        ge=0,
        description="minimum mapping unit in hectares: of the polygons, where smaller patches join their neighbours, "
        "and of the raster of change maps, where they become no change",
    )
    simplify: float = Field(
        default=1.0,
        ge=0,
        description="corners of polygons smaller than this, in pixels, are cut, without gaps between neighbours; "
        "0: outlines follow the pixels",
    )
    keep: int = Field(default=3, gt=0, description="how many releases of a map stay on disk; older ones are deleted")
