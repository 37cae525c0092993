"""A report with every section, and one with none."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest

from geossl.legend import CHANGE, LandClass, Legend
from geossl.maps.alerts.style import ALERTS
from geossl.report.records import (
    AlertSheet,
    AreaTable,
    CaptionedPicture,
    ChangeExample,
    ClassMap,
    CloudMask,
    Comparison,
    Confusion,
    FootprintMap,
    Neighbours,
    Picture,
    ReportData,
    ScenePicture,
    Score,
    SetAside,
    ShownChip,
    StageTime,
    TrainingCurves,
)

LEGEND = Legend((LandClass(3, "forest", "#1f6b3a"), LandClass(7, "water", "#2b6cb0")), title="two")
EVIL = "<script>alert('x')</script> & \"quotes\""


def picture(seed: int, side: int = 24) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def empty() -> ReportData:
    return ReportData("nothing yet", "nowhere", datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(scope="session")
def full() -> ReportData:
    """Every section; the names are hostile."""
    step = np.arange(100)
    codes = np.full((24, 24), 3, np.uint8)
    codes[:6] = 7
    codes[:, :4] = 255
    square = [(2.0, 2.0), (9.5, 2.0), (9.5, 8.0), (2.0, 8.0)]
    return ReportData(
        project=EVIL,
        region=EVIL,
        created=datetime(2026, 1, 2, tzinfo=UTC),
        snapshot="SNAP0",
        headline=[Comparison(EVIL, "blocks", 500, "pretrained", EVIL, "macro_f1", 0.05, 0.01, 0.09, "gain")],
        comparisons=[Comparison("t", "b", 20, "pretrained", "forest", "accuracy", 0.2, None, None, "too few blocks")],
        footprints=FootprintMap(
            [[(10.0, 50.0), (11.0, 50.0), (11.0, 50.5), (10.0, 50.5)]],
            [[(10.0, 50.0), (10.5, 50.0), (10.5, 50.4), (10.0, 50.4)]],
        ),
        scenes=[ScenePicture(EVIL, datetime(2025, 5, 6, tzinfo=UTC), 0.753, picture(0))],
        composites=[CaptionedPicture(EVIL, picture(1), EVIL)],
        labels=[CaptionedPicture(EVIL, picture(11), EVIL)],
        clouds=CloudMask(EVIL, picture(2), {EVIL: np.eye(24, dtype=bool), "shadow": np.zeros((24, 24), bool)}),
        training=[TrainingCurves(EVIL, step, {"loss": 1.0 / (1 + step), EVIL: np.sqrt(step)}, EVIL)],
        views=[ShownChip(picture(3), picture(4))],
        neighbours=[Neighbours(picture(6), [picture(7), picture(8)], (0.9, 0.8))],
        scores=[
            Score("lc", "blocks", 500, EVIL, "macro_f1", 0.7, 0.6, 0.8),
            Score("lc", "blocks", 500, "floor forest", "macro_f1", 0.75, None, None, floor=True),
            Score("lc", "blocks", 500, EVIL, "accuracy", 0.8123),
        ],
        confusions=[
            Confusion(
                EVIL,
                EVIL,
                ["a", EVIL],
                np.array([[8, 2], [0, 0]]),
                [
                    {"f1": {"mean": 0.5, "low": 0.4, "high": 0.6}, "iou": {"mean": 0.5, "low": None, "high": None}},
                    {"f1": None, "iou": None},
                ],
                [[0, 0, 0], [10, 9.0, 8]],
            )
        ],
        areas=[AreaTable(EVIL, [(EVIL, "1.0", "2.0 ha (1.0 … 3.0)", "0.9", "no point")], [EVIL])],
        maps=[
            ClassMap(EVIL, codes, LEGEND, 100.0, EVIL, before=picture(11), names=("imagery", EVIL)),
            ClassMap("Clearings", np.zeros((5, 5), np.uint8), CHANGE),
        ],
        alerts=[
            AlertSheet(
                EVIL,
                [EVIL],
                [("2025-05-06", EVIL, "1.5", "-51.2, -5.1", "x0y0")],
                ClassMap(EVIL, np.eye(24, dtype=np.uint8), ALERTS, before=picture(12), ground=picture(13)),
            )
        ],
        changes=[
            ChangeExample(EVIL, picture(9), picture(10), date(2024, 1, 1), date(2025, 1, 1), [square], [square, square])
        ],
        times=[StageTime(EVIL, 75.0, EVIL), StageTime("map", 0.25)],
        set_aside=[SetAside(EVIL, EVIL, EVIL)],
        versions={EVIL: EVIL},
    )
