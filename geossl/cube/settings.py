"""What a user may say about the cube. Imports nothing heavy: the project file is read by every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field

Value = int | str
"""What a label file writes for a class: a number or a word."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IngestSettings(_Settings):
    """How scenes become pixels of the cube."""

    resampling: Literal["nearest", "bilinear", "cubic", "average"] = Field(
        "bilinear", description="for scenes that do not already lie on the grid; quality masks are always nearest"
    )
    wave: int = Field(
        16, gt=0, description="scenes per commit: what an interrupted ingest loses at most, and does again"
    )
    reserve: ByteSize = Field(
        ByteSize(2 * 10**9),
        description="bytes of a local store's disk that stay free, such as 2GB: ingest stops before it touches them",
    )


class CompositeSettings(_Settings):
    """Cloud-free composites: one image from all clear observations of a period."""

    months: int = Field(12, gt=0, le=120, description="length of a period in months, counted from January of year 0")
    rule: Literal["median", "medoid", "best-pixel"] = Field(
        "median",
        description="median: of each band by itself; medoid: the real observation that is nearest to all others; "
        "best-pixel: the real observation nearest to the middle of the period and far from clouds",
    )


class ClassSettings(_Settings):
    """One class of a legend, and what the label file writes for it."""

    name: str
    code: int = Field(ge=0, le=254, description="number of the class in label layers and maps")
    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$", description="colour on maps, #rrggbb")
    values: tuple[Value, ...] = Field(
        (),
        description="values of the file that mean this class; empty: the class's name in vectors, its code in rasters",
    )


KnownLegend = Literal["nlcd", "worldcover", "corine"]
"""A public legend that ships in ``legends.toml``."""


class LabelSettings(_Settings):
    """Files that say what is on the ground: shapes or a raster, in any coordinate system."""

    path: Path | tuple[Path, ...] = Field(
        description="GeoPackage, GeoJSON, shapefile, GeoParquet or GeoTIFF, relative to the project file; several "
        "vector files, such as those that `geossl suggest` writes, count as one"
    )
    layer: str | None = Field(None, description="layer of a GeoPackage; null: its only one")
    column: str | None = Field(None, description="column of a vector file that names the class")
    classes: KnownLegend | tuple[ClassSettings, ...] | None = Field(
        None,
        description="the legend: a list of classes, or nlcd, worldcover, corine (of which it has the classes that the "
        "file holds); null: one class for each value of the file, by the names and colours of a raster that has any "
        "(of change labels: no change, clearing)",
    )
    ignore: tuple[Value, ...] = Field((), description="values of the file that mean no label")
    overlap: Literal["none", "later"] = Field(
        "none",
        description="ground that shapes of different classes claim gets none of them; or that of the later shape",
    )
    date_column: str | None = Field(
        None,
        description="column with a date. Change labels: of each clearing, and then no class column is needed; a bare "
        "year counts only where all of it lies between the task's two dates. Land cover: of each label",
    )
    days: int = Field(
        366, ge=0, description="land cover with a date column: labels dated farther from the task's date are not used"
    )
    year_offset: int | None = Field(
        None,
        description="change labels: the raster holds years of loss, n for the year year_offset + n, 0 for none "
        "(Hansen's lossyear: 2000; years written out: 0)",
    )
    area: Path | None = Field(
        None, description="with dates or years of change: polygons of the ground that was looked at; null: all tiles"
    )

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, in order."""
        return self.path if isinstance(self.path, tuple) else (self.path,)
