from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from geossl import bands
from geossl.bands import Sensor
from geossl.errors import SettingsError
from geossl.imagery.folder import FolderSettings
from geossl.imagery.scene import Asset, Rejected, Scene
from geossl.imagery.sources import SourceSettings, open_source

FIELD = np.arange(1, 61, dtype=np.uint16).reshape(5, 3, 4)
MAY = datetime(2020, 5, 6, tzinfo=UTC)


def scenes(base: Path, sensor: Any, **settings: Any) -> list[Scene]:
    found = list(open_source(FolderSettings(path=".", **settings), base).scenes(sensor))
    assert [entry for entry in found if isinstance(entry, Rejected)] == []
    return [entry for entry in found if isinstance(entry, Scene)]


def rejected(base: Path, sensor: Any, **settings: Any) -> Rejected:
    (entry,) = open_source(FolderSettings(path=".", **settings), base).scenes(sensor)
    assert isinstance(entry, Rejected)
    assert "\n" not in entry.reason
    return entry


def test_files_of_one_band_are_one_scene_by_their_names(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor]
) -> None:
    for scene in ("T22_20200506", "T21_20210708"):
        for band in ("2", "3", "QA_PIXEL"):
            write(tmp_path / f"{scene}_SR_B{band}.tif", FIELD[0])
    bands = {"B2": 2, "B3": "3", "qa_pixel": "QA_PIXEL"}
    first, second = scenes(tmp_path, make_sensor("B2", "B3"), pattern="{scene}_{date}_SR_B{band}.tif", bands=bands)
    assert (first.id, first.time) == ("T22-20200506", MAY)
    assert (second.id, second.time) == ("T21-20210708", datetime(2021, 7, 8, tzinfo=UTC))
    assert first.bands == {f"B{i}": Asset(str(tmp_path / f"T22_20200506_SR_B{i}.tif")) for i in (2, 3)}
    assert first.masks == {"qa_pixel": Asset(str(tmp_path / "T22_20200506_SR_BQA_PIXEL.tif"))}
    assert (first.crs, first.source_nodata, first.shift) == ("EPSG:32622", None, 0)


def test_names_of_bands_are_the_sensors_own_unless_told(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor]
) -> None:
    for name in ("b1", "b2", "scl"):
        write(tmp_path / f"{name}.tif", FIELD[0])
    (scene,) = scenes(tmp_path, make_sensor("B1", "B2"), pattern="{band}.tif", date="2020-05-06", scene="mine")
    assert (scene.id, scene.time, list(scene.masks)) == ("mine", MAY, ["scl"])
    assert scene.bands["B2"].href.endswith("/b2.tif")


def test_a_file_of_several_bands_is_one_scene(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor]
) -> None:
    for year in (2021, 2020):
        write(tmp_path / f"{year}.tif", FIELD, descriptions=("one", "two", "three", "Four", "fmask"))
    sensor = make_sensor("B1", "B4")

    def indices(**settings: Any) -> list[int]:
        first, second = scenes(tmp_path, sensor, pattern="{date:%Y}.tif", **settings)
        assert [first.id, second.id] == [f"{tmp_path.name}-2020", f"{tmp_path.name}-2021"]
        assert first.time == datetime(2020, 1, 1, tzinfo=UTC)
        places = [asset.index for asset in first.bands.values()]
        return places + [mask.index for mask in first.masks.values()]

    assert indices(bands=["B4", "unused", "B1"]) == [3, 1]
    assert indices(bands={"B1": 2, "B4": 3, "fmask": 5}) == [2, 3, 5]
    assert indices(bands={"B1": "one", "B4": "four", "fmask": "fmask"}) == [1, 4, 5]


def test_single_rasters_without_a_pattern(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor]
) -> None:
    write(tmp_path / "x_2020-05-06.tif", FIELD[:2])
    write(tmp_path / "sub" / "y_20200507.TIF", FIELD[:3], descriptions=("b2", "other", "b1"))
    first, second = scenes(tmp_path, make_sensor("B1", "B2"), nodata=7, physical=True)
    assert (first.id, first.time) == ("x_2020-05-06", MAY)
    assert [asset.index for asset in first.bands.values()] == [1, 2]
    assert [asset.index for asset in second.bands.values()] == [3, 1]
    assert (first.source_nodata, first.physical) == (7, True)


def test_what_is_wrong_with_single_rasters_is_said(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor]
) -> None:
    write(tmp_path / "a_20200506.tif", FIELD[:3])
    wrong = rejected(tmp_path, make_sensor("B1", "B2"))
    assert wrong.reason == "a_20200506.tif has 3 band(s), sensor toy has 2"
    assert "bands:" in wrong.remedy
    (tmp_path / "a_20200506.tif").unlink()
    write(tmp_path / "a.tif", FIELD[0])
    assert rejected(tmp_path, make_sensor()).reason == "nothing says when scene a was taken"
    (tmp_path / "a.tif").write_text("<html>404</html>")
    assert rejected(tmp_path, make_sensor()).reason.endswith("a.tif is a web page or XML, not a raster")


