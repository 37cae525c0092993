"""Is there anything new? Decided without a pixel, and as ingest would."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio

from geossl.cube.repository import Cube
from geossl.errors import GeosslError
from geossl.imagery.raster import open_raster
from geossl.imagery.scene import Scene
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import ingest, watch

PROFILE: dict[str, Any] = {
    "driver": "GTiff", "width": 256, "height": 256, "count": 2, "dtype": "int16", "nodata": -32768,
    "crs": "EPSG:32622", "transform": rasterio.transform.from_origin(600000, 9000000, 10, 10),
}  # fmt: skip

PROJECT = """\
name: landing
grid: { tile: 256 }
ingest: { reserve: 0 }
sensor: { name: sentinel-2-l2a, bands: [B04, B08] }
sources:
  - { kind: folder, path: landing, pattern: "{date}.tif", scene: s }
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    # in this process: starting workers takes a second, and what they do is tested elsewhere
    monkeypatch.setattr(ingest, "dask_client", lambda _: contextlib.nullcontext(None))
    (tmp_path / "geossl.yaml").write_text(PROJECT)
    (tmp_path / "landing").mkdir()
    return Project.load(tmp_path)


def arrive(project: Project, day: int, value: int = 1000, file: str | None = None) -> Path:
    path = project.root / "landing" / (file or f"202401{day:02}.tif")
    with rasterio.open(path, "w", **PROFILE) as out:
        out.write(np.full((2, 256, 256), value, np.int16))
    return path


def look(project: Project) -> watch.News:
    return watch.look(project, silent)


def test_a_landing_folder_from_empty_to_full(project: Project) -> None:
    assert not look(project)
    assert watch.run(project, silent).skipped
    arrive(project, 1)
    news = look(project)
    assert (news.new, news.changed) == (["s-20240101"], [])
    ingest.run(project, silent)
    assert not look(project)
    later = arrive(project, 2)
    result = watch.run(project, silent)
    assert not result.skipped
    assert result.lines == ["1 new: s-20240102"]
    ingest.run(project, silent)

    # the same numbers written again are no news, others are; also where the file says that it is as old as ever
    arrive(project, 2)
    assert not look(project)
    times = later.stat()
    arrive(project, 2, value=1001)
    os.utime(later, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert look(project).changed == ["s-20240102"]
    ingest.run(project, silent)
    assert not look(project)
    # what was ingested may go; ingest then has nothing to do either
    for path in later.parent.iterdir():
        path.unlink()
    assert not look(project)
    assert len(project.scenes().scene_ids(project.scenes().tile_ids[0])) == 2
    ingest.run(project, silent)
    assert not look(project)


def test_what_was_set_aside_is_news_again_when_its_file_changes(project: Project) -> None:
    arrive(project, 1)
    broken = arrive(project, 2)
    broken.write_bytes(broken.read_bytes()[:3000])
    wrong = project.root / "landing" / "20240103.tif"
    wrong.write_text("<html>404</html>")
    assert sorted(look(project).new) == ["s-20240101", "s-20240102"]
    assert len(look(project).unusable) == 1
    assert ingest.run(project, silent).set_aside == 2
    assert not look(project)
    (project.store / watch.NOTE).unlink()
    news = look(project)
    assert (news.count, news.settings) == (0, True), "without the note all is compared with ledger and quarantine"
    ingest.run(project, silent)
    assert not look(project)
    arrive(project, 2)
    assert look(project).new == ["s-20240102"]
    wrong.write_text("<html>503</html>")
    assert look(project).count == 1, "it would be set aside for the reason that is known already"


def test_where_every_scene_is_set_aside_ingest_says_so(project: Project) -> None:
    broken = arrive(project, 1)
    broken.write_bytes(broken.read_bytes()[:3000])
    for _ in range(2):
        assert ingest.run(project, silent).set_aside == 1
        assert not look(project)
    arrive(project, 1)
    assert look(project).new == ["s-20240101"]


def test_only_what_changed_is_opened(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 6):
        arrive(project, day)
    ingest.run(project, silent)
    opened: list[str] = []

    def counted(href: str, *args: Any, **kwargs: Any) -> Any:
        opened.append(Path(href).name)
        return open_raster(href, *args, **kwargs)

    monkeypatch.setattr("geossl.imagery.folder.open_raster", counted)
    assert not look(project)
    assert opened == []
    arrive(project, 6)
    assert look(project).count == 1
    assert set(opened) == {"20240106.tif"}


def test_other_settings_and_a_cube_that_lost_scenes_are_news(project: Project) -> None:
    arrive(project, 1)
    ingest.run(project, silent)
    before = project.cube().snapshot()
    arrive(project, 2)
    ingest.run(project, silent)
    assert not look(project)
    elsewhere = Project.load(project.root, ["ingest.resampling=nearest"])
    assert look(elsewhere).settings
    assert "project file" in watch.run(elsewhere, silent).lines[0]
    Cube.open(project.cube_uri).go_back(before)
    assert look(project).new == ["s-20240102"], "the note knows a scene that the cube does not hold"
    shutil.rmtree(project.store / "cube")
    assert look(project).new == ["s-20240101", "s-20240102"]


def test_a_killed_ingest_leaves_as_news_what_it_did_not_commit(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(1, 4):
        arrive(project, day)
    one_by_one = Project.load(project.root, ["ingest.wave=1"])
    real, calls = Cube.transact, iter(range(9))

    def dies(self: Cube, work: Any, **options: Any) -> str:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(self, work, **options)

    monkeypatch.setattr(Cube, "transact", dies)
    with pytest.raises(KeyboardInterrupt):
        ingest.run(one_by_one, silent)
    monkeypatch.undo()
    assert look(one_by_one).new == ["s-20240103"]


def test_watching_goes_on_after_what_can_be_mended(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    naps = iter([None, None, KeyboardInterrupt])
    done: list[list[str]] = []

    def work(opened: Project) -> None:
        if not done:
            done.append([])
            raise GeosslError("the server does not answer", "try again")
        ingest.run(opened, silent)
        done.append(opened.scenes().scene_ids(opened.scenes().tile_ids[0]))

    def nap(_: float) -> None:
        if (end := next(naps)) is not None:
            raise end

    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=nap, monotonic=time.monotonic))  # not of other threads
    arrive(project, 1)
    with pytest.raises(KeyboardInterrupt):
        watch.keep_watching(lambda: Project.load(project.root), 5, work, told.append, silent)
    assert done == [[], ["s-20240101"]], "the third look found nothing to do"
    assert "the server does not answer" in "\n".join(told)


def test_items_of_a_catalogue_are_met_once(project: Project, tmp_path: Path) -> None:
    arrive(project, 1)
    by_folder = Project.load(project.root)
    [scene] = watch._candidates(by_folder, watch.Seen(), silent)
    assert isinstance(scene, Scene)

    def write(*scenes: Scene) -> None:
        features = [each.to_item().to_dict(include_self_link=False) for each in scenes]
        (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    write(scene)
    text = PROJECT[: PROJECT.index("sources")] + "sources:\n  - { kind: stac, href: items.json }\n"
    (tmp_path / "geossl.yaml").write_text(text)
    listed = Project.load(tmp_path)
    ingest.run(listed, silent)
    assert not look(listed)
    arrive(project, 1, value=7)
    assert look(listed).changed == [scene.id], "the file behind an item of this machine is another one"
    write(scene, dataclasses.replace(scene, id="another"))
    assert look(listed).new == ["another"]
