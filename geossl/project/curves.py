"""How a training went, or goes, read from the record that it keeps."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from geossl.report.records import TrainingCurves

_SHOWN = {
    "loss": "loss",
    "std": "feature std",
    "rank": "effective rank",
    "uniformity": "uniformity",
    "alignment": "alignment",
}


def read_curves(folder: Path, name: str, verdict: str = "", *, most: int | None = None) -> TrainingCurves:
    """The history of a training; an empty cell is not a number.

    Parameters
    ----------
    folder:
        Of the encoder, finished or not; its ``history.csv`` may grow while it is read.
    most:
        Rows that are kept, evenly spread and with the last; None: all.
    """
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]  # the last may be half written
    if most is not None and len(rows) > most:
        rows = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))]
    shown = _SHOWN | {
        name: f"kNN accuracy, {name.removeprefix('knn_')}"
        for name in (rows[0] if rows else ())
        if name.startswith("knn_")
    }
    series = {
        title: np.array([float(row[name]) if row[name] else np.nan for row in rows]) for name, title in shown.items()
    }
    known = {title: values for title, values in series.items() if np.isfinite(values).any()}
    return TrainingCurves(name, np.array([int(row["step"]) for row in rows]), known, verdict)