def test_stac_items_beside_their_files(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor], make_scene: Callable[..., Scene]
) -> None:
    home = tmp_path / "deep" / "s"
    item = make_scene(write(home / "b1.tif", FIELD[0]), write(home / "b2.tif", FIELD[0]), shift=-1000).to_item()
    for asset in item.assets.values():
        asset.href = f"./{Path(asset.href).name}"
    home.joinpath("s.json").write_text(json.dumps(item.to_dict()))
    home.joinpath("notes.json").write_text('{"type": "Feature"}')
    home.joinpath("broken.json").write_text("{")
    (scene,) = scenes(tmp_path, make_sensor("B1", "B2"))
    assert scene.shift == -1000
    assert scene.bands == {f"B{i}": Asset(str(home / f"b{i}.tif")) for i in (1, 2)}
    wrong = rejected(tmp_path, make_sensor("B1", "B9"))
    assert (wrong.source, wrong.reason) == (str(home / "s.json"), "s: no asset holds band B9; there are B1, B2")


def test_a_broken_item_is_rejected_with_a_reason(tmp_path: Path, make_sensor: Callable[..., Sensor]) -> None:
    tmp_path.joinpath("s.json").write_text('{"type": "Feature", "stac_version": "1.0.0", "properties": {}}')
    assert "s.json is no valid STAC Item" in rejected(tmp_path, make_sensor()).reason


def test_a_missing_file_rejects_that_scene_only(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor]
) -> None:
    for name in ("x_B1", "x_B2", "y_B1"):
        write(tmp_path / f"{name}.tif", FIELD[0])
    settings = FolderSettings(path=".", pattern="{scene}_{band}.tif", date=MAY)
    first, second = open_source(settings, tmp_path).scenes(make_sensor("B1", "B2"))
    assert isinstance(first, Scene)
    assert isinstance(second, Rejected)
    assert second.source.endswith(": y")
    assert second.reason == "scene y has no band B2 (there are: B1)"


def test_several_files_for_one_scene_are_refused(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor]
) -> None:
    write(tmp_path / "a_1.tif", FIELD[0])
    write(tmp_path / "a_2.tif", FIELD[0])
    wrong = rejected(tmp_path, make_sensor(), pattern="{scene}_*.tif", date=MAY)
    assert wrong.reason == "2 files are one scene by their names: a_1.tif, a_2.tif"
    write(tmp_path / "b_1.tif", FIELD[0])
    wrong = rejected(tmp_path, make_sensor("1", "2"), pattern="*_{band}.tif", date=MAY)
    assert wrong.reason == "2 files are one band 1 by their names: a_1.tif, b_1.tif"


def test_settings_that_cannot_be_right_are_errors(
    tmp_path: Path, write: Callable[..., str], make_sensor: Callable[..., Sensor]
) -> None:
    sensor = make_sensor("B1", "B2")

    def reason(base: Path = tmp_path, **settings: Any) -> str:
        with pytest.raises(SettingsError) as caught:
            list(open_source(FolderSettings(**({"path": "."} | settings)), base).scenes(sensor))
        return str(caught.value).replace(str(tmp_path), "…")

    assert reason(path="none").startswith("the imagery folder …/none does not exist")
    assert reason() == "nothing in … is imagery: no product, no STAC Item, no raster\n  → the folder is empty"
    write(tmp_path / "landsat_b1.tif", FIELD[0])
    assert reason(pattern="sentinel_{band}.tif") == (
        "nothing in … matches the pattern 'sentinel_{band}.tif'\n  → there is, for example, landsat_b1.tif"
    )
    assert "both the pattern '{date}_{scene}.tif' and `scene:` say the scene" in reason(
        pattern="{date}_{scene}.tif", scene="x"
    )
    assert "`bands` does not say which is B2" in reason(pattern="landsat_b{band}.tif", bands={"B1": 1})


def test_settings_read_as_people_write_them() -> None:
    adapter = TypeAdapter(SourceSettings)
    said = {"kind": "folder", "path": "x", "bands": ["B1", "B2"], "date": "2015-08-18", "nodata": 0}
    folder = adapter.validate_python(said)
    assert isinstance(folder, FolderSettings)
    assert (folder.bands, folder.date) == (("B1", "B2"), datetime(2015, 8, 18))
    assert adapter.validate_json(folder.model_dump_json()) == folder


def test_hls_granules_by_their_names(tmp_path: Path, write: Callable[..., str]) -> None:
    """The item that comes with a granule names the provider's files, and is not taken for a second scene."""
    names = [f"HLS.S30.T22NBB.2020{day}T135109.v2.0" for day in (127, 132)]
    for name in names:
        for band in ("B04", "Fmask"):
            write(tmp_path / name / f"{name}.{band}.tif", FIELD[0])
        item = {"type": "Feature", "stac_version": "1.0.0", "id": name}
        (tmp_path / name / f"{name}_stac.json").write_text(json.dumps(item))
    (tmp_path / names[1] / f"{names[1]}.B04.tif").unlink()
    sensor = bands.sensor("hls-s30").subset(("B04",))
    scene, other = open_source(FolderSettings(path="."), tmp_path).scenes(sensor)
    assert isinstance(scene, Scene)
    assert (scene.id, scene.time) == (names[0], datetime(2020, 5, 6, 13, 51, 9, tzinfo=UTC))
    assert isinstance(other, Rejected)
    assert (other.source, "has no B04" in other.reason) == (str(tmp_path / names[1]), True)
