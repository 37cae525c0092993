"""What a report shows, as plain values and arrays; every section may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.legend import Legend
from geossl.scores import Verdict

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB, as :func:`geossl.report.pictures.quicklook` makes it."""

Outline = Sequence[tuple[float, float]]
"""A ring of (column, row) points in pixels of the picture it is drawn on."""


Ring = Sequence[tuple[float, float]]
"""A closed line of (longitude, latitude) in degrees."""


@dataclass(frozen=True)
class FootprintMap:
    """Where the imagery lies."""

    scenes: Sequence[Ring]
    """Outlines of all scenes; darker where many overlap."""
    tiles: Sequence[Ring]
    area: Sequence[Ring] = ()
    """The area that the project asks for; empty: wherever there is imagery."""


@dataclass(frozen=True)
class Comparison:
    """How much better one model is than another on the same blocks; the fields of a difference row."""

    task: str
    split: str
    labels: int
    """How many labels both models saw."""
    model: str
    against: str
    metric: str
    """Higher is better."""
    mean: float
    """``model`` minus ``against``."""
    low: float | None
    high: float | None
    """Bounds of the 95 % interval of the difference; None where there are too few blocks for one."""
    verdict: Verdict


@dataclass(frozen=True)
class Score:
    """One score; the fields of a score row (:func:`geossl.scores.score_row`) and whether it is a floor's."""

    task: str
    split: str
    labels: int
    """How many labels the model saw."""
    model: str
    metric: str
    mean: float
    low: float | None = None
    high: float | None = None
    floor: bool = False
    """A floor that any useful model must beat."""


@dataclass(frozen=True)
class ScenePicture:
    """One scene of the collection."""

    id: str
    time: datetime
    clear_fraction: float
    """0 … 1 of the area of interest."""
    picture: Picture


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture and what it shows."""

    title: str
    picture: Picture
    caption: str = ""


@dataclass(frozen=True)
class CloudMask:
    """One scene with the pixels that were left out."""

    scene: str
    picture: Picture
    layers: Mapping[str, NDArray[np.bool_]]
    """What each mask (H, W) marks: ``cloud``, ``shadow``, …"""


@dataclass(frozen=True)
class TrainingCurves:
    """How one training went."""

    name: str
    step: NDArray[Any]
    series: Mapping[str, NDArray[np.floating]]
    """Values at each step: ``loss``, ``feature std``, ``effective rank``, ``alignment``, …; one panel each."""
    verdict: str = ""
    """What the health monitor concluded."""


@dataclass(frozen=True)
class ShownChip:
    """A chip, and a view of it as the encoder is shown it."""

    chip: Picture
    view: Picture


@dataclass(frozen=True)
class Neighbours:
    """A chip and those that the encoder finds most similar to it, nearest first."""

    query: Picture
    matches: Sequence[Picture]
    similarity: Sequence[float] = ()


@dataclass(frozen=True)
class Confusion:
    """Pixels of the held-out blocks: rows are the truth, columns the prediction."""

    task: str
    model: str
    names: Sequence[str]
    matrix: NDArray[np.integer]
    """(K, K)."""
    classes: Sequence[Mapping[str, Any]] = ()
    """Of each class in that order: f1 and iou, each with mean, low and high, or None where not defined."""
    reliability: Sequence[Sequence[float]] = ()
    """Of each step of confidence: pixels, summed confidence, pixels that are right."""


@dataclass(frozen=True)
class ClassMap:
    """A class map with its legend."""

    title: str
    codes: NDArray[np.uint8]
    """(H, W) codes of the legend."""
    legend: Legend
    pixel_area: float | None = None
    """Square metres per pixel of ``codes``; with it, hectares are shown for every class."""
    caption: str = ""
    before: Picture | None = None
    """The same ground as imagery, (H, W, 3): a slider leads from it to the map."""
    names: tuple[str, str] = ("imagery", "map")
    """What the two sides of the slider show."""
    ground: Picture | None = None
    """Shown in place of the legend's first class, where that says that there is nothing to see."""


@dataclass(frozen=True)
class AreaTable:
    """What people saw at points drawn from a map: areas and accuracies with their 95 % intervals, as text."""

    title: str
    rows: Sequence[tuple[str, ...]]
    """Class, hectares of counted pixels, area, user's accuracy, producer's accuracy."""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class AlertSheet:
    """The newest alerts of one monitor."""

    title: str
    notes: Sequence[str]
    """How many there are, and where they can be judged."""
    rows: Sequence[tuple[str, ...]]
    """Of the newest alerts: first detection, status, hectares, longitude and latitude, id."""
    map: ClassMap
    """Where they are; small ones are drawn larger than they are."""


@dataclass(frozen=True)
class ChangeExample:
    """One place before and after, with outlines of what was found and what is true."""

    title: str
    before: Picture
    after: Picture
    before_date: date
    after_date: date
    found: Sequence[Outline] = ()
    truth: Sequence[Outline] = ()


@dataclass(frozen=True)
class StageTime:
    """How long one stage took."""

    stage: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class SetAside:
    """A scene that was not used, and why."""

    source: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything that one report may show. An empty section says why in ``absent``, or is left out."""

    project: str
    region: str
    created: datetime
    snapshot: str = ""
    headline: Sequence[Comparison] = ()
    """Pretrained against not pretrained, everything else alike: what the verdict is made of."""
    comparisons: Sequence[Comparison] = ()
    """Differences from other models, shown below the verdict."""
    footprints: FootprintMap | None = None
    scenes: Sequence[ScenePicture] = ()
    composites: Sequence[CaptionedPicture] = ()
    labels: Sequence[CaptionedPicture] = ()
    clouds: CloudMask | None = None
    training: Sequence[TrainingCurves] = ()
    views: Sequence[ShownChip] = ()
    neighbours: Sequence[Neighbours] = ()
    scores: Sequence[Score] = ()
    confusions: Sequence[Confusion] = ()
    maps: Sequence[ClassMap] = ()
    alerts: Sequence[AlertSheet] = ()
    areas: Sequence[AreaTable] = ()
    changes: Sequence[ChangeExample] = ()
    times: Sequence[StageTime] = ()
    set_aside: Sequence[SetAside] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    """Name of a field above → why it is empty."""
