"""Every bad input is set aside with a reason that says what it is; the good scene beside it is ingested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from geossl.imagery import raster, retry, web

from .bad_input_table import CASES, IMPATIENT, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for option, value in IMPATIENT.items():
        monkeypatch.setitem(raster.GDAL_OPTIONS, option, value)
    monkeypatch.setattr(retry, "PAUSE", 0.01)
    monkeypatch.setattr(web, "PAUSE", 0.01)
    monkeypatch.setattr(web, "TIMEOUT", 1)
    outcome = case.run(tmp_path)
    assert outcome.kept
    assert len(outcome.ingested) == 1
    ((_, reason),) = outcome.set_aside
    assert re.search(case.reason, reason), reason
    assert "\n" not in reason
