"""What an earlier release left is opened, or brought along by one command, and gone on with."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from geossl.cube import layout
from geossl.cube.check import check
from geossl.downstream.task import load_task
from geossl.maps.published import find_map
from geossl.mirror import Mirror
from geossl.nets.weights import load_encoder
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import cube, ingest, watch
from geossl.project.stages import map as map_stage
from geossl.project.stages.status import status

from .make import BANDS, DAYS, PROFILE, SIDE, classes, pixels, write_inputs

RELEASES = sorted(Path(__file__).parent.glob("*.tar.xz"))


@pytest.fixture(params=RELEASES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project as that release left it, brought along where its cube asks for it."""
    monkeypatch.setattr(Mirror, "update", lambda *_: None)
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    project = Project.load(tmp_path)
    cube.migrate(project, silent)
    return project


def test_there_is_one() -> None:
    assert RELEASES


def test_all_that_it_left_is_read(project: Project) -> None:
    view = project.cube().view()
    assert layout.format_version(view.root) == layout.FORMAT
    report = check(project.cube())
    assert report.damage == []
    scenes = project.scenes()
    [tile] = scenes.tile_ids
    assert scenes.scene_ids(tile) == [f"field-{day}" for day in DAYS]
    for step in range(len(DAYS)):
        np.testing.assert_array_equal(scenes.image(tile)[step], pixels(step))
    np.testing.assert_array_equal(view.labels("landcover").read(tile), classes())
    assert status(project).scenes == len(DAYS)

    encoder, card = load_encoder(project.encoder_folder())
    assert card.sensor.band_names == project.sensor.band_names
    with torch.inference_mode():
        assert encoder(torch.zeros(1, BANDS, 64, 64)).pooled.isfinite().all()

    registry = project.registry
    assert registry.aliases("landcover") == {"champion": 1, "anchor": 1, "challenger": 2}
    [decision] = registry.decisions("landcover")
    assert decision["decision"]["reasons"] == ["its labels were of another legend"]
    champion = registry.find("landcover", "champion")
    assert champion is not None
    task = load_task(project.store / champion.folder)

    published = find_map(project.maps, "landcover")
    assert published.model == task.id
    with rasterio.open(published.classes) as raster:
        told = raster.read(1)
    assert (told == classes()).mean() > 0.8, "the land is easy to tell"
    snapshots = {record.snapshot for record in published.records}
    assert all(project.cube().view(snapshot).collections() for snapshot in snapshots)


@pytest.mark.slow
def test_it_is_gone_on_with(project: Project) -> None:
    write_inputs(project.root)
    with rasterio.open(
        project.root / "imagery" / "20230901.tif", "w", count=BANDS, dtype="int16", nodata=-32768, **PROFILE
    ) as out:
        out.write(pixels(2))
    assert "field-20230901" in watch.look(project, silent).new
    ingest.run(project, silent)
    [tile] = project.scenes().tile_ids
    np.testing.assert_array_equal(project.scenes().image(tile)[len(DAYS)], pixels(2))
    assert not map_stage.run(project, silent).skipped
    with rasterio.open(find_map(project.maps, "landcover").classes) as raster:
        assert raster.shape == (SIDE, SIDE)
    folder = project.tasks / "landcover" / "later"
    folder.mkdir()
    assert project.registry.register("landcover", folder).number == 3
