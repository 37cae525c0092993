"""A frozen encoder on change between two dates, in OSCD's layout on disk, read by torchgeo."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.enums
import rasterio.errors
from numpy.typing import NDArray
from PIL import Image

from geossl.bands import Radiometry, Sensor
from geossl.chips.split import TEST, TRAIN
from geossl.downstream.data import Pixels
from geossl.downstream.evaluate import Evaluation
from geossl.downstream.landcover import HEAD_PIXELS
from geossl.downstream.pairs import _LDA, _LINEAR, SQUARE, Cities, _Candidates, _decision, evaluate_pairs
from geossl.downstream.public import SETS, columns
from geossl.downstream.settings import EvaluateSettings
from geossl.errors import LabelError, StoreError
from geossl.progress import silent
from geossl.project.stages import evaluate_dataset as stage
from geossl.scores import average_precision, best_threshold, confusion, f1

from .public_sets import BANDS, OURS, project_with_encoder, trained

PREFIX = "Onera Satellite Change Detection dataset - "
SETTINGS = EvaluateSettings(labels=(40,), draws=2)
NAMES = SETS["oscd"].sensor.band_names
SIDES = 40, 56
SHARE = 20 * 20 / (SIDES[0] * SIDES[1])
"""Of each city, changed."""

Mask = NDArray[np.bool_]


def write_city(
    root: Path, split: str, city: str, rng: np.random.Generator, *, by: str = "B12", mask: Mask | None = None
) -> None:
    """Noise at both dates, a square in the west that got brighter in B12, and one in the east that did in B02.

    What is labelled as change is the square that shows in band ``by``, or a mask.
    """
    squares = {}
    for band, west in (("B12", 0), ("B02", SIDES[1] // 2)):
        row, col = rng.integers(0, 9, 2)
        squares[band] = np.zeros(SIDES, bool)
        squares[band][row : row + 20, west + col : west + col + 20] = True
    dates = rng.normal(1500, 150, (2, len(NAMES), *SIDES))
    for band, square in squares.items():
        dates[1, NAMES.index(band), square] += 1500
    write_images(root, city, dates)
    write_mask(root, split, city, squares[by] if mask is None else mask)


def write_images(root: Path, city: str, dates: NDArray[np.floating]) -> None:
    """(2, 13, H, W), a file a band."""
    for number, image in enumerate(dates, start=1):
        folder = root / f"{PREFIX}Images" / city / f"imgs_{number}_rect"
        folder.mkdir(parents=True)
        for name, pixels in zip(NAMES, image, strict=True):
            Image.fromarray(pixels.astype(np.uint16)).save(folder / f"{name}.tif")
    (folder.parent / "dates.txt").write_text("date_1: 20160101\ndate_2: 20180101\n")


def write_mask(root: Path, split: str, city: str, mask: Mask) -> None:
    folder = root / f"{PREFIX}{split.title()} Labels" / city / "cm"
    folder.mkdir(parents=True)
    Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(folder / "cm.png")


def read_dates(city: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(2, 13, *shape) of a city whose bands are files of their own size."""

    def band(date: int, name: str) -> NDArray[np.float32]:
        with rasterio.open(next((city / f"imgs_{date}").glob(f"*_{name}.tif"))) as file:
            return file.read(1, out_shape=shape, resampling=rasterio.enums.Resampling.bilinear).astype(np.float32)

    return np.stack([[band(date, name) for name in NAMES] for date in (1, 2)])


def write_set(root: Path, *, train: int = 4, test: int = 12, judged_by: str = "B12") -> Path:
    """Cities that teach that B12 tells change, and cities that judge, where another band may."""
    rng = np.random.default_rng(0)
    for number in range(train):
        write_city(root, "train", f"learnt{number}", rng)
    for number in range(test):
        write_city(root, "test", f"judged{number}", rng, by=judged_by)
    return root


@pytest.fixture(scope="module")
def oscd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("oscd"))


@pytest.fixture(scope="module")
def found(oscd: Path) -> Evaluation:
    return evaluate_pairs("oscd", oscd, *trained(OURS), SETTINGS)


def means(found: Evaluation, metric: str, labels: int) -> dict[str, float]:
    return {row["model"]: row["mean"] for row in found.rows if row["metric"] == metric and row["labels"] == labels}


