"""What must be true of a project at the end of the year; every function raises AssertionError where it is not."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter

import numpy as np
import rasterio
from numpy.typing import NDArray

from geossl.cube.check import check as check_cube
from geossl.cube.hold import held_scenes
from geossl.cube.repository import View
from geossl.cube.scenes import quarantined
from geossl.downstream.task import CARD, WEIGHTS
from geossl.maps.published import find_map
from geossl.nets.weights import load_card
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import alerts_score, maintain
from geossl.project.stages.run import order, run_all, stage
from geossl.registry import Version
from tests.soak.world import BETTER, FATES, WORSE, Fate


def scenes(project: Project) -> None:
    """Every scene is where it belongs, once, and every byte of the cube is as it was written."""
    cube = project.cube()
    report = check_cube(cube)
    assert not report.damage, report.damage
    images = project.scenes()
    wanted = {scene for scene, fate in FATES.items() if fate is not Fate.ASIDE}
    steps: Counter[str] = Counter()
    clear: dict[str, float] = {}
    for tile_id in images.tile_ids:
        ids = images.scene_ids(tile_id)
        assert len(ids) == len(set(ids)), f"{tile_id} has a scene twice"
        steps.update(ids)
        for scene, share in zip(ids, images.clear_fraction(tile_id).tolist(), strict=True):
            clear[scene] = max(clear.get(scene, 0.0), share)
    assert steps.keys() == wanted
    for scene, fate in FATES.items():
        if fate in (Fate.CLOUDED, Fate.HELD):
            assert clear[scene] == 0, f"{scene} shows clear ground although it is {fate}"
        elif fate is Fate.GOOD:
            assert clear[scene] > 0, f"{scene} shows no clear ground"


def set_aside(project: Project) -> None:
    """What is bad is set aside, with its reason, and nothing else."""
    found = quarantined(project.cube().view(), project.sensor.name)
    bad = {scene for scene, fate in FATES.items() if fate is Fate.ASIDE}
    assert all(item.reason for item in found)
    assert {scene for scene in FATES if any(scene in item.source for item in found)} == bad, found
    assert len(found) == len(bad), found


def held(project: Project) -> None:
    """The offset is held, and nothing else."""
    group = project.cube().view().root[project.sensor.name]
    found = held_scenes(group)  # type: ignore[arg-type]
    assert found.keys() == {scene for scene, fate in FATES.items() if fate is Fate.HELD}, found
    assert all(why.startswith("offset") for why in found.values()), found


def challengers(project: Project) -> None:
    """The worse one was refused, the better one makes the maps."""
    registry = project.registry
    labels = {version.number: labels_of(project, version) for version in registry.versions("landcover")}
    decided = {entry["challenger"]: entry["decision"] for entry in registry.decisions("landcover")}
    worse = [number for number, count in labels.items() if count == WORSE.labels]
    assert worse, f"no challenger learnt from {WORSE.labels} labels: {labels}"
    for number in worse:
        assert not decided[number]["passed"], decided[number]
        assert decided[number]["blocks"] >= 12
    champion = registry.find("landcover", "champion")
    assert champion is not None
    assert labels[champion.number] == BETTER.labels, (labels, decided)
    assert decided[champion.number]["passed"]


def labels_of(project: Project, version: Version) -> int:
    """From how many labelled pixels a version learnt."""
    return int(json.loads((project.store / version.folder / CARD).read_text())["settings"]["labels"])


def lineage(project: Project) -> None:
    """Whatever is published leads back to its model, encoder, snapshot and scenes."""
    cube, tags = project.cube(), project.cube().tags()
    releases = sorted(path for path in project.maps.glob("*/releases/[!.]*"))
    assert releases
    for folder in releases:
        release = find_map(project.maps, folder)
        view = cube.view(tags[release.tag])
        assert (project.tasks / release.name / release.model / WEIGHTS).is_file()
        model = json.loads((project.tasks / release.name / release.model / CARD).read_text())
        encoder = json.loads((folder / f"{release.name}-lineage.json").read_text())["encoder"]
        assert (encoder or "") == model["encoder"]
        if encoder is not None:  # some models look at statistics of the bands alone
            card = load_card(project.encoders / encoder)
            assert card.snapshot is not None
            cube.view(card.snapshot)
        _known(view, release.collection, [s for record in release.records for s in record.sources], str(folder))
        for record in release.records:
            _known(cube.view(record.snapshot), release.collection, record.sources, f"{folder} {record.tile}")
    for monitor in project.settings.alerts:
        for folder in (project.store / "alerts" / monitor / "releases").glob("[!.]*"):
            cube.view(tags[f"alerts-{monitor}-{folder.name}"])


def _known(view: View, collection: str, sources: object, where: str) -> None:
    images = view.collection(collection)
    for source in sources:  # type: ignore[attr-defined]
        ids = images.scene_ids(source.tile)
        assert source.scene in ids, f"{where}: {source.scene} is not in snapshot {view.snapshot}"
        at = ids.index(source.scene)
        assert images.checksums(source.tile)[at] == source.checksum, f"{where}: {source.scene} is another one"


def alerts(project: Project) -> None:
    """New clearings were found: most of their area, and little else."""
    judged = alerts_score.scores(project, silent)["clearings"].total(sure=True)
    assert judged["omission"] < 0.5, judged
    assert judged["commission"] < 0.5, judged


def nothing_left_to_do(project: Project) -> None:
    """The loop comes to rest: after one more round at most, since a new encoder looks once more at what is new to it."""
    run_all(project, silent)
    for verb in order(project):
        result = stage(verb)(project, silent)
        assert result.skipped, result


def bytes_by_kind(project: Project) -> dict[str, int]:
    """What lies in the store, by kind."""
    return {
        path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        for path in sorted(project.store.iterdir())
        if path.is_dir()
    }


def maintained(project: Project) -> None:
    """What nothing has needed for a week is removed, as in the year's upkeep."""
    today = dt.datetime.now(dt.UTC)
    for day in (0, 8):
        maintain.run(project, silent, now=today + dt.timedelta(days=day))


