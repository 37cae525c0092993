"""Backups: consistent while others write, whole after kills, and everything is there again after the drill."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zarr

from geossl.cli.app import app
from geossl.cube.check import check
from geossl.cube.repository import Cube
from geossl.errors import StoreError
from geossl.files import write_json
from geossl.maps.published import find_map
from geossl.mirror import Mirror
from geossl.progress import silent
from geossl.project.backup.vault import Vault
from geossl.project.project import Project
from geossl.project.stages import backup as stage
from geossl.project.stages.run import run_all
from geossl.registry import Registry

PROJECT = "name: kept\nsources: [{ kind: folder, path: imagery }]\n"
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow takes seconds to make its database; that it can be made from the registry is tested there."""
    monkeypatch.setattr(Mirror, "update", lambda *_: None)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A store with a cube of one commit, a registered model, records and a published map."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "geossl.yaml").write_text(PROJECT)
    project = Project.load(home)
    commit(Cube.create(project.cube_uri), 0)
    for name in ("a", "b"):
        folder = project.tasks / "cover" / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(os.urandom(3000))
        project.registry.register("cover", folder)
    release = project.maps / "cover" / "releases" / "one"
    release.mkdir(parents=True)
    (release / "cover.tif").write_bytes(b"pixels")
    (project.maps / "cover" / "latest").symlink_to("releases/one", target_is_directory=True)
    write_json(project.state.folder / "ingest.json", {"snapshot": project.cube().snapshot()})
    (project.store / ".partial-1-half").write_bytes(b"half")
    return project


def commit(cube: Cube, number: int) -> str:
    def work(session: object) -> str:
        root = zarr.open_group(session.store, mode="r+")  # type: ignore[attr-defined]
        root.attrs["number"] = number
        root.create_array(f"a{number}", shape=(2000,), dtype="i4", overwrite=True)[:] = number + 1
        return f"number {number}"

    return cube.transact(work)


def content(store: Path) -> dict[str, str]:
    """Path → what it holds, of everything that a backup should bring back."""
    found = {}
    for path in sorted(store.rglob("*")):
        name = path.relative_to(store).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and not path.name.startswith(".partial") and not name.endswith(".lock"):
            found[name] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return found


def take(project: Project, place: Path, **options: int) -> list[str]:
    return stage.backup(project, str(place), silent, **options).lines


def test_the_drill(project: Project, tmp_path: Path) -> None:
    place, before = tmp_path / "elsewhere", content(project.store)
    versions, aliases = project.registry.versions("cover"), project.registry.aliases("cover")
    take(project, place)
    shutil.rmtree(project.store)
    (project.root / "geossl.yaml").unlink()
    lines = stage.restore(project.root, str(place), silent).lines
    assert "geossl.yaml was written" in lines[0]
    assert content(project.store) == before
    assert (project.root / "geossl.yaml").read_text() == PROJECT
    assert check(project.cube()).damage == []
    assert (project.registry.versions("cover"), project.registry.aliases("cover")) == (versions, aliases)
    assert (project.maps / "cover" / "latest" / "cover.tif").read_bytes() == b"pixels"
    assert "these 0 MB" in take(project, place)[1]
    assert len(Vault(str(place)).objects()) == len(set(before.values())) - 1, "each content once; the link is none"