def test_change_that_one_band_shows_is_found_in_cities_never_seen(found: Evaluation) -> None:
    most = max(row["labels"] for row in found.rows)
    assert {row["labels"] for row in found.rows} == {40, most}
    assert {row["metric"] for row in found.rows} == {"average_precision", "f1"}
    assert {row["split"] for row in found.rows} == {SETS["oscd"].protocol}
    precision, of_change = means(found, "average_precision", most), means(found, "f1", most)
    for model in ("LDA, band differences", "LDA, pretrained + band differences"):
        assert precision[model] > 0.95
        assert of_change[model] > 0.9
    assert precision["LDA, pretrained"] > 0.8
    assert of_change["LDA, pretrained"] > 0.7
    assert 0.4 < precision["CVA, 5×5 means"] < 0.6  # whatever the band, it moved
    verdicts = {(row["model"], row["against"]): row["verdict"] for row in found.differences if row["labels"] == most}
    assert verdicts["LDA, pretrained", "CVA, 5×5 means"] == "gain"
    assert precision["no change anywhere"] == pytest.approx(SHARE, rel=0.05)
    assert of_change["no change anywhere"] == 0
    compared = {(row["model"], row["against"]) for row in found.differences}
    assert {("linear, pretrained", "linear, random encoder"), ("LDA, pretrained", "CVA")} <= compared
    # twelve cities of one square each are enough for an interval
    assert all(row["low"] is not None for row in found.rows)
    one_in_four = SIDES[0] * SIDES[1] // 4
    assert found.confusions[f"CVA, {most} labels"].sum() == 12 * one_in_four


def test_heads_learn_nothing_from_the_cities_that_judge(tmp_path: Path) -> None:
    """There another band tells, of which training cities know that it does not."""
    found = evaluate_pairs("oscd", write_set(tmp_path, test=3, judged_by="B02"), *trained(OURS), SETTINGS)
    precision = means(found, "average_precision", 40)
    assert precision["linear, band differences"] < SHARE
    assert precision["LDA, pretrained"] < SHARE
    assert all(row["low"] is None for row in found.rows)  # three squares
    assert {row["verdict"] for row in found.differences} == {"too few blocks"}


def test_labels_of_other_ground_give_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        for split in ("train", "test"):
            elsewhere = rng.permutation(np.arange(SIDES[0] * SIDES[1]) < 400).reshape(SIDES)
            write_city(tmp_path, split, f"{split}{number}", rng, mask=elsewhere)
    found = evaluate_pairs("oscd", tmp_path, *trained(OURS), SETTINGS)
    for name, precision in means(found, "average_precision", 40).items():
        assert precision == pytest.approx(SHARE, abs=0.05), name


