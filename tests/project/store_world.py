"""A store that has lived for a while: what stages would leave behind, without their work."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import zarr

from geossl.areas.release import problems, releases, seal
from geossl.cube.repository import Cube
from geossl.files import write_json
from geossl.project.project import Project

TASK = "loss"


class World:
    """Does to a store what trainings, maps, samples and releases do."""

    def __init__(self, folder: Path, *settings: str) -> None:
        (folder / "geossl.yaml").write_text("name: long\nsources: [{kind: folder, path: imagery}]\n")
        self.project = Project.load(folder, settings)
        self.cube = Cube.create(self.project.cube_uri)
        self.count = itertools.count()
        self.commit()

    def commit(self) -> str:
        """Something new in the cube."""

        def touch(session: Any) -> str:
            zarr.open_group(session.store, mode="r+").attrs["touched"] = next(self.count)
            return "touched"

        return self.cube.transact(touch)

    def train(self) -> str:
        """An encoder, learnt from the newest snapshot."""
        number = next(self.count)
        encoder, key, snapshot = f"simclr-{number}", f"{number:016x}", self.cube.snapshot()
        self.cube.tag(f"pretrain-{key}", snapshot)
        self.write(self.project.encoders / encoder, {"id": encoder, "snapshot": snapshot})
        with self.project.state.recording("pretrain", key) as result:
            result.update(encoder=encoder, snapshot=snapshot)
        return encoder

    def finetune(self) -> int:
        """A registered model of the newest encoder."""
        model, snapshot = f"change-dense-{next(self.count)}", self.cube.snapshot()
        encoder = self.project.encoder_folder().name
        home = self.project.tasks / TASK / model
        self.write(home, {"id": model, "snapshot": snapshot, "encoder": encoder})
        self.cube.tag(f"task-{TASK}-{model}", snapshot)
        with self.project.state.recording(f"challenger.{TASK}", model) as result:
            result.update(model=model, encoder=encoder)
        return self.project.registry.register(TASK, home, card={"id": model, "encoder": encoder}).number

    def publish(self, *, again: bool = True) -> str:
        """A map by the champion; ``again``: one tile of it was predicted when the map before was."""
        champion = self.project.registry.find(TASK, "champion")
        assert champion is not None
        releases = self.project.maps / TASK / "releases"
        release, model, snapshot = f"2024-{next(self.count)}", Path(champion.folder).name, self.cube.snapshot()
        tiles = [{"tile": "east", "task": model, "snapshot": snapshot}]
        before = sorted(releases.glob("*"), key=lambda path: int(path.name.partition("-")[2]))
        if before and again:
            [*_, old] = json.loads((before[-1] / f"{TASK}-lineage.json").read_text())["tiles"]
            tiles.append(old)
        write_json(
            releases / release / f"{TASK}-lineage.json",
            {"task": model, "encoder": champion.card["encoder"], "tiles": tiles},
        )
        for path in before[:-2]:
            shutil.rmtree(path)
        self.cube.tag(f"map-{TASK}-{release}", snapshot)
        return release

    def sample(self, release: str) -> None:
        name = f"{TASK}-{release}-{next(self.count)}"
        snapshot = self.cube.tags()[f"map-{TASK}-{release}"]
        write_json(self.project.samples / name / "sample.json", {"map": TASK, "release": release, "snapshot": snapshot})
        self.cube.tag(f"sample-{name}", snapshot)

    def freeze(self, release: str) -> None:
        """A reporting year from a map."""
        year, published = 2000 + next(self.count), self.project.maps / TASK / "releases" / release
        model = json.loads((published / f"{TASK}-lineage.json").read_text())["task"]
        snapshot, tag = self.cube.tags()[f"map-{TASK}-{release}"], f"release-{TASK}-{year}"
        self.cube.tag(tag, snapshot)
        folder = self.project.releases / TASK / str(year)
        shutil.copytree(published, folder / "map")
        shutil.copytree(self.project.tasks / TASK / model, folder / "model")
        content = {"task": TASK, "year": year, "revision": 1, "map": release, "model": model}
        seal(folder, content | {"snapshot": snapshot, "tag": tag})

    def write(self, folder: Path, card: dict[str, Any]) -> None:
        write_json(folder / "card.json", card)
        (folder / "model.safetensors").write_bytes(bytes(1000))

    def require_lineage(self) -> None:
        """Published maps can be traced, releases verify, and whatever an alias names is there."""
        registry, cube = self.project.registry, Cube.open(self.cube.uri)
        cards = []
        for path in self.project.maps.glob("*/releases/*/*-lineage.json"):
            lineage = json.loads(path.read_text())
            assert cube.tags()[f"map-{path.parents[2].name}-{path.parent.name}"]
            for tile in lineage["tiles"]:
                assert cube.view(tile["snapshot"]).id
                cards.append(self.project.tasks / TASK / tile["task"] / "card.json")
        named = [registry.version(TASK, number) for number in registry.aliases(TASK).values()]
        cards += [self.project.store / version.folder / "card.json" for version in named]
        for path in cards:
            card = json.loads(path.read_text())
            assert (path.parent / "model.safetensors").is_file()
            assert cube.view(card["snapshot"]).id
            encoder = json.loads((self.project.encoders / card["encoder"] / "card.json").read_text())
            assert cube.view(encoder["snapshot"]).id
        for path in self.project.samples.glob("*/sample.json"):
            assert cube.view(f"sample-{path.parent.name}").id
        for year in releases(self.project.releases / TASK):
            assert list(problems(year)) == []
            assert cube.tags()[year.content["tag"]] == year.content["snapshot"]
            assert cube.view(year.content["snapshot"]).id
            card = json.loads((year.folder / "model" / "card.json").read_text())
            assert (self.project.encoders / card["encoder"]).is_dir()
        assert self.project.encoder_folder().is_dir()
