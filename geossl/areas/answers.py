"""What interpreters answered, and whether it can be the reference of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyogrio
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from geossl.areas.sample import POINTS, Sample
from geossl.errors import LabelError
from geossl.legend import NO_LABEL

PLOTS = ("plot", "pl_plotid", "plotid")
"""Columns that may hold a point's number, in any case; the latter two are Collect Earth Online's."""

WHY_NOT = (
    "a reference is what people saw at points that were drawn at random with known probabilities: training labels "
    "were chosen and taught the model, held-out blocks hold only such labels, and counted pixels repeat the map's errors"
)


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to a sample's points; arrays are (n,) in the order of its points."""

    reference: NDArray[np.uint8]
    """Position of the class, NO_LABEL where there is no answer."""
    confidence: list[str | None]
    """What the interpreter said of it; None: nothing."""

    @property
    def given(self) -> NDArray[np.bool_]:
        return self.reference != NO_LABEL


def read_answers(path: Path, sample: Sample, column: str = "reference") -> Answers:
    """Read interpreted points: the sample's own GeoPackage, or a table with its plots' numbers.

    Parameters
    ----------
    column:
        Where the class's name is; of Collect Earth Online, the text of the question.

    Raises
    ------
    LabelError
        It is no answer to this sample: a raster, labels, other points, points that were moved, classes that the
        legend does not have.
    """
    frame = _read(path)
    names = {str(name).lower(): name for name in frame.columns}
    key = next((names[name] for name in PLOTS if name in names), None)
    if key is None:
        raise LabelError(
            f"{path} has no column {PLOTS[0]!r}, so it holds no answers to the sample {sample.id}: {WHY_NOT}",
            "interpret the sample's own points",
        )
    if column not in frame.columns:
        raise LabelError(
            f"{path} has no column {column!r}", f"name one by --column: {', '.join(map(str, frame.columns))}"
        )
    plots = pd.to_numeric(frame[key], errors="coerce")
    numbers = np.array([point.plot for point in sample.points])
    if plots.isna().any() or not plots.isin(numbers).all():
        strange = frame.loc[~plots.isin(numbers), key].unique()[:5]
        raise LabelError(
            f"{path} has plots that the sample {sample.id} has not: {_list(strange)}", "is it another sample's?"
        )
    if plots.duplicated().any():
        twice = plots[plots.duplicated()].astype(int).unique()[:5]
        raise LabelError(f"{path} answers a plot twice: {_list(twice)}", "keep one answer of each")
    frame = frame.set_index(plots.astype(int))
    _require_place(path, frame, sample)
    rows = frame.reindex(numbers)
    confidence = rows["confidence"] if "confidence" in rows.columns else pd.Series(None, index=rows.index, dtype=object)
    return Answers(
        _classes(path, rows[column], sample), [None if pd.isna(value) else str(value) for value in confidence]
    )


def _read(path: Path) -> pd.DataFrame:
    if path.suffix.lower() in (".tif", ".tiff", ".vrt", ".jp2", ".img"):
        raise LabelError(f"{path} is a raster, which is no reference: {WHY_NOT}", "interpret the sample's points")
    try:
        if path.suffix.lower() == ".csv":
            return pd.read_csv(path)
        layers = [str(layer) for layer, _ in pyogrio.list_layers(path)]
        return pyogrio.read_dataframe(path, layer=POINTS if POINTS in layers else layers[0])
    except FileNotFoundError:
        raise LabelError(f"there is no file {path}", "name the interpreted points by --reference") from None
    except (OSError, ValueError, IndexError, DataSourceError) as error:
        raise LabelError(
            f"answers cannot be read from {path}: {error}", "GeoPackage, GeoJSON, shapefile or CSV"
        ) from error


def _require_place(path: Path, frame: pd.DataFrame, sample: Sample) -> None:
    """Refuse points that lie elsewhere than they were drawn, by more than half a pixel."""
    points = {point.plot: point for point in sample.points}
    geometry = getattr(frame, "geometry", None) if "geometry" in frame.columns else None
    if geometry is not None and geometry.crs is not None:
        there = geometry.to_crs(sample.crs)
        if not (there.geom_type == "Point").all():
            raise LabelError(f"{path} holds other shapes than points: {WHY_NOT}", "interpret the sample's own points")
        away = {
            plot: float(np.hypot(x - points[plot].x, y - points[plot].y))
            for plot, x, y in zip(frame.index, there.x, there.y, strict=True)
        }
        limit, unit = 0.5 * sample.resolution, "m"
    elif {"lon", "lat"} <= set(frame.columns):
        away = {
            plot: float(np.hypot(lon - points[plot].lon, lat - points[plot].lat))
            for plot, lon, lat in zip(frame.index, frame["lon"], frame["lat"], strict=True)
        }
        # a metre is no less than this in degrees of latitude, nor of longitude
        limit, unit = 1e-5 * sample.resolution, "degrees"
    else:
        return
    if moved := [plot for plot, distance in away.items() if not distance <= limit]:
        raise LabelError(
            f"{path}: {len(moved)} point(s) do not lie where they were drawn: {_list(moved[:5])}, "
            f"the farthest by {max(away.values()):g} {unit}",
            "answers belong to the place that was drawn; undo the move",
        )


def _classes(path: Path, values: pd.Series[Any], sample: Sample) -> NDArray[np.uint8]:
    """(n,) positions of the classes that are named."""
    table = {name.strip().lower(): position for position, name in enumerate(sample.legend.names)}
    text = [None if pd.isna(value) or not str(value).strip() else str(value).strip() for value in values]
    if unknown := sorted({value for value in text if value is not None and value.lower() not in table}):
        raise LabelError(
            f"{path}: the legend has no class {', '.join(map(repr, unknown[:5]))}",
            f"its classes are {', '.join(sample.legend.names)}; leave open what cannot be told",
        )
    return np.array([NO_LABEL if value is None else table[value.lower()] for value in text], np.uint8)


def _list(values: Sequence[Any] | NDArray[Any]) -> str:
    return ", ".join(map(str, values))
