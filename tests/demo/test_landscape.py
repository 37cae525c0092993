from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import geopandas
import pytest
from pydantic import ValidationError

from geossl.demo.landscape import LandscapeInfo, LandscapeSettings, landscape_geobox, write_landscape
from geossl.demo.world import build_world
from geossl.errors import StoreError
from geossl.grid import Grid


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".tif", ".json"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_seed_decides_everything(landscape: LandscapeInfo, settings: LandscapeSettings, tmp_path: Path) -> None:
    # Fewer days: a scene depends on its own day only.
    fewer = settings.model_copy(update={"dates": settings.dates[1:2]})
    again = write_landscape(tmp_path, fewer)
    ours, theirs = _digests(landscape.folder), _digests(tmp_path)
    assert len(theirs) == 13
    assert theirs.items() <= ours.items()
    for kind in ("landcover", "clearings"):
        first, second = (geopandas.read_file(getattr(info, kind)) for info in (landscape, again))
        assert first.equals(second)
    other = build_world(settings.size, settings.seed + 1)
    assert (other.cover != build_world(settings.size, settings.seed).cover).mean() > 0.3


def test_writing_again_writes_only_what_is_missing(landscape: LandscapeInfo, settings: LandscapeSettings) -> None:
    before = {p: p.stat().st_mtime_ns for p in landscape.folder.rglob("*") if p.is_file()}
    digests = _digests(landscape.folder)
    assert write_landscape(landscape.folder, settings) == landscape
    assert before == {p: p.stat().st_mtime_ns for p in landscape.folder.rglob("*") if p.is_file()}
    # A scene whose Item is missing was interrupted.
    landscape.scenes[2].unlink()
    events: list[tuple[str, int, int | None]] = []
    write_landscape(landscape.folder, settings, lambda *event: events.append(event))
    assert _digests(landscape.folder) == digests
    assert [done for _, done, _ in events] == list(range(len(events)))
    assert events[-1][1] == events[-1][2]
    touched = {p for p, at in before.items() if p.exists() and p.stat().st_mtime_ns != at}
    assert {p.parent for p in touched} == {landscape.scenes[2].parent}


def test_a_folder_holds_one_landscape(landscape: LandscapeInfo, settings: LandscapeSettings) -> None:
    with pytest.raises(StoreError, match="another generated landscape"):
        write_landscape(landscape.folder, settings.model_copy(update={"seed": 5}))


def test_days_outside_the_history_are_refused() -> None:
    with pytest.raises(ValidationError, match="2019-01-01"):
        LandscapeSettings(dates=(date(2019, 1, 1),))


def test_the_square_lies_on_the_default_grid() -> None:
    settings = LandscapeSettings()
    assert 10 <= len(settings.dates) <= 12
    grid = Grid("EPSG:32722", 10.0)
    box = landscape_geobox(settings)
    assert grid.is_aligned(box)
    covered = list(grid.tiles(box.extent.buffer(-5)))
    assert [tile.geobox for tile in covered] == [box]
