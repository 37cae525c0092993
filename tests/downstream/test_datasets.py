"""A frozen encoder on sets in their own layout on disk, read by torchgeo."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from geossl.bands import Radiometry, Sensor, sensor
from geossl.cli.app import evaluate
from geossl.downstream.datasets import Images, evaluate_dataset
from geossl.downstream.public import SETS, DatasetName, columns, restored
from geossl.downstream.settings import EvaluateSettings
from geossl.errors import RadiometryError, StoreError
from geossl.progress import silent
from geossl.project.stages import evaluate_dataset as stage

from .public_sets import OURS, project_with_encoder, trained

CLASSES = ("AnnualCrop", "Forest", "River")
TRAIN, TEST = 10, 6
PLACE = rasterio.Affine(10, 0, 0, 0, -10, 0)
SETTINGS = EvaluateSettings(labels=(6,), draws=2)


def write(path: Path, pixels: NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", "GTiff", *pixels.shape[:0:-1], len(pixels), dtype="uint16", crs="EPSG:32633", transform=PLACE
    ) as file:
        file.write(pixels)


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, each bright in a band of its own (B8A is the last one on disk), in EuroSAT's layout."""
    root = tmp_path_factory.mktemp("eurosat")
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", 1), ("test", TEST)):
        names = []
        for k, name in enumerate(CLASSES):
            for number in range(count):
                pixels = rng.normal(1500, 300, (13, 32, 32))
                pixels[(12, 1, 3)[k]] += 1500
                file = f"{name}_{split}{number}"
                names.append(f"{file}.jpg")
                folder = root / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif" / name
                write(folder / f"{file}.tif", pixels.clip(0).astype(np.uint16))
        (root / f"eurosat-{split}.txt").write_text("\n".join(names))
    return root


def test_heads_learn_from_the_training_split_and_floors_stand_beside(eurosat: Path) -> None:
    encoder, card = trained(OURS)
    found = evaluate_dataset("eurosat", eurosat, encoder, card, SETTINGS)
    accuracy = {(row["model"], row["labels"]): row for row in found.rows if row["metric"] == "accuracy"}
    assert {n for _, n in accuracy} == {6, TRAIN * len(CLASSES)}
    assert accuracy["linear, band statistics", 30]["mean"] == 1
    assert accuracy["linear, pretrained", 30]["mean"] > 0.9
    assert accuracy["majority class", 30]["mean"] == pytest.approx(1 / 3)
    assert accuracy["majority class", 30]["low"] < 1 / 3 < accuracy["majority class", 30]["high"]
    assert {row["split"] for row in found.rows} == {SETS["eurosat"].protocol}
    compared = {(row["model"], row["against"]) for row in found.differences}
    assert ("linear, pretrained", "linear, random encoder") in compared
    assert ("linear, pretrained + band statistics", "linear, band statistics") in compared
    assert found.confusions["majority class, 30 labels"].sum() == TEST * len(CLASSES)


def test_images_come_band_by_band_in_the_encoders_units(eurosat: Path) -> None:
    images = Images.of("eurosat", eurosat, "test")
    assert len(images) == TEST * len(CLASSES)
    image, _ = next(images.batches())
    assert columns(OURS, SETS["eurosat"].sensor, {}) == [12, 1, 3, 11]
    with rasterio.open(images.dataset.imgs[0][0]) as file:
        assert (image[0].numpy() == file.read()).all()
    landsat = Sensor("landsat", OURS.bands, Radiometry("uint16", 2.75e-5, -0.2, 0, "reflectance"))
    stored = restored(image, landsat, SETS["eurosat"].sensor)
    torch.testing.assert_close(stored * 2.75e-5 - 0.2, image * 1e-4)


def test_bands_are_mapped_by_name_or_as_told_and_never_guessed() -> None:
    theirs = SETS["eurosat"].sensor
    landsat = sensor("landsat-8-l2").subset(("blue", "nir08"))
    with pytest.raises(RadiometryError, match=r"no band like (.|\n)*--band"):
        columns(landsat, theirs, {})
    assert columns(landsat, theirs, {"blue": "B02", "nir08": "B8A"}) == [1, 12]
    with pytest.raises(RadiometryError, match="has no band 'B99'"):
        columns(OURS, theirs, {"B02": "B99"})
    numbers = Sensor("numbers", OURS.bands, Radiometry("uint8"))
    with pytest.raises(RadiometryError, match="unit none"):
        columns(numbers, theirs, {})


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"does not hold the train split of eurosat(.|\n)*--root"):
        evaluate_dataset("eurosat", tmp_path, *trained(OURS), SETTINGS)


def test_the_command_line_offers_every_set() -> None:
    offered, none = get_args(get_type_hints(evaluate)["dataset"])
    assert none is type(None)
    assert get_args(offered) == get_args(DatasetName) == tuple(SETS)


def test_some_of_a_split_are_the_same_each_time(eurosat: Path) -> None:
    some = Images.of("eurosat", eurosat, "train", limit=5)
    assert len(some) == 5
    assert (some.rows == Images.of("eurosat", eurosat, "train", limit=5).rows).all()


