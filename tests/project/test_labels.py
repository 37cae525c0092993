"""`geossl labels` and `geossl suggest` as a person meets them: labels in, what became of them, what to label next."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from geossl.chips.split import TRAIN
from geossl.cli.app import app
from geossl.cube.collection import Labels
from geossl.errors import LabelError, SettingsError, StoreError
from geossl.legend import NO_LABEL
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.labels import listing, subset_counts
from geossl.project.stages.run import stage
from geossl.project.stages.suggest import suggest


@pytest.fixture(scope="module")
def project(small_project: Path) -> Project:
    project = Project.load(small_project)
    for verb in ("ingest", "stats", "pretrain", "finetune"):
        stage(verb)(project, silent)
    return project


def copied(project: Project, folder: Path, *names: str, overrides: tuple[str, ...] = ()) -> Project:
    """A copy of some of the project, to be changed."""
    for name in ("geossl.yaml", "imagery/labels", *names):
        source, target = project.root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    (folder / "imagery" / "scenes").symlink_to(project.root / "imagery" / "scenes")
    return Project.load(folder, overrides)


def test_what_is_labelled(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["labels", "-p", str(project.root)], result_action="return_value") == 0
    told = capsys.readouterr().out
    assert "landcover (landcover), version 1, from landcover.gpkg" in told
    assert "clearing (change, 2021-10-01 to 2022-10-01), version 1, from clearings.gpkg" in told
    assert app(["labels", "landcover", "--json", "-p", str(project.root)], result_action="return_value") == 0
    (row,) = json.loads(capsys.readouterr().out)
    labels = project.cube().view().labels("landcover")
    codes = {tile_id: labels.read(tile_id) for tile_id in labels.tile_ids}
    subset = {tile_id: project.split.subset_mask(labels.tile(tile_id)) for tile_id in codes}
    for land in row["classes"]:
        for number, name in ((1, "training"), (2, "validation"), (3, "test")):
            assert land[name] == sum(
                int(((codes[tile_id] == land["code"]) & (subset[tile_id] == number)).sum()) for tile_id in codes
            )
    assert np.asarray(Image.open(row["picture"])).std() > 10


def test_what_became_of_the_scenes_is_told_with_an_error_in_the_labels(project: Project, tmp_path: Path) -> None:
    young = copied(project, tmp_path, overrides=("tasks.landcover.labels.column=nothing",))
    with pytest.raises(LabelError, match=r"(?s)nothing.*→.*\d+ scenes ingested"):
        stage("ingest")(young, silent)


def test_changed_labels_are_told_and_drawn(project: Project, tmp_path: Path) -> None:
    """A new class in training blocks alone, upon others, and a broken shape: ingest says so, exit code 3 included."""
    later = ("tasks.landcover.labels.overlap=later",)
    young = copied(project, tmp_path, "store/cube", "store/state", overrides=later)
    path = tmp_path / "imagery" / "labels" / "landcover.gpkg"
    frame = geopandas.read_file(path)
    tile = young.scenes().tile(young.scenes().tile_ids[0])
    row, col = np.argwhere(young.split.subset_mask(tile) == TRAIN)[0]
    left, top = tile.transform @ (int(col), int(row))
    shapes = [shapely.box(left, top - 40, left + 40, top), shapely.box(left, top, left + 40, top)]
    lava = geopandas.GeoDataFrame({"class": ["lava"] * 2}, geometry=shapes, crs=tile.grid.crs).to_crs(frame.crs)
    pd.concat([frame, lava], ignore_index=True).to_file(path)
    result = stage("ingest")(young, silent)
    told = "\n".join(result.lines)
    assert "labels of task landcover, version 2, put onto the grid" in told
    assert re.search(r"(\w+ and lava|lava and \w+) overlap on \d+ pixels .*: the later shape of the file wins", told)
    assert "the validation blocks hold no label of lava: nothing tells when" in told
    assert f"set aside: feature {len(frame) + 2}: " in told
    assert result.set_aside == 1
    assert stage("ingest")(young, silent).set_aside == 1  # still so, though there was nothing to do
    (row,) = listing(young, "landcover")
    assert row["version"] == 2
    assert next(land["training"] for land in row["classes"] if land["name"] == "lava") == 16
    assert (young.store / "labels" / "landcover.png").exists()


def test_suggested_filled_in_and_learnt_from(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    young = copied(project, tmp_path, "store/cube", "store/state", "store/tasks", "store/registry", "store/encoders")
    # of the labels, which cover all ground, those in the north alone
    path = tmp_path / "imagery" / "labels" / "landcover.gpkg"
    tile = young.scenes().tile(young.scenes().tile_ids[0])
    west, _, east, north = tile.bounds
    frame = geopandas.read_file(path)
    north_only = geopandas.GeoSeries([shapely.box(west, north - 900, 2 * east - west, north)], crs=tile.grid.crs)
    frame.clip(north_only.to_crs(frame.crs)).explode().to_file(path)
    stage("ingest")(young, silent)
    out = tmp_path / "next.gpkg"
    command = ["suggest", "landcover", "--count", "6", "--out", str(out), "-p", str(tmp_path)]
    assert app(command, result_action="return_value") == 0
    assert "places to label next" in capsys.readouterr().out
    frame = geopandas.read_file(out, layer="next")
    assert list(frame["rank"]) == list(range(1, len(frame) + 1))
    assert frame["class"].isna().all()
    assert frame["uncertainty"].between(0, 1).all()
    names = project.cube().view().labels("landcover").legend.names
    assert set(frame["predicted"]) <= set(names)
    assert frame["reason"].str.contains(r"^.+ \d\.\d\d or .+ \d\.\d\d").all()
    assert set(frame["date"]) <= {"2022-07-18", "2022-09-01", "2022-10-21", "2022-10-01"}
    assert np.asarray(Image.open(out.with_suffix(".png"))).std() > 10
    with pytest.raises(SettingsError, match="exists, and may hold labels"):
        suggest(young, "landcover", 6, out, silent)

    # a person fills in all but one; both files are the task's labels from now on
    frame.loc[1:, "class"] = frame["predicted"][1:]
    frame.to_file(out, layer="next")
    text = (tmp_path / "geossl.yaml").read_text()
    text = text.replace("path: imagery/labels/landcover.gpkg", "path: [imagery/labels/landcover.gpkg, next.gpkg]")
    (tmp_path / "geossl.yaml").write_text(text)
    before = young.cube().view().labels("landcover")
    assert before.version == 2
    grown = Project.load(tmp_path)
    told = "\n".join(stage("ingest")(grown, silent).lines)
    assert "labels of task landcover, version 3" in told
    assert "1 shapes say no class: feature next.gpkg:1" in told
    after = grown.cube().view().labels("landcover")
    assert set(after.legend.names) >= set(before.legend.names)
    more = 0
    for tile_id in after.tile_ids:
        old, new = (named(each, tile_id) for each in (before, after))
        np.testing.assert_array_equal(new[old != ""], old[old != ""])
        grew = (old == "") & (new != "")
        more += int(grew.sum())
        assert (grown.split.subset_mask(after.tile(tile_id))[grew] == TRAIN).all()
    assert more == 25 * (len(frame) - 1)
    assert sum(of["training"] for of in subset_counts(after, grown.split).values()) == more + sum(
        of["training"] for of in subset_counts(before, grown.split).values()
    )


def named(labels: Labels, tile_id: str) -> np.ndarray:
    """(H, W) names of classes: without a legend of one's own, codes follow the file."""
    names = np.full(256, "", "U20")
    names[list(labels.legend.codes)] = labels.legend.names
    blank = np.full(labels.tile(tile_id).shape, NO_LABEL)
    return names[labels.read(tile_id) if tile_id in labels.tile_ids else blank]


def test_what_a_person_may_get_wrong(project: Project, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no task 'roads' with labels[^→]*→ its tasks with labels are: landcover"):
        suggest(project, "roads", 5, tmp_path / "next.gpkg", silent)
    with pytest.raises(SettingsError, match=r"as a GeoPackage[^→]*→ name it"):
        suggest(project, "landcover", 5, tmp_path / "next.shp", silent)
    with pytest.raises(SettingsError, match=r"clearings with dates[^→]*→ draw what is missing into the file"):
        suggest(project, "clearing", 5, tmp_path / "next.gpkg", silent)
    raster = Project.load(project.root, ["tasks.landcover.labels.path=cover.gtif"])
    with pytest.raises(SettingsError, match=r"are a raster[^→]*→ make polygons of it"):
        suggest(raster, "landcover", 5, tmp_path / "next.gpkg", silent)
    young = copied(project, tmp_path / "young", "store/cube", "store/state")
    with pytest.raises(StoreError, match=r"no model whose doubts[^→]*→ run `geossl finetune`"):
        suggest(young, "landcover", 5, tmp_path / "next.gpkg", silent)
