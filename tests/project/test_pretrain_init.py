"""Where a project's pretraining starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from geossl.bands import Statistics
from geossl.errors import StoreError
from geossl.project.project import Project
from geossl.project.stages.init import init_project
from geossl.project.stages.pretrain import located, watch


def opened(folder: Path, *overrides: str) -> Project:
    init_project(folder, Path("imagery"), overwrite=True)
    return Project.load(folder, [f"pretrain.init.{text}" for text in overrides])


def test_without_init_or_with_public_weights_nothing_is_looked_up(tmp_path: Path) -> None:
    for overrides in ([], ["weights=ResNet18_Weights.SENTINEL2_ALL_MOCO"]):
        project = opened(tmp_path, *overrides)
        assert located(project, project.settings.pretrain) is project.settings.pretrain


def test_a_folder_starts_at_the_project_file(tmp_path: Path) -> None:
    project = opened(tmp_path, "encoder=other/encoder", "unmapped=zero")
    init = located(project, project.settings.pretrain).init
    assert init is not None
    assert (init.encoder, init.unmapped) == (tmp_path.resolve() / "other" / "encoder", "zero")


def test_the_champions_encoder_is_found_in_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geossl.mirror.Mirror.update", lambda *_: None)
    project = opened(tmp_path, "champion=landcover")
    with pytest.raises(StoreError, match=r"'landcover' has no champion(.|\n)*leave init out"):
        located(project, project.settings.pretrain)
    model = project.tasks / "landcover" / "model"
    model.mkdir(parents=True)
    project.registry.register("landcover", model, card={"id": "model", "encoder": "simclr-unet-small-01234567"})
    init = located(project, project.settings.pretrain).init
    assert init is not None
    assert (init.encoder, init.champion) == (project.encoders / "simclr-unet-small-01234567", None)


def test_labels_that_are_not_there_are_not_watched(tmp_path: Path) -> None:
    init_project(tmp_path, Path("imagery"), overwrite=True)
    task = ["kind=landcover", "labels.path=labels.tif"]
    project = Project.load(tmp_path, [f"tasks.cover.{text}" for text in task])
    numbers = Statistics((9,), (0.0,), (1.0,), *[(0.0,)] * 4)
    assert watch(project, numbers, size=64) == {}  # the task has none yet: nothing is read, nothing fails