def bounded(project: Project, reference: Project) -> None:
    """However long the way was, at most four times as much is left as where nothing ever went wrong, and 4 MB."""
    ours, theirs = bytes_by_kind(project), bytes_by_kind(reference)
    for kind, size in ours.items():
        # releases, versions and their encoders: some are kept, however few there were without trouble
        assert size <= 4 * theirs.get(kind, 0) + 4e6, f"{kind}: {size} bytes, {theirs.get(kind, 0)} without trouble"


def no_litter(project: Project) -> None:
    """Nothing is left of what was never finished."""
    found = [
        path
        for path in project.store.rglob("*")
        if path.name.startswith((".partial-", "unfinished-")) or path.name.endswith(".partial")
    ]
    assert not found, found


def rasters(project: Project) -> dict[str, NDArray[np.uint8]]:
    """The published maps and alerts, pixel by pixel."""
    found = {}
    latest = [*project.maps.glob("*/latest"), *(project.store / "alerts").glob("*/latest")]
    for folder in sorted(latest):
        for path in sorted(folder.glob("*.tif")):
            with rasterio.open(path) as file:
                found[f"{folder.parent.name}/{path.name}"] = file.read()
    assert found
    return found


def same_maps(project: Project, other: Project) -> None:
    """Two projects have published the same."""
    ours, theirs = rasters(project), rasters(other)
    assert ours.keys() == theirs.keys()
    for name, pixels in ours.items():
        assert pixels.shape == theirs[name].shape, name
        differ = (pixels != theirs[name]).sum()
        assert not differ, f"{name}: {differ} of {pixels.size} pixels differ"


# what a refused challenger was is seen before upkeep removes it
EVERYTHING = (nothing_left_to_do, challengers, maintained, no_litter, scenes, set_aside, held, lineage, alerts)


def at_the_end(project: Project, reference: Project) -> None:
    """All of it; the reference is where the loop comes to rest when nothing ever goes wrong."""
    for check in EVERYTHING:
        check(project)
    same_maps(project, reference)
    bounded(project, reference)
