"""Pretraining on several cubes, with some places seen more often."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import torch
import yaml
import zarr

from geossl.augment import Normalize
from geossl.bands import Sensor, Statistics, sensor
from geossl.chips.loader import ChipLoader
from geossl.chips.pool import PoolLoader
from geossl.cube import layout
from geossl.cube.collection import Collection
from geossl.cube.repository import Cube
from geossl.errors import RadiometryError, SettingsError, StoreError
from geossl.grid import Grid
from geossl.nets.embedding import Spectrum
from geossl.nets.encoder import Encoder
from geossl.nets.weights import load_encoder
from geossl.progress import silent
from geossl.project import pool
from geossl.project.project import Project
from geossl.project.stages import pretrain


@pytest.fixture
def folder(tiny_cube: Cube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project on a copy of the tiny cube, beside another one with such a cube."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for project in ("ours", "theirs"):
        shutil.copytree(tiny_cube.uri, tmp_path / project / "store" / "cube")
    return tmp_path / "ours"


def opened(folder: Path, bands: tuple[str, ...] = ("B02", "B03", "B04", "B08"), **changes: Any) -> Project:
    settings = {
        "encoder": {"name": "unet-tiny"},
        "chip": 64,
        "batch_size": 16,
        "epochs": 1,
        "threads": 1,
        "precision": "32",
    }
    content = {
        "name": "pooled",
        "sensor": {"name": "sentinel-2-l2a", "bands": list(bands)},
        "sources": [{"kind": "folder", "path": "imagery"}],
        "pretrain": settings | changes,
    }
    (folder / "geossl.yaml").write_text(yaml.safe_dump(content))
    return Project.load(folder)


def now(project: Project) -> list[Collection]:
    return [member.scenes for member in pool.members(project)]


def make(path: Path, of: Sensor, mean: float, std: float, grid: Grid, *, known: bool = True) -> Cube:
    """A cube of one tile of 512 pixels with one step of smooth fields, and its statistics where they are known."""
    cube, count = Cube.create(str(path)), len(of.bands)
    coarse = np.random.default_rng(1).normal(size=(count, 16, 16))
    image = (mean + std * coarse.repeat(32, 1).repeat(32, 2)).astype(of.radiometry.dtype)
    quality = np.zeros((512, 512), np.uint8)
    figures = image.mean((1, 2)), image.std((1, 2)), *[np.zeros(count)] * 4

    def fill(session: icechunk.Session) -> str:
        collection = layout.create_collection(zarr.open_group(session.store, mode="r+"), of.name, of, grid)
        tile = layout.create_tile(collection, grid[40, -200], of)
        step = layout.Step("one", np.datetime64("2024-04-01"), "sum", layout.chunk_fractions(quality == 0))
        layout.append_step(tile, step, image, quality)
        if known:
            layout.set_statistics(
                collection, Statistics((512**2,) * count, *(tuple(map(float, each)) for each in figures))
            )
        return "one tile"

    cube.transact(fill)
    return cube


LANDSAT = sensor("landsat-8-l2").subset(("blue", "green", "red", "nir08", "swir16", "swir22"))
RADAR = sensor("sentinel-1-rtc")
WAVES = {"name": "vit-tiny", "patch": 16, "embedding": "wavelengths"}
THEIRS = {"cube": "../theirs/store/cube", "collection": "sentinel-2-l2a", "weight": 3}


def test_an_encoder_is_pretrained_on_two_cubes_whose_snapshots_are_kept(folder: Path) -> None:
    project = opened(folder, pool=[THEIRS])
    first = pretrain.run(project, silent)
    record = project.state.get("pretrain")
    assert record is not None
    (alone,) = now(opened(folder))
    chips = pool.count(pool.loader(opened(folder), project.settings.pretrain, [alone]))
    assert record.result["chips"] == 2 * chips
    assert f"from {2 * chips:,} chips" in first.lines[0]
    tag = f"pretrain-{record.key}"
    # in another project's cube it says whose it is
    for name, kept in (("ours", tag), ("theirs", f"{pool.guest_prefix(project.settings.name)}{tag}")):
        tags = Cube.open(str(folder.parent / name / "store" / "cube")).tags()
        assert [other for other in tags if tag in other] == [kept]
    assert pretrain.run(project, silent).skipped
    loader = pool.loader(project, project.settings.pretrain, now(project))
    assert isinstance(loader, PoolLoader)
    shares = Counter(loader.order(0).tolist())
    assert shares[1] / shares[0] == pytest.approx(3, rel=0.1)


def test_regions_of_the_project_file_are_seen_as_often_as_they_weigh(folder: Path) -> None:
    (scenes,) = now(opened(folder))
    tile = scenes.tile(scenes.tile_ids[0])
    area = list(tile.extent.to_crs("EPSG:4326").boundingbox)
    project = opened(folder, sampling={"regions": [{"area": area, "weight": 0}], "diversity": 0.5})
    loader = pool.loader(project, project.settings.pretrain, [scenes])
    assert isinstance(loader, ChipLoader)
    rows = loader.order(0)
    assert (loader.index.tile[rows] != 0).mean() > 0.95  # the box in degrees is a little larger than the tile
    assert (loader.index.tile == 0).mean() == pytest.approx(0.5, abs=0.1)
    assert len(np.unique(rows)) < len(rows)


def test_damaged_chunks_are_borne_with_up_to_the_limit(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    chunks = folder / "store" / "cube" / "chunks"
    for path in sorted(chunks.rglob("*"), key=lambda path: path.stat().st_size)[-2:]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    pretrain.run(opened(folder, bad_chunks=2), silent)
    assert len([text for text in caplog.messages if "count as not seen" in text]) == 2
    shutil.rmtree(folder / "store" / "encoders")
    with pytest.raises(StoreError, match="is damaged"):
        pretrain.run(opened(folder, bad_chunks=1), silent)


def test_what_cannot_be_pooled_is_said(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"pretrain\.pool\[0\]: the cube .* has no collection 'x' \(it has: sentinel"):
        pool.members(opened(folder, pool=[THEIRS | {"collection": "x"}]))
    with pytest.raises(StoreError, match="there is no cube at"):
        pool.members(opened(folder, pool=[THEIRS | {"cube": "../nowhere"}]))


def test_a_commit_between_looking_and_keeping_is_not_trained_on(folder: Path) -> None:
    (member,) = pool.members(opened(folder))

    def change(session: icechunk.Session) -> str:
        zarr.open_group(session.store).attrs["late"] = True
        return "something else"

    member.cube.transact(change)
    later = pool.members(opened(folder))[0]
    assert later.scenes.snapshot != member.scenes.snapshot
    assert member.pinned("mine").snapshot == member.scenes.snapshot
    assert later.pinned("mine").snapshot == member.scenes.snapshot  # a run that goes on


def test_patience_with_damage_may_change_without_beginning_anew(folder: Path) -> None:
    pretrain.run(opened(folder, bad_chunks=2), silent)
    assert pretrain.run(opened(folder, bad_chunks=3, threads=2), silent).skipped


def test_a_collection_of_other_bands_is_refused(folder: Path) -> None:
    own = now(opened(folder))[0]
    sensor = own.sensor.subset(("B02", "B03"))

    def fill(session: icechunk.Session) -> str:
        layout.create_collection(zarr.open_group(session.store), own.name, sensor, own.grid)
        return "two bands"

    Cube.create(str(folder.parent / "fewer")).transact(fill)
    with pytest.raises(RadiometryError, match=r"the project's scenes .* and the collection of pretrain\.pool\[0\]"):
        pool.members(opened(folder, pool=[THEIRS | {"cube": "../fewer"}]))


@pytest.mark.slow
def test_one_encoder_is_pretrained_on_three_sensors(folder: Path) -> None:
    make(folder.parent / "landsat", LANDSAT, 14000, 3000, Grid("EPSG:32622", 30, 512))
    make(folder.parent / "radar", RADAR, -1200, 300, Grid("EPSG:32622", 10, 512))
    others = [{"cube": f"../{name}", "collection": of.name} for name, of in (("landsat", LANDSAT), ("radar", RADAR))]
    # the project's other cube is no sensor of its own
    project = opened(folder, pool=[*others, THEIRS | {"weight": 1}], encoder=WAVES, batch_size=64)
    seen: list[tuple[torch.Tensor, Spectrum]] = []

    def record(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, Encoder):
            seen.append((given[0].detach(), given[1]))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(record)
    try:
        pretrain.run(project, silent)
    finally:
        handle.remove()

    scenes = now(project)
    own = scenes[0].sensor
    of = {len(each.bands): each for each in (own, LANDSAT, RADAR)}
    assert Counter(image.shape[1] for image, _ in seen) == {4: 6, 6: 3, 2: 3}
    for image, spectrum in seen:
        torch.testing.assert_close(spectrum, Spectrum.of(of[image.shape[1]].bands), equal_nan=True)
        assert image.mean().abs() < 0.5  # by the project's own statistics Landsat's would be about 30
        assert 0.5 < image.std() < 1.5

    record_of = project.state.get("pretrain")
    assert record_of is not None
    encoder, card = load_encoder(project.encoders / record_of.result["encoder"])
    assert (card.sensor, card.statistics) == (own, scenes[0].statistics)
    assert [one["sensor"]["name"] for one in card.origin["pool"]] == [own.name, LANDSAT.name, RADAR.name, own.name]
    assert [Statistics.from_dict(one["statistics"]) for one in card.origin["pool"]] == [
        each.statistics for each in (*scenes[:3], scenes[0])
    ]
    loader = pool.loader(project, project.settings.pretrain, scenes)
    assert isinstance(loader, PoolLoader)
    for each, batches in zip(scenes[:3], loader.members, strict=False):
        assert each.statistics is not None
        batch = batches.load(0, 0)
        image = Normalize.from_statistics(each.statistics)(batch["image"], batch["valid"])
        with torch.inference_mode():
            pooled = encoder(image, Spectrum.of(each.sensor.bands)).pooled
        assert pooled.isfinite().all()
        assert pooled.std(dim=0).mean() > 1e-3  # places differ


def test_a_pool_of_one_sensor_is_normalised_alike(folder: Path) -> None:
    for encoder in ({"name": "unet-tiny"}, WAVES):
        project = opened(folder, pool=[THEIRS], encoder=encoder)
        assert pool.kinds(project.settings.pretrain, now(project)) == []


def test_what_does_not_learn_from_several_sensors_is_refused_before_anything_is_kept(folder: Path) -> None:
    cube = make(folder.parent / "landsat", LANDSAT, 14000, 3000, Grid("EPSG:32622", 30, 512), known=False)
    other = {"cube": "../landsat", "collection": LANDSAT.name}
    both = r"\(sensor sentinel-2-l2a\) and the collection of pretrain\.pool\[0\] \(sensor landsat-8-l2\) do not match"
    with pytest.raises(RadiometryError, match=both) as refused:
        pretrain.run(opened(folder, pool=[other]), silent)
    assert "embedding: wavelengths" in refused.value.remedy
    with pytest.raises(StoreError, match="'landsat-8-l2' of the pool has no statistics"):
        pretrain.run(opened(folder, pool=[other], encoder=WAVES), silent)
    shutil.rmtree(cube.uri)
    cube = make(folder.parent / "landsat", LANDSAT, 14000, 3000, Grid("EPSG:32622", 30, 512))
    with pytest.raises(
        SettingsError, match="mae predicts the bands of one sensor, and the pool has sentinel-2-l2a and"
    ):
        pretrain.run(opened(folder, pool=[other], encoder=WAVES, method={"name": "mae"}), silent)
    assert not any(tag.startswith("pretrain-") for tag in cube.tags())


@pytest.mark.parametrize("others", [[], [{"cube": "../theirs/store/cube", "collection": "sentinel-2-l2a"}]])
def test_ranks_share_the_chips(folder: Path, monkeypatch: pytest.MonkeyPatch, others: list[Any]) -> None:
    project = opened(folder, pool=others)
    settings = project.settings.pretrain
    scenes = [member.scenes for member in pool.members(project)]
    seen: list[list[bytes]] = []
    for number in range(2):
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", "2")
        batches = list(pool.loader(project, settings, scenes))
        seen.append([image.numpy().tobytes() for batch in batches for image in batch["image"]])
    alone = len(seen[0]) + len(seen[1])
    assert len(seen[0]) == len(seen[1]) > 0
    if not others:  # both cubes of a pool hold the same pixels here
        assert len({*seen[0], *seen[1]}) == alone
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert 2 * len(seen[0]) <= len(pool.loader(project, settings, scenes)) * settings.batch_size


def beside(days: float = 4, **other: Any) -> dict[str, Any]:
    """A member of pairs: the project's own scenes, and radar of the same ground."""
    own = {"collection": "sentinel-2-l2a", "weight": 2}
    return own | {"beside": {"cube": "../radar/store/cube", "collection": RADAR.name, "days": days} | other}


