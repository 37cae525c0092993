"""From answers to publishable figures: areas and accuracies with intervals, and what limits them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.areas.answers import Answers
from geossl.areas.estimators import Figure, StratifiedSample, estimate
from geossl.areas.sample import Sample
from geossl.errors import LabelError
from geossl.legend import NO_LABEL

FEW = 5
"""Under so many points of a class that the map missed, the interval of its area is not to be relied on."""


def assess(sample: Sample, answers: Answers, mapped: NDArray[np.uint8], *, same_map: bool) -> dict[str, Any]:
    """Areas of the legend's classes and accuracies of a map, JSON-ready.

    Points without an answer are taken to be like those of their stratum that have one; what the areas could be at
    worst, were that wrong, stands beside.

    Parameters
    ----------
    mapped:
        (n,) class position that the assessed map has at every point; NO_LABEL where it has none.
    same_map:
        Whether the assessed map is the one that the sample was drawn from.

    Raises
    ------
    LabelError
        A stratum has fewer than two answers.
    """
    stratum = np.array([point.stratum for point in sample.points])
    size = np.array([point.size for point in sample.points])
    area = np.array([row.area_ha for row in sample.strata])
    units = np.array([row.units for row in sample.strata])
    given, k = answers.given, len(sample.legend)
    if not given.any():
        raise LabelError("no point was answered yet", "fill in the field `reference` of the sample's points")
    rows = _responses(sample, stratum, given)
    known = StratifiedSample(stratum[given], area, units=units, size=size[given])
    found = estimate(known, mapped[given], answers.reference[given], k)
    every = StratifiedSample(stratum, area, units=units, size=size)
    is_class, open_ = answers.reference[:, None] == np.arange(k), ~given[:, None]
    lowest, highest = every.total(is_class).value, every.total(is_class | open_).value
    of_map = [sum(row.area_ha for row in sample.strata if row.code == code) for code in sample.legend.codes]
    classes = [
        {
            "class": name,
            "mapped_ha": of_map[i] if same_map else None,
            "points": int(is_class[:, i].sum()),
            "area_ha": _row(found.area, i),
            "users": _row(found.users, i),
            "producers": _row(found.producers, i),
            "area_ha_whatever_the_open_points_are": [float(lowest[i]), float(highest[i])],
        }
        for i, name in enumerate(sample.legend.names)
    ]
    return {
        "classes": classes,
        "overall": _row(found.overall),
        "matrix": found.matrix.tolist(),
        "area_ha": sample.area_ha,
        "points": len(given),
        "answered": int(given.sum()),
        "response": float(given.mean()),
        "strata": rows,
        "unmapped_points": int((mapped == NO_LABEL).sum()),
        "notes": list(_notes(sample, answers, mapped, classes)),
    }


def _responses(sample: Sample, stratum: NDArray[np.int64], given: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """What each stratum's points gave."""
    rows = []
    for h, row in enumerate(sample.strata):
        drawn, answered = int((stratum == h).sum()), int(given[stratum == h].sum())
        if answered < min(2, row.units):
            raise LabelError(
                f"the stratum {row.name!r} has {answered} answer(s) to {drawn} points; without two there is no interval",
                "interpret more of its points" if drawn > answered else "draw a larger sample",
            )
        rows.append(
            {
                "stratum": row.name,
                "area_ha": row.area_ha,
                "points": drawn,
                "answered": answered,
                "inclusion": row.inclusion,
            }
        )
    return rows


def _notes(
    sample: Sample, answers: Answers, mapped: NDArray[np.uint8], classes: Sequence[dict[str, Any]]
) -> Sequence[str]:
    """What a reader of the figures should know."""
    notes, given = [], answers.given
    if not given.all():
        notes.append(
            f"{int((~given).sum())} of {len(given)} points have no answer; they are taken to be like the answered "
            "ones of their stratum"
        )
    unsure = sum(value == "low" for value, has in zip(answers.confidence, given, strict=True) if has)
    if unsure:
        notes.append(f"{unsure} answer(s) were given with low confidence, and count like the others")
    if none := int((mapped == NO_LABEL).sum()):
        notes.append(f"the assessed map has no class at {none} point(s): areas count them, accuracies do not")
    for position, entry in enumerate(classes):
        missed = int((given & (answers.reference == position) & (mapped != position)).sum())
        if entry["points"] and 0 < missed < FEW:
            notes.append(
                f"only {missed} point(s) of {entry['class']!r} were found where the map has another class; so few say "
                "little about how much is missed, and its interval may be too narrow"
            )
        if not entry["points"]:
            notes.append(f"no point was found to be {entry['class']!r}: its area is below what this sample can see")
    if sample.unmapped:
        notes.append(f"{sample.unmapped} pixels of the map's rectangle have no class; no figure speaks of them")
    return notes


def _row(figure: Figure, at: int | tuple[()] = ()) -> dict[str, float | None]:
    """Value, standard error and the ends of the 95 % interval; null where the sample says nothing."""
    low, high = figure.interval()
    values = {"value": figure.value, "error": figure.error, "low": low, "high": high}
    return {key: float(value[at]) if np.isfinite(value[at]) else None for key, value in values.items()}