def test_rows_lie_beside_the_encoder(eurosat: Path, tmp_path: Path) -> None:
    project = project_with_encoder(tmp_path, 6)
    done = stage.run(project, "eurosat", eurosat, ["B12=B11"], silent, limit=12)
    assert "at most 12 images" in done.lines[0]
    assert any("linear, pretrained" in line for line in done.lines)
    assert '"B12": "B11"' in (project.encoder_folder() / "on-eurosat.json").read_text()


def write_so2sat(folder: Path) -> None:
    """Three climate zones, each bright in a band of its own, as reflectance."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    zones = {0: "B02", 5: "B12", 16: "B8A"}
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("training", TRAIN), ("validation", 1), ("testing", TEST)):
        label = np.repeat(list(zones), count)
        sen2 = rng.normal(0.15, 0.03, (len(label), 32, 32, 10))
        for zone, band in zones.items():
            sen2[label == zone, ..., SETS["so2sat"].sensor.band_names.index(band)] += 0.15
        with h5py.File(folder / f"{split}.h5", "w") as file:
            file["sen1"] = np.full((len(label), 32, 32, 8), 1e6)  # nobody looks at it
            file["sen2"] = sen2
            file["label"] = np.eye(17)[label]


@pytest.mark.parametrize(("name", "folder"), [("so2sat", "."), ("so2sat-culture-10", "culture_10")])
def test_climate_zones_by_reflectance(
    name: Literal["so2sat", "so2sat-culture-10"], folder: str, tmp_path: Path
) -> None:
    write_so2sat(tmp_path / folder)
    assert [len(Images.of(name, tmp_path, split)) for split in ("train", "test")] == [3 * TRAIN, 3 * TEST]
    image, label = next(Images.of(name, tmp_path, "test").batches())
    assert sorted(set(label.tolist())) == [0, 5, 16]
    index = columns(OURS, SETS[name].sensor, {})
    assert index == [7, 0, 2, 9]
    # an encoder sees reflectance as its own imagery stores it, ten thousand times as much
    stored = restored(image[:, index], OURS, SETS[name].sensor)
    assert stored[label == 16].mean(dim=(0, 2, 3)).numpy() == pytest.approx([3000, 1500, 1500, 1500], rel=0.01)
    found = evaluate_dataset(name, tmp_path, *trained(OURS), SETTINGS)
    accuracy = {row["model"]: row["mean"] for row in found.rows if row["metric"] == "accuracy" and row["labels"] == 30}
    assert accuracy["linear, band statistics"] == 1
    assert accuracy["linear, pretrained"] > 0.9
    assert accuracy["majority class"] == pytest.approx(1 / 3)
    assert {row["split"] for row in found.rows} == {SETS[name].protocol}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_so2sat(tmp_path)
    (tmp_path / "testing.h5").write_bytes(b"half of a download")
    with pytest.raises(StoreError, match=r"does not hold the test split of so2sat(.|\n)*--root"):
        evaluate_dataset("so2sat", tmp_path, *trained(OURS), SETTINGS)


def test_a_package_that_reads_a_set_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(StoreError, match=r"So2Sat reads its files by h5py, which is not installed\n.*pip install h5py"):
        evaluate_dataset("so2sat", tmp_path, *trained(OURS), SETTINGS)


@pytest.mark.slow
def test_several_classes_an_image_and_real_patches(shared_data: Path, tmp_path: Path) -> None:
    """The 60 patches that are here, in the layout of BigEarthNet v2; bands that are not here are empty."""
    pandas = pytest.importorskip("pandas")
    source = shared_data / "bigearthnet-v2-patches"
    with (source / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tiles = sorted({row["tile"] for row in rows})
    records = []
    for row in rows:
        patch, folder = row["patch_id"], "_".join(row["patch_id"].split("_")[:-2])
        with rasterio.open(source / "s2" / f"{patch}.tif") as image:
            given = dict(zip(("B02", "B03", "B04", "B08"), image.read(), strict=True))
        for band in SETS["bigearthnet"].sensor.band_names:
            empty = np.zeros((20, 20), np.uint16)
            write(tmp_path / "BigEarthNet-S2" / folder / patch / f"{patch}_{band}.tif", given.get(band, empty)[None])
        write(tmp_path / "Reference_Maps" / folder / patch / f"{patch}_reference_map.tif", empty[None])
        # whole tiles teach or judge
        split = "test" if tiles.index(row["tile"]) % 3 == 0 else "train"
        records.append({"patch_id": patch, "split": split, "s1_name": "", "labels": row["labels19"].split("|")})
    (tmp_path / "BigEarthNet-S1").mkdir()
    pandas.DataFrame(records).to_parquet(tmp_path / "metadata.parquet")

    encoder, card = trained(sensor("sentinel-2-l2a").subset(("B02", "B03", "B04", "B08")), 800.0, 700.0)
    found = evaluate_dataset("bigearthnet", tmp_path, encoder, card, EvaluateSettings(labels=(20,), draws=2))
    assert {row["metric"] for row in found.rows} == {"mean_average_precision"}
    assert {row["labels"] for row in found.rows} == {20, sum(each["split"] == "train" for each in records)}
    share = np.mean([len(each["labels"]) for each in records]) / 19
    for row in found.rows:
        assert share < row["mean"] < 1  # better than chance
