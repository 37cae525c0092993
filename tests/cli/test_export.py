"""`geossl export encoder` as a person meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geossl.bands import Statistics, sensor
from geossl.cli.app import app
from geossl.errors import StoreError
from geossl.nets.card import Card
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.nets.weights import save_encoder
from geossl.project.project import Project
from geossl.project.stages.init import init_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    init_project(tmp_path, Path("imagery"))
    return Project.load(tmp_path)


def made(project: Project, seed: int) -> str:
    """An encoder in the project's store; its id."""
    torch.manual_seed(seed)
    settings, of = EncoderSettings(name="resnet18"), sensor("sentinel-2-l2a").subset(("B02", "B08"))
    card = Card(settings, of, Statistics((9,) * 2, *[(1.0,) * 2] * 6), method="simclr")
    card = save_encoder(project.encoders / "new", build_encoder(settings, of.bands), card)
    (project.encoders / "new").rename(project.encoders / card.id)
    return card.id


def test_the_newest_or_a_named_one_is_written(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = ["export", "encoder", "--to", "timm", "--out", str(tmp_path / "out"), "-p", str(project.root)]
    with pytest.raises(StoreError, match="has no encoder yet"):
        app(verb, result_action="return_value")
    older, newer = made(project, 0), made(project, 1)
    with project.state.recording("pretrain", "key") as result:
        result["encoder"] = newer
    for wanted, arguments in ((newer, []), (older, [older])):
        assert app([*verb, *arguments], result_action="return_value") == 0
        printed = capsys.readouterr().out
        assert wanted in printed
        assert f'timm.create_model("local-dir:{tmp_path / "out"}", pretrained=True)' in printed
        assert wanted in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(StoreError, match=rf"no encoder 'simclr-x'(.|\n)*{older}"):
        app([*verb, "simclr-x"], result_action="return_value")