def test_only_what_is_new_is_copied_and_older_backups_stay(project: Project, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    take(project, place)
    first = content(project.store)
    objects = Vault(str(place)).objects()
    (project.maps / "big.tif").write_bytes(os.urandom(2_000_000))
    (project.maps / "copy.tif").write_bytes((project.maps / "big.tif").read_bytes())
    commit(project.cube(), 1)
    assert "of these 2 MB" in take(project, place)[1]
    assert objects.keys() < Vault(str(place)).objects().keys()
    oldest, newest = Vault(str(place)).names()
    second = content(project.store)
    for at, wanted in ((oldest, first), (None, second), (newest, second)):
        shutil.rmtree(project.store)
        stage.restore(project.root, str(place), silent, at=at)
        assert content(project.store) == wanted
    (project.maps / "big.tif").unlink()
    (project.maps / "copy.tif").unlink()
    take(project, place, keep=1)
    assert len(Vault(str(place)).names()) == 1
    assert max(Vault(str(place)).objects().values()) < 2_000_000, "what only older backups had goes with them"


def test_damage_is_found_and_mended_by_the_next_backup(project: Project, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    take(project, place)
    model = project.tasks / "cover" / "a" / "model.safetensors"
    name = Vault(str(place)).read(Vault(str(place)).names()[-1]).files["tasks/cover/a/model.safetensors"].object
    damaged = place / "objects" / name[:2] / name
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    store = project.store.rename(project.root / "moved")
    with pytest.raises(StoreError, match="damaged"):
        stage.restore(project.root, str(place), silent)
    assert not project.store.exists()
    store.rename(project.store)
    found = stage.verify(str(place), silent)
    assert found.set_aside == 1
    assert "tasks/cover/a/model.safetensors: " in found.lines[0]
    take(project, place)
    assert stage.verify(str(place), silent).set_aside == 0
    content_there = model.read_bytes()
    shutil.rmtree(project.store)
    stage.restore(project.root, str(place), silent)
    assert model.read_bytes() == content_there


def test_what_cannot_be_is_refused(project: Project, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    with pytest.raises(StoreError, match="no folder"):
        stage.restore(project.root, str(place), silent)
    with pytest.raises(StoreError, match="within the store"):
        take(project, project.store / "backup")
    shutil.rmtree(project.store / "backup", ignore_errors=True)
    take(project, place)
    with pytest.raises(StoreError, match="already is a store"):
        stage.restore(project.root, str(place), silent)
    (project.root / "geossl.yaml").write_text(PROJECT.replace("kept", "other"))
    with pytest.raises(StoreError, match="holds backups of project 'kept'"):
        take(Project.load(project.root), place)
    with pytest.raises(StoreError, match="no backup 'x'"):
        stage.restore(project.root, str(place), silent, at="x")
    with pytest.raises(StoreError, match="not empty"):
        take(project, project.root)


def test_an_interrupted_restore_goes_on(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, before = tmp_path / "elsewhere", content(project.store)
    take(project, place)
    shutil.rmtree(project.store)
    fetch, calls = Vault.fetch, iter(range(99))

    def killed(self: Vault, *args: object) -> None:
        if next(calls) == 5:
            raise KeyboardInterrupt
        fetch(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Vault, "fetch", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.restore(project.root, str(place), silent)
    assert not project.store.exists()
    (project.root / "store.restoring" / "of-another-backup").write_bytes(b"?")
    stage.restore(project.root, str(place), silent)
    assert content(project.store) == before


def test_on_the_command_line(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def geossl(*words: str) -> int:
        return app([*words, "-p", str(project.root)], result_action="return_value")

    place = str(tmp_path / "elsewhere")
    assert geossl("backup", place) == 0
    assert geossl("backup", place, "--verify") == 0
    assert geossl("restore", place, "--list") == 0
    assert project.cube().snapshot() in capsys.readouterr().out
    shutil.rmtree(project.store)
    assert geossl("restore", place) == 0
    assert Registry(project.store).aliases("cover")["champion"] == 1


WRITER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from geossl.files import write_json
from geossl.mirror import Mirror
from geossl.project.project import Project
from tests.project.test_backup import commit
Mirror.update = lambda *_: None
project = Project.load(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count(1):
    snapshot = commit(project.cube(), number)
    write_json(project.state.folder / "ingest.json", {"snapshot": snapshot, "number": number})
    folder = project.tasks / "cover" / f"model-{number}"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(str(number).encode() * 2000)
    write_json(folder / "card.json", {"number": number})
    project.registry.promote("cover", project.registry.register("cover", folder).number, why="by hand")
    write_json(project.state.folder / "finetune.cover.json", {"model": f"model-{number}"})
"""

SAVER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import backup
project = Project.load(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count():
    for name in range(40):
        (project.maps / f"{name}.tif").write_bytes(f"{number} {name}".encode() * 20_000)
    backup.backup(project, sys.argv[3], silent)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_what_a_backup_says_is_true_of_what_it_holds_while_others_write(project: Project, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    writer = start(WRITER, str(project.root), ROOT)
    try:
        for _ in range(6):
            take(project, place, keep=99)
            time.sleep(0.1)
    finally:
        stop(writer)
    numbers = []
    for number, name in enumerate(Vault(str(place)).names()):
        home = tmp_path / f"again-{number}"
        stage.restore(home / "geossl.yaml", str(place), silent, at=name)
        again = Project.load(home)
        assert check(again.cube()).damage == []
        record = json.loads((again.state.folder / "ingest.json").read_text())
        history = [entry.snapshot for entry in again.cube().log()]
        assert record["snapshot"] in history, "the cube is at least as new as what is said of it"
        numbers.append(record.get("number", 0))
        champion = again.registry.find("cover", "champion")
        assert champion is not None
        assert (again.store / champion.folder / "model.safetensors").is_file()
        for version in again.registry.versions("cover"):
            assert (again.store / version.folder).is_dir()
        learnt = again.state.folder / "finetune.cover.json"
        if learnt.exists():
            assert (again.tasks / "cover" / json.loads(learnt.read_text())["model"] / "card.json").is_file()
    assert numbers == sorted(numbers)
    assert numbers[-1] > numbers[0] + 3, "the writer was not held up"


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_backups_that_were_there(project: Project, tmp_path: Path) -> None:
    place, rng = tmp_path / "elsewhere", random.Random(0)
    take(project, place)
    for kill in range(4):
        saver = start(SAVER, str(project.root), ROOT, str(place))
        time.sleep(rng.uniform(0, 0.6))
        stop(saver)
        assert stage.verify(str(place), silent).set_aside == 0
        vault = Vault(str(place))
        home = tmp_path / f"again-{kill}"
        stage.restore(home / "geossl.yaml", str(place), silent, at=rng.choice(vault.names()))
        assert check(Project.load(home).cube()).damage == []
    take(project, place)
    wanted = content(project.store)
    shutil.rmtree(project.store)
    stage.restore(project.root, str(place), silent)
    assert content(project.store) == wanted
    take(project, place, keep=1)
    used = {stored.object for stored in Vault(str(place)).read(Vault(str(place)).names()[0]).files.values()}
    assert {path.name for path in (place / "objects").rglob("*") if path.is_file()} == used, (
        "kills leave nothing behind"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_the_drill_there_is_nothing_left_to_do(small_project: Path, tmp_path: Path) -> None:
    project = Project.load(small_project)
    run_all(project, silent)
    place, home = tmp_path / "elsewhere", tmp_path / "another machine"
    take(project, place)
    shutil.copytree(small_project / "imagery", home / "imagery")  # which is not in the backup
    stage.restore(home, str(place), silent)
    again = Project.load(home)
    assert all(result.skipped for result in run_all(again, silent))
    assert check(again.cube()).damage == []
    for task in project.settings.tasks:
        assert again.registry.find(task, "champion") == project.registry.find(task, "champion")
        there, here = (find_map(each.maps, task) for each in (project, again))
        assert here.records == there.records
        assert set(again.cube().tags()) >= {here.tag}


@pytest.mark.slow
def test_a_bucket_is_as_good_as_a_folder(project: Project) -> None:
    from tests.cube.s3_servers import BUCKET, moto, reached

    before = content(project.store)
    with moto() as endpoint, reached(endpoint):
        place = f"s3://{BUCKET}/backups/of/kept"
        stage.backup(project, place, silent)
        commit(project.cube(), 1)
        stage.backup(project, place, silent)
        assert stage.verify(place, silent).set_aside == 0
        oldest, _ = Vault(place).names()
        shutil.rmtree(project.store)
        stage.restore(project.root, place, silent, at=oldest)
        assert content(project.store) == before
        with pytest.raises(StoreError, match=r"cannot be read|holds no backup"):
            stage.restore(project.root, f"s3://{BUCKET}/nothing", silent)