@pytest.fixture
def paired(folder: Path, radar_cube: Cube) -> Path:
    """The same, beside a project with radar on the same grid."""
    shutil.copytree(radar_cube.uri, folder.parent / "radar" / "store" / "cube")
    return folder


def test_one_encoder_is_pretrained_on_pairs_of_two_sensors(paired: Path) -> None:
    project = opened(paired, pool=[beside()], encoder=WAVES, batch_size=64)
    seen: Counter[tuple[int, ...]] = Counter()

    def record(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, Encoder):
            seen[tuple(given[0].shape[:2])] += 1
            assert given[0].mean().abs() < 1  # each by its own statistics

    handle = torch.nn.modules.module.register_module_forward_pre_hook(record)
    try:
        lines = pretrain.run(project, silent).lines
    finally:
        handle.remove()
    scenes = now(project)
    assert [each.sensor.name for each in scenes] == ["sentinel-2-l2a", "sentinel-2-l2a", RADAR.name]
    loader = pool.loader(project, project.settings.pretrain, scenes)
    assert isinstance(loader, PoolLoader)
    single, pairs = loader.members
    counts = Counter(loader.order(0).tolist())
    assert counts[1] == pytest.approx(2 * counts[0], abs=1)
    assert seen == {(128, 4): counts[0], (64, 4): counts[1], (64, 2): counts[1]}
    assert f"from {len(single.index) + len(pairs.index):,} chips" in lines[0]
    batch = pairs.load(0, 0)
    assert ((batch["time"] - batch["beside"]["time"]).abs() <= 4 * 86_400).all()

    record_of = project.state.get("pretrain")
    assert record_of is not None
    encoder, card = load_encoder(project.encoders / record_of.result["encoder"])
    radar = scenes[2].statistics
    assert radar is not None
    assert card.origin["pool"][1]["beside"] == {"sensor": RADAR.to_dict(), "statistics": radar.to_dict()}
    image = Normalize.from_statistics(radar)(batch["beside"]["image"], batch["beside"]["valid"])
    with torch.inference_mode():
        assert encoder(image, Spectrum.of(RADAR.bands)).pooled.std(dim=0).mean() > 1e-3  # places differ
    theirs = [cube for cube in pool.other_cubes(project) if RADAR.name in cube.view().collections()]
    assert f"{pool.guest_prefix('pooled')}pretrain-{record_of.key}" in theirs[0].tags()
    assert pretrain.run(project, silent).skipped


