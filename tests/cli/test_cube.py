"""`geossl cube …` as a person meets it, on a small project."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from geossl.cli.app import app
from geossl.cli.cube import DAMAGED
from geossl.cube.hold import hold
from geossl.cube.repository import LONGEST_INGEST
from geossl.demo.landscape import LandscapeSettings, write_landscape
from geossl.errors import GeosslError
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import ingest as stage

SETTINGS = """\
name: small
store: store
grid: { tile: 256 }
sensor: { name: sentinel-2-l2a, bands: [B02, B03, B04] }
sources: [{ kind: folder, path: imagery/scenes }]
cluster: { workers: 1 }
"""

Geossl = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two scenes, of which the second arrived later; the state before is tagged ``first``."""
    # a cluster takes longer to start than two scenes to read
    monkeypatch.setattr(stage, "dask_client", lambda _: contextlib.nullcontext())
    days = (dt.date(2022, 6, 1), dt.date(2022, 7, 1))
    write_landscape(tmp_path / "imagery", LandscapeSettings(size=256, dates=days))
    scenes = tmp_path / "imagery" / "scenes"
    later = sorted(scenes.iterdir())[len(list(scenes.iterdir())) // 2 :]
    for path in later:
        path.rename(tmp_path / path.name)
    (tmp_path / "geossl.yaml").write_text(SETTINGS)
    opened = Project.load(tmp_path)
    stage.run(opened, silent)
    opened.cube().tag("first", opened.cube().snapshot())
    for path in later:
        (tmp_path / path.name).rename(path)
    stage.run(opened, silent)
    return opened


@pytest.fixture
def geossl(project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Geossl:
    """Run a verb on the project; its output."""
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert app([*arguments, "-p", str(project.root)], result_action="return_value") == code
        return capsys.readouterr().out

    return run


def chunk(project: Project) -> Path:
    """The largest chunk of the cube, which holds pixels."""
    return max((project.store / "cube" / "chunks").iterdir(), key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_log_diff_and_time_travel(project: Project, geossl: Geossl) -> None:
    newest, first = project.cube().snapshot(), project.cube().tags()["first"]
    told = geossl("cube", "log")
    assert "ingest 1 scene(s) into sentinel-2-l2a" in told
    assert told.index(newest) < told.index(first)
    rows = json.loads(geossl("cube", "log", "--last", "2", "--json"))
    assert [row["snapshot"] for row in rows] == [newest, first]
    assert [row["tags"] for row in rows] == [[], ["first"]]
    assert [row["scenes"]["sentinel-2-l2a"] for row in rows] == [2, 1]
    assert "added (1)" in geossl("cube", "diff")
    found = json.loads(geossl("cube", "diff", "first", newest, "--json"))["collections"]["sentinel-2-l2a"]
    assert (len(found["added"]), found["removed"], len(found["tiles"])) == (1, [], len(project.scenes().tile_ids))
    assert "nothing changed" in geossl("cube", "diff", newest, newest)
    then, now = (json.loads(geossl("scenes", "--json", *more)) for more in (("--snapshot", "first"), ()))
    assert [row["id"] for row in now] == [*(row["id"] for row in then), *found["added"]]


def test_damage_is_told_and_mended(project: Project, geossl: Geossl) -> None:
    assert "all sound" in geossl("cube", "check")
    path = chunk(project)
    flip(path)
    told = geossl("cube", "check", code=DAMAGED)
    assert "sentinel-2-l2a/" in told
    assert "geossl cube check --repair" in told
    (damage,) = json.loads(geossl("cube", "check", "--json", code=DAMAGED))["damage"]
    assert damage["scene"] in told
    assert "will be read again" in geossl("cube", "check", "--repair")
    assert "1 scene" in geossl("ingest")
    assert "all sound" in geossl("cube", "check")
    with pytest.raises(GeosslError, match="only the newest"):
        geossl("cube", "check", "--repair", "--snapshot", "first")


def test_expire_and_gc_say_what_they_free(project: Project, geossl: Geossl) -> None:
    assert "2 snapshot(s) would be forgotten" not in geossl("cube", "expire", "--keep", "90d", "--dry-run")
    flip(chunk(project))  # so that a scene is read again, and its first pixels are garbage later
    geossl("cube", "check", "--repair")
    geossl("ingest")
    before = len(project.cube().log())
    told = geossl("cube", "expire", "--keep", "0h", "--dry-run")
    assert "would be forgotten" in told
    assert len(project.cube().log()) == before
    told = geossl("cube", "expire", "--keep", "0h")
    assert "0 B freed" in told or "0B freed" in told
    assert len(project.cube().log()) < before
    for path in (project.store / "cube").rglob("*"):
        if path.is_file():
            time = path.stat().st_mtime - 2 * LONGEST_INGEST.total_seconds()
            os.utime(path, (time, time))
    dry = geossl("cube", "gc", "--dry-run")
    assert "would be freed" in dry
    assert geossl("cube", "gc") == dry.replace("would be freed", "freed")
    assert len(json.loads(geossl("scenes", "--json", "--snapshot", "first"))) == 1
    assert "all sound" in geossl("cube", "check")
    with pytest.raises(GeosslError, match="is no time span"):
        geossl("cube", "expire", "--keep", "soon")


def test_migrate_has_nothing_to_do(geossl: Geossl) -> None:
    assert "nothing to do" in geossl("cube", "migrate")


def test_export_names_what_it_wrote(project: Project, geossl: Geossl) -> None:
    target = project.root / "scenes.parquet"
    assert "2 scene(s)" in geossl("cube", "export", str(target))
    assert target.stat().st_size > 1000
    assert "1 scene(s)" in geossl("cube", "export", str(target), "--snapshot", "first")
    with pytest.raises(GeosslError, match="parquet"):
        geossl("cube", "export", str(project.root / "scenes.csv"))


def test_a_held_scene_is_marked(project: Project, geossl: Geossl) -> None:
    assert "held" not in geossl("scenes") + geossl("status")
    scene = json.loads(geossl("scenes", "--json"))[-1]["id"]
    hold(project.cube(), project.sensor.name, {scene: "looks like haze"})
    told = geossl("scenes")
    assert [line for line in told.splitlines() if scene in line] == [
        line for line in told.splitlines() if "haze" in line
    ]
    assert "geossl drift --release" in told
    assert [row["held"] for row in json.loads(geossl("scenes", "--json"))] == [None, "looks like haze"]
    assert json.loads(geossl("status", "--json"))["held"] == 1
    assert "all sound" in geossl("cube", "check")
    assert geossl("drift", "--release", scene) == f"released {scene}\n"
    assert "held" not in geossl("scenes") + geossl("status")
