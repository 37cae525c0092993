"""The project file: what it may say, and how a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from geossl.bands import sensor
from geossl.errors import SettingsError
from geossl.project.load import load_settings
from geossl.project.stages.init import explain_settings, init_project

MINIMAL = """\
name: test
sources:
  - kind: folder
    path: imagery
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "geossl.yaml"
    path.write_text(text)
    return path


def _mistake(path: Path, *overrides: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, overrides)
    return str(caught.value)


def test_minimal_file_has_defaults(tmp_path: Path) -> None:
    settings = load_settings(_write(tmp_path, MINIMAL))
    assert settings.sensor.resolve() == sensor("sentinel-2-l2a")
    assert settings.grid.crs == "auto"
    assert settings.tasks == {}


def test_folder_stands_for_its_file(tmp_path: Path) -> None:
    _write(tmp_path, MINIMAL)
    assert load_settings(tmp_path) == load_settings(tmp_path / "geossl.yaml")


def test_override_wins_over_the_file_and_is_typed(tmp_path: Path) -> None:
    path = _write(tmp_path, MINIMAL + "pretrain:\n  epochs: 3\n")
    assert load_settings(path).pretrain.epochs == 3
    assert load_settings(path, ["pretrain.epochs=20", "grid.resolution=10"]).pretrain.epochs == 20


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        (MINIMAL + "grid:\n  tile: 100\n", [], ["line 6", "grid.tile", "multiple of 256", "100"]),
        (MINIMAL + "grid:\n  tiles: 256\n", [], ["line 6", "grid.tiles", "did you mean 'tile'"]),
        (MINIMAL + "colour: red\n", [], ["line 5", "colour", "no such field"]),
        ("name: Not Allowed\nsources: [{kind: folder, path: x}]\n", [], ["line 1", "name", "Not Allowed"]),
        (MINIMAL + "store: s3://bucket/store\n", [], ["line 5", "store", "is a folder", "s3://bucket/store"]),
        ("name: test\n", [], ["sources", "is required"]),
        ("name: [\n", [], ["line"]),
        (MINIMAL, ["pretrain.epochs=many"], ["--set pretrain.epochs=many", "pretrain.epochs", "many"]),
        (MINIMAL, ["pretrain.epochs"], ["key=value"]),
        (MINIMAL + "sensor:\n  name: sentinel-9\n", [], ["sentinel-9", "sentinel-2-l2a"]),
        (MINIMAL + "sensor:\n  bands: [B02, B99]\n", [], ["B99", "B02"]),
        (MINIMAL + "tasks:\n  a:\n    kind: guess\n", [], ["tasks.a", "landcover", "change"]),
    ],
)
def test_mistakes_name_line_field_and_what_is_allowed(
    tmp_path: Path, text: str, overrides: list[str], says: list[str]
) -> None:
    message = _mistake(_write(tmp_path, text), *overrides)
    assert [word for word in says if word not in message] == [], message


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    assert "geossl init" in _mistake(tmp_path)


def test_own_sensor(tmp_path: Path) -> None:
    text = MINIMAL + (
        "sensor:\n  name: mine\n  dtype: uint8\n  nodata: 0\n"
        "  bands:\n    - {name: red, wavelength: 0.66, gsd: 90}\n    - {name: nir, wavelength: 0.84, gsd: 90}\n"
    )
    own = load_settings(_write(tmp_path, text)).sensor.resolve()
    assert own.band_names == ("red", "nir")
    assert own.radiometry.nodata == 0
    assert own.radiometry.unit == "none"


def test_shipped_sensor_with_another_nodata_keeps_its_scale(tmp_path: Path) -> None:
    path = _write(tmp_path, MINIMAL + "sensor: {name: landsat-8-l1, bands: [B4, B5], nodata: 65535}\n")
    own = load_settings(path).sensor.resolve()
    assert own.radiometry.nodata == 65535
    assert own.radiometry.scale == sensor("landsat-8-l1").radiometry.scale


def test_init_writes_a_file_that_loads_and_keeps_an_existing_one(tmp_path: Path) -> None:
    folder = tmp_path / "My Région 7"
    path = init_project(folder, Path("scenes"))
    settings = load_settings(path)
    assert settings.name == "my-r-gion-7"
    path.write_text(MINIMAL)
    with pytest.raises(SettingsError, match="exists already"):
        init_project(folder, Path("scenes"))
    assert path.read_text() == MINIMAL


def test_explanation_names_every_top_field() -> None:
    from geossl.project.settings import ProjectSettings

    text = explain_settings()
    assert [name for name in ProjectSettings.model_fields if f"\n{name}:" not in "\n" + text] == []