def test_pairs_of_one_sensor_need_no_wavelengths(folder: Path) -> None:
    pair = {"collection": "sentinel-2-l2a", "beside": {k: v for k, v in THEIRS.items() if k != "weight"} | {"days": 31}}
    project = opened(folder, pool=[pair])
    assert pool.kinds(project.settings.pretrain, now(project)) == []
    assert pretrain.run(project, silent).lines


def test_what_cannot_be_a_pair_is_said(paired: Path) -> None:
    wrong = r"pool\[0\]\.beside: method relative does not compare two views of a place; choose simclr, dense"
    with pytest.raises(SettingsError, match=wrong):
        opened(paired, pool=[beside()], encoder=WAVES, method={"name": "relative"})
    with pytest.raises(SettingsError, match=r"days"):
        opened(paired, pool=[beside(-1)], encoder=WAVES)
    both = r"\(sensor sentinel-2-l2a\) and the collection of pretrain\.pool\[0\]\.beside \(sensor sentinel-1-rtc\)"
    with pytest.raises(RadiometryError, match=both) as refused:
        pretrain.run(opened(paired, pool=[beside()]), silent)
    assert "embedding: wavelengths" in refused.value.remedy
    with pytest.raises(StoreError, match=r"pretrain\.pool\[0\]\.beside: the cube .* has no collection 'x'"):
        pretrain.run(opened(paired, pool=[beside(collection="x")], encoder=WAVES), silent)
    make(paired.parent / "coarse", RADAR, -1200, 300, Grid("EPSG:32622", 20, 512))
    with pytest.raises(
        SettingsError,
        match=r"pretrain\.pool\[0\]\.beside: the collections sentinel-2-l2a \(EPSG:32622, 10 m, tiles of 512 px from "
        r"0, 0\) and sentinel-1-rtc \(EPSG:32622, 20 m, .* lie on different grids",
    ):
        pretrain.run(opened(paired, pool=[beside(cube="../coarse")], encoder=WAVES), silent)
    with pytest.raises(
        SettingsError,
        match=r"pretrain\.pool\[0\]\.beside: no chip of sentinel-2-l2a has one of sentinel-1-rtc within 1 days; the "
        r"nearest are 1\.4 days apart",
    ):
        pretrain.run(opened(paired, pool=[beside(1)], encoder=WAVES), silent)
    make(paired.parent / "elsewhere", RADAR, -1200, 300, Grid("EPSG:32622", 10, 512))
    with pytest.raises(SettingsError, match="no chip of sentinel-2-l2a has one of sentinel-1-rtc of the same ground"):
        pretrain.run(opened(paired, pool=[beside(cube="../elsewhere")], encoder=WAVES), silent)
