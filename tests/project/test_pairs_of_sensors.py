"""Sentinel-2 and Sentinel-1 of the same real ground, from files to an encoder that knows a place by either."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F

from geossl.augment import Normalize
from geossl.chips.pool import PoolLoader
from geossl.nets.embedding import Spectrum
from geossl.nets.weights import load_encoder
from geossl.progress import silent
from geossl.project import pool
from geossl.project.project import Project
from geossl.project.stages.run import stage

ZONE = "32635"  # of 19 patches in Finland and Lithuania
GRID = {"crs": f"EPSG:{ZONE}", "resolution": 10, "tile": 256}
PATTERN = "{scene}_{date:%Y%m%dT%H%M%S}.tif"


@pytest.fixture
def project(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two projects on one grid; that of Sentinel-2 trains on pairs with the other."""
    home = shared_data / "bigearthnet-v2-patches"
    if not home.is_dir():
        pytest.skip(f"no BigEarthNet patches at {home}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, sensor in enumerate(("s1", "s2")):
        (tmp_path / sensor / "landing").mkdir(parents=True)
        with (home / "index.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                name = (row["s1_name"], row["patch_id"])[number]
                if row["epsg"] == ZONE and (home / sensor / f"{name}.tif").is_file():
                    when, patch = re.search(r"_(\d{8}T\d{6})_", name), "-".join(name.rsplit("_", 3)[1:])
                    assert when is not None
                    shutil.copyfile(
                        home / sensor / f"{name}.tif", tmp_path / sensor / "landing" / f"{patch}_{when[1]}.tif"
                    )
    source: dict[str, Any] = {"kind": "folder", "path": "landing", "pattern": PATTERN}
    radar = {
        "name": "radar",
        "sensor": {"name": "sentinel-1-rtc"},
        "grid": GRID,
        "sources": [source | {"bands": ["VV", "VH"], "physical": True}],
    }
    optical = {
        "name": "optical",
        "sensor": {"name": "sentinel-2-l2a", "bands": ["B02", "B03", "B04", "B08"]},
        "grid": GRID,
        "sources": [source | {"bands": ["B02", "B03", "B04", "B08"]}],
        "pretrain": {
            "method": {"name": "simclr", "crop": 0.8},
            "encoder": {"name": "vit-tiny", "patch": 8, "embedding": "wavelengths"},
            "pool": [
                {
                    "collection": "sentinel-2-l2a",
                    "weight": 20,
                    "beside": {"cube": "../s1/store/cube", "collection": "sentinel-1-rtc", "days": 2},
                }
            ],
            "chip": 32,
            "batch_size": 32,
            "min_clear": 0.1,  # a patch covers a fifth of a stored chunk at most
            "epochs": 3,
            "precision": "32",
            "threads": 1,
        },
    }
    for folder, settings in (("s1", radar), ("s2", optical)):
        (tmp_path / folder / "geossl.yaml").write_text(yaml.safe_dump(settings))
        here = Project.load(tmp_path / folder)
        for verb in ("ingest", "stats"):
            assert stage(verb)(here, silent).set_aside == 0
    return Project.load(tmp_path / "s2")


@pytest.mark.slow
def test_a_place_is_found_by_the_other_sensor_after_a_short_training(project: Project) -> None:
    settings = project.settings.pretrain
    scenes = [member.scenes for member in pool.members(project)]
    loader = pool.loader(project, settings, scenes)
    assert isinstance(loader, PoolLoader)
    batch = loader.members[1].load(0, 0)
    gap = (batch["time"] - batch["beside"]["time"]).abs()
    assert 0 < gap.min() <= gap.max() <= 2 * 86_400
    images, spectra = [], []
    for of, part in ((scenes[1], batch), (scenes[2], batch["beside"])):
        assert of.statistics is not None
        images.append(Normalize.from_statistics(of.statistics)(part["image"], part["valid"]))
        spectra.append(Spectrum.of(of.sensor.bands))

    stage("pretrain")(project, silent)
    record = project.state.get("pretrain")
    assert record is not None
    encoder, _ = load_encoder(project.encoders / record.result["encoder"])
    with torch.inference_mode():
        ours, theirs = (
            F.normalize(encoder(image, spectrum).pooled, dim=1) for image, spectrum in zip(images, spectra, strict=True)
        )
    # the other sensor's chip of the same window is among the nearest: by chance its mean rank would be the middle
    similarity = ours @ theirs.T
    ranks = (similarity > similarity.diagonal().unsqueeze(1)).sum(dim=1).float()
    assert ranks.mean() < 0.25 * len(ranks)
