"""A drawn sample: what it was drawn from and how (``sample.json``), and what an interpreter is given.

A sample's folder looks so::

    sample.json                       everything an estimate needs; not for interpreters
    interpret/points.gpkg, .qml       points with blank answers, and their form in QGIS
    interpret/chips/0001.png, …       what each place looked like, date by date
    interpret/index.html              the same as one page
    interpret/collect-earth-online.csv
    area.json, area.csv               what the answers say, once there are any

The map's class is in ``sample.json`` alone, and points are numbered in random order: an interpreter who knows what
the map says tends to agree with it, and then the map looks better than it is.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from geossl.areas.form import form
from geossl.areas.strata import Counts, Draw, Stratum
from geossl.errors import StoreError
from geossl.files import aside, read_json, write_json, write_text
from geossl.legend import Legend

FILE = "sample.json"
INTERPRET = "interpret"
POINTS = "points"
"""Layer of the points, and stem of their file."""

FORMAT = 1


@dataclass(frozen=True, slots=True)
class StratumRow:
    """One stratum as it was drawn from."""

    name: str
    code: int
    """Class code on the map."""
    buffer: bool
    units: int
    """Pixels."""
    area_ha: float
    """On the ground, whatever the projection."""
    points: int
    inclusion: float
    """Probability of each of its pixels to be drawn."""


@dataclass(frozen=True, slots=True)
class Point:
    """One drawn pixel."""

    plot: int
    """1 … n, in random order."""
    stratum: int
    """Position among the strata."""
    mapped: int
    """Class code on the map."""
    row: int
    col: int
    """Of the map."""
    x: float
    """Its middle, in the map's CRS."""
    y: float
    lon: float
    lat: float
    size: float
    """Area of the pixel as a share of its stratum's mean pixel."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as ``sample.json`` holds it."""

    id: str
    created: str
    """ISO 8601, UTC."""
    map: str
    """Name of the map, which is its task's."""
    release: str
    """Id of the map's release."""
    checksum: str
    """SHA-256 of the map's class raster."""
    snapshot: str
    """Of the cube, that the map was made from."""
    collection: str
    dates: tuple[str | None, ...]
    """The map's dates: one, or before and after."""
    crs: str
    resolution: float
    """Side of a pixel in CRS units."""
    unmapped: int
    """Pixels of the map's rectangle without a class, which nothing here speaks of."""
    distortion: float
    """Largest difference of a pixel's area on the ground from the mean, as a share."""
    legend: Legend
    design: Mapping[str, Any]
    """What was asked for: seed, error or size, minimum, rule, buffer, anticipated accuracies."""
    strata: tuple[StratumRow, ...]
    points: tuple[Point, ...]

    @property
    def area_ha(self) -> float:
        """Of all that was mapped."""
        return sum(stratum.area_ha for stratum in self.strata)

    def save(self, folder: Path) -> None:
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        rows = {name: [dataclasses.asdict(row) for row in content[name]] for name in ("strata", "points")}
        write_json(
            folder / FILE,
            {"format": FORMAT} | content | rows | {"legend": self.legend.to_dict(), "design": dict(self.design)},
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a sample's folder.

        Raises
        ------
        StoreError
            There is none, or it is damaged, or a newer geossl drew it.
        """
        data = read_json(folder / FILE)
        if data is None:
            raise StoreError(f"there is no sample at {folder}", "draw one with `geossl sample MAP`")
        if data.get("format") != FORMAT:
            raise StoreError(f"{folder / FILE} has format {data.get('format')!r}, not {FORMAT}", "update geossl")
        try:
            values = {field.name: data[field.name] for field in dataclasses.fields(cls)}
            return cls(
                **values
                | {
                    "dates": tuple(data["dates"]),
                    "legend": Legend.from_dict(data["legend"]),
                    "strata": tuple(StratumRow(**row) for row in data["strata"]),
                    "points": tuple(Point(**row) for row in data["points"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"{folder / FILE} is damaged: {error!r}", "take it from a backup; draws repeat by seed"
            ) from error


def stratum_rows(strata: list[Stratum], counts: Counts, points: NDArray[np.int64]) -> tuple[StratumRow, ...]:
    """What each stratum holds and gives."""
    units, hectares = counts.units.sum(axis=0), counts.area / 1e4
    return tuple(
        StratumRow(s.name, s.code, s.buffer, int(n), float(ha), int(k), int(k) / int(n))
        for s, n, ha, k in zip(strata, units, hectares, points, strict=True)
    )


def number_points(
    draw: Draw, strata: tuple[StratumRow, ...], transform: Affine, crs: str, seed: int
) -> tuple[Point, ...]:
    """The drawn pixels in random order, so that no number tells a stratum."""
    # another stream than the draw's
    order = np.random.default_rng((seed, 1)).permutation(len(draw.row))
    x, y = transform.c + (draw.col + 0.5) * transform.a, transform.f + (draw.row + 0.5) * transform.e
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return tuple(
        Point(
            plot=plot,
            stratum=int(draw.stratum[i]),
            mapped=strata[draw.stratum[i]].code,
            row=int(draw.row[i]),
            col=int(draw.col[i]),
            x=float(x[i]),
            y=float(y[i]),
            lon=round(float(lon[i]), 8),
            lat=round(float(lat[i]), 8),
            size=float(draw.size[i]),
        )
        for plot, i in enumerate(order, start=1)
    )


def picture_name(plot: int) -> str:
    """Where a point's picture lies, from the interpreter's folder."""
    return f"chips/{plot:04d}.png"


def write_points(folder: Path, sample: Sample) -> Path:
    """Write what an interpreter answers: GeoPackage with form, and the CSV of Collect Earth Online.

    Collect Earth Online documents LON, LAT, PLOTID as the columns of a CSV with plot centres.
    """
    change = len(sample.dates) == 2
    blank = ["reference", "confidence", "comment", *(["before", "after"] if change else [])]
    columns: dict[str, Any] = {"plot": [point.plot for point in sample.points]}
    columns |= {name: np.full(len(sample.points), None, object) for name in blank}
    columns |= {
        "picture": [picture_name(point.plot) for point in sample.points],
        "lon": [point.lon for point in sample.points],
        "lat": [point.lat for point in sample.points],
    }
    geometry = shapely.points([(point.x, point.y) for point in sample.points])
    frame = gpd.GeoDataFrame(columns, geometry=geometry, crs=sample.crs)
    frame[blank] = frame[blank].astype("string")
    path = folder / f"{POINTS}.gpkg"
    with aside(path) as partial:
        pyogrio.write_dataframe(frame, partial, layer=POINTS, driver="GPKG")
    hints = {"reference": "what it is", "confidence": "how sure", "before": f"what it was on {sample.dates[0]}"}
    if change:
        hints["after"] = f"what it was on {sample.dates[1]}"
    write_text(folder / f"{POINTS}.qml", form(list(columns), sample.legend.names, hints))
    with aside(folder / "collect-earth-online.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["LON", "LAT", "PLOTID"])
        writer.writerows([point.lon, point.lat, point.plot] for point in sample.points)
    return path