@pytest.mark.parametrize("candidates", [_LINEAR, _LDA, ()])
def test_thresholds_know_how_rare_change_is(candidates: _Candidates) -> None:
    """Heads learn from as many changed pixels as others, and find the best F1 where 2 in 100 are."""
    rng = np.random.default_rng(0)

    def drawn(counts: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        label = np.repeat(np.arange(2, dtype=np.uint8), counts)
        return (rng.normal(0, 1, (len(label), 1)) + 2.5 * label[:, None]).astype(np.float32), label

    x, label = drawn((1000, 1000))
    city = np.arange(2000, dtype=np.int32) % 14
    pixels = Pixels(city, city, city, label, city)
    weight = np.where(label == 1, 2.0, 98.0)
    decide = _decision(candidates, slice(1), x, pixels, weight, 0)
    x, label = drawn((98_000, 2_000))
    reached = f1(confusion(label, decide(x).argmax(axis=1), 2))[1]
    best = f1(confusion(label, x[:, 0] >= best_threshold(label == 1, x[:, 0]), 2))[1]
    assert best > reached > 0.85 * best
    score = decide(x)[:, 1]
    assert average_precision(label == 1, score) == pytest.approx(average_precision(label == 1, x[:, 0]), abs=1e-3)


def cities(root: Path, of: Sensor = OURS, limit: int | None = None) -> Cities:
    return Cities("oscd", root, of, columns(of, SETS["oscd"].sensor, {}), limit)


def test_a_city_teaches_or_judges_and_its_images_come_in_the_encoders_units(oscd: Path) -> None:
    landsat = Sensor("landsat", OURS.bands, Radiometry("uint16", 2.75e-5, -0.2, 0, "reflectance"))
    data = cities(oscd, landsat)
    assert [each for each in data.tile_ids if each.startswith("train")] == [f"train/learnt{n}" for n in range(4)]
    assert len(data.tile_ids) == 16
    for tile_id in ("train/learnt0", "test/judged3"):
        ground = data.ground(tile_id)
        split, city = tile_id.split("/")
        assert (ground.subset == {"train": TRAIN, "test": TEST}[split]).all()
        with Image.open(oscd / f"{PREFIX}{split.title()} Labels" / city / "cm" / "cm.png") as file:
            assert (ground.label == np.array(file) // 255).all()
        image, valid = data.images(tile_id)
        assert image.shape == (2, 4, *SIDES)
        assert valid.all()
        for date in (1, 2):
            for position, band in enumerate(BANDS):
                with Image.open(oscd / f"{PREFIX}Images" / city / f"imgs_{date}_rect" / f"{band}.tif") as file:
                    theirs = np.array(file) * 1e-4
                np.testing.assert_allclose(image[date - 1, position] * 2.75e-5 - 0.2, theirs, atol=1e-6)


def test_squares_of_two_cities_are_never_one(tmp_path: Path) -> None:
    data = cities(write_set(tmp_path, train=1, test=2))
    data._labels = {tile_id: np.zeros((SQUARE + 5, 2 * SQUARE), np.uint8) for tile_id in data.tile_ids}
    blocks = [np.unique(data.ground(tile_id).block) for tile_id in data.tile_ids]
    assert [len(each) for each in blocks] == [4, 4, 4]
    assert len(np.unique(np.concatenate(blocks))) == 12
    block = data.ground(data.tile_ids[0]).block
    assert block[0, 0] == block[SQUARE - 1, SQUARE - 1] != block[SQUARE, 0]


def test_some_cities_are_the_same_each_time(oscd: Path) -> None:
    few = cities(oscd, limit=3).tile_ids
    assert [each.split("/")[0] for each in few] == ["train"] * 3 + ["test"] * 3
    assert few == cities(oscd, limit=3).tile_ids


def test_a_set_that_is_not_there_or_not_whole_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"does not hold the train split of oscd(.|\n)*--root"):
        evaluate_pairs("oscd", tmp_path, *trained(OURS), SETTINGS)
    rng = np.random.default_rng(0)
    write_city(tmp_path, "train", "learnt", rng)
    with pytest.raises(StoreError, match=r"does not hold the test split of oscd.*no labels"):
        evaluate_pairs("oscd", tmp_path, *trained(OURS), SETTINGS)
    write_city(tmp_path, "test", "judged", rng)
    (tmp_path / f"{PREFIX}Images" / "judged" / "imgs_2_rect" / "B10.tif").unlink()
    with pytest.raises(StoreError, match=r"test split of oscd.*files of some bands are missing"):
        evaluate_pairs("oscd", tmp_path, *trained(OURS), SETTINGS)


def test_labels_on_other_pixels_and_labels_of_one_class_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_city(tmp_path, "train", "learnt", rng)
    write_city(tmp_path, "test", "judged", rng, mask=np.zeros(SIDES, bool))
    with pytest.raises(LabelError, match="no pixel of the test cities of oscd is 'change'"):
        evaluate_pairs("oscd", tmp_path, *trained(OURS), SETTINGS)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / f"{PREFIX}Test Labels" / "judged" / "cm" / "cm.png")
    with pytest.raises(StoreError, match=r"test/judged of oscd .* 40 × 56 pixels, and labels of 9 × 9"):
        evaluate_pairs("oscd", tmp_path, *trained(OURS), SETTINGS)


def test_one_label_is_too_few(oscd: Path) -> None:
    with pytest.raises(LabelError, match=r"of 1 labelled pixels of oscd all are(.|\n)*2 or more"):
        evaluate_pairs("oscd", oscd, *trained(OURS), EvaluateSettings(labels=(1,)), limit=2)


def test_rows_lie_beside_the_encoder(oscd: Path, tmp_path: Path) -> None:
    project = project_with_encoder(tmp_path, 40)
    done = stage.run(project, "oscd", oscd, [], silent, limit=3)
    assert "at most 3 cities" in done.lines[0]
    assert "one of 4 pixels" in done.lines[1]
    for metric in ("average_precision", "f1"):
        assert any(f"linear, pretrained: {metric}" in line for line in done.lines)
    assert '"every": 2' in (project.encoder_folder() / "on-oscd.json").read_text()


@pytest.mark.slow
def test_real_cities(shared_data: Path, tmp_path: Path) -> None:
    """Four that teach and two that judge, brought to the pixels of their labels, as the set comes to users."""
    source = shared_data / "oscd"
    splits = {"train": ("bordeaux", "hongkong", "nantes", "paris"), "test": ("aguasclaras", "rennes")}
    for split, names in splits.items():
        for city in names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                with rasterio.open(source / "train_labels" / city / "cm" / f"{city}-cm.tif") as file:
                    mask = file.read(1) == 2
            write_images(tmp_path, city, read_dates(source / "images" / city, mask.shape))
            write_mask(tmp_path, split, city, mask)
    encoder, card = trained(OURS)
    found = evaluate_pairs("oscd", tmp_path, encoder, card, EvaluateSettings(labels=(100,), draws=2, every=3))
    assert {row["labels"] for row in found.rows} == {100, HEAD_PIXELS}
    precision = means(found, "average_precision", HEAD_PIXELS)
    for model in ("linear, pretrained", "LDA, pretrained + band differences", "CVA, 5×5 means"):
        assert precision["no change anywhere"] * 2 < precision[model] < 1
