"""What tests of public sets share: an encoder that was "trained" on other imagery, and a project that it lies in."""

from __future__ import annotations

from pathlib import Path

import torch

from geossl.bands import Sensor, Statistics, sensor
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.nets.weights import save_encoder
from geossl.project.project import Project

BANDS = ("B8A", "B02", "B04", "B12")
OURS = sensor("sentinel-2-l2a").subset(BANDS)
CHOSEN = EncoderSettings(name="unet-tiny")


def trained(of: Sensor, mean: float = 1500.0, std: float = 600.0) -> tuple[Encoder, Card]:
    torch.manual_seed(1)
    many = len(of.bands)
    statistics = Statistics((9,) * many, (mean,) * many, (std,) * many, *[(0.0,) * many] * 4)
    return build_encoder(CHOSEN, of.bands).eval(), Card(CHOSEN, of, statistics, method="simclr", id="simclr-of-a-test")


def project_with_encoder(folder: Path, labels: int) -> Project:
    """A project whose newest encoder is :func:`trained`; heads learn once from so many labels."""
    (folder / "geossl.yaml").write_text(
        f"name: small\nsensor: {{ name: sentinel-2-l2a, bands: [{', '.join(BANDS)}] }}\n"
        f"sources: [{{ kind: folder, path: . }}]\nevaluate: {{ labels: [{labels}], draws: 1 }}\n"
    )
    project = Project.load(folder)
    encoder, card = trained(OURS)
    save_encoder(project.encoders / card.id, encoder, card)
    with project.state.recording("pretrain", "key") as result:
        result["encoder"] = card.id
    return project
