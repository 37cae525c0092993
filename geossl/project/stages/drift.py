"""`geossl drift`: has the imagery moved away from what the encoder was trained on, and is that the land or a fault?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from geossl.cube.arrays import subgroup
from geossl.cube.collection import Collection
from geossl.cube.hold import held_scenes, hold, release
from geossl.cube.repository import View
from geossl.downstream.finetune import device
from geossl.drift.baseline import Baseline, ShortHistoryError
from geossl.drift.faults import Finding, Watch
from geossl.drift.places import descriptions
from geossl.drift.table import Descriptions
from geossl.errors import StoreError
from geossl.files import read_json, write_bytes, write_json
from geossl.nets.weights import load_encoder
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.stages.maintain import attend
from geossl.project.state import content, fingerprint
from geossl.report.charts import distances

PICTURE, FIGURES = "drift.png", "drift.json"


@dataclass(frozen=True)
class Drift:
    """What the scenes after the training snapshot are like beside those in it."""

    encoder: str
    history: list[tuple[str, np.datetime64, float]]
    """Scene, time and distance of every scene of the history that could be judged."""
    threshold: float
    promised: float
    """The share of usual scenes that are called unusual, at most."""
    findings: list[Finding]
    """Of the scenes since, in order of time."""
    too_cloudy: list[str]
    held: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "encoder": self.encoder,
            "threshold": self.threshold,
            "false_alarms": self.promised,
            "history": [{"scene": s, "time": str(t)[:19], "distance": d} for s, t, d in self.history],
            "scenes": [dataclasses.asdict(f) | {"time": str(f.time)[:19], "unusual": f.unusual} for f in self.findings],
            "too_cloudy": self.too_cloudy,
            "held": self.held,
        }


def run(project: Project, progress: Progress) -> StageResult:
    """Judge the scenes that came since the last training; hold those that look like a fault.

    Writes figures and a picture below ``<store>/drift``.

    Raises
    ------
    StoreError
        The snapshot that the encoder was trained on is gone.
    """
    if project.state.get("pretrain") is None:
        return StageResult("drift", ["there is no encoder yet to have drifted away from"], skipped=True)
    key = _key(project, project.scenes())
    if project.state.fresh("drift", key) is not None:
        return StageResult("drift", skipped=True)
    try:
        found = measure(project, progress)
    except ShortHistoryError as error:  # nothing is wrong, and other stages go on
        return StageResult("drift", [error.what], skipped=True)
    released = project.state.get("released")
    faults = {
        f.scene: f"{f.fault}: {f.why}"
        for f in found.findings
        if f.fault is not None and (released is None or f.scene not in released.result)
    }
    new = hold(project.cube(), project.sensor.name, faults) if faults else []
    if new:
        attend(project)
    found = dataclasses.replace(found, held=_held(project.cube().view(), project.sensor.name))
    folder = project.store / "drift"
    write_json(folder / FIGURES, found.to_dict())
    write_bytes(folder / PICTURE, picture(found))
    unusual = [f for f in found.findings if f.unusual and f.fault is None]
    judged = sum(f.fault is None for f in found.findings)
    with project.state.recording("drift", key) as result:
        result.update(encoder=found.encoder, judged=judged, unusual=len(unusual), promised=found.promised)
    return StageResult(
        "drift",
        [
            f"{len(found.findings)} scenes since the training: {len(unusual)} show land that looks different, "
            f"{len(faults)} look like a fault; of usual scenes {found.promised:.0%} would be called unusual",
            *(f"held back: {scene}: {faults[scene]}" for scene in new),
            *(f"{f.scene}: {f.why}" for f in unusual),
            f"{(folder / PICTURE).relative_to(project.root)}",
        ],
        set_aside=len(new),
    )


def judged(project: Project, progress: Progress) -> tuple[str, list[str]]:
    """A snapshot of the cube in which all that looks like a fault is held, and what had to be done for that.

    Scenes may come in at any time; one that was never looked at must not be learnt from, or it would count as usual.
    """
    cube, lines = project.cube(), []
    snapshot = cube.snapshot()
    while project.state.fresh("drift", _key(project, cube.view(snapshot).collection(project.sensor.name))) is None:
        result = run(project, progress)
        lines += result.lines
        if result.skipped and result.lines:  # there is nothing yet to judge by
            break
        snapshot = cube.snapshot()
    return snapshot, lines


def _key(project: Project, scenes: Collection) -> str:
    return fingerprint(scenes=content(scenes), encoder=project.encoder_folder().name, settings=project.settings.drift)


def measure(project: Project, progress: Progress) -> Drift:
    """Distances of all scenes that the encoder has not seen, and what they look like. Writes nothing but a cache."""
    scenes = project.scenes()
    encoder, card = load_encoder(project.encoder_folder())
    record = project.state.get("pretrain")
    assert record is not None, "there is an encoder"
    try:
        view = project.cube().view(str(record.result["snapshot"]))
    except StoreError as error:
        raise StoreError(
            f"what {card.id} was trained on is gone: {error.what}", "train again: geossl pretrain"
        ) from None
    now, seen = _scenes(scenes), _scenes(view.collection(scenes.name))
    # what was held when the encoder was trained taught it nothing
    held, held_then = _held(project.cube().view(), scenes.name), _held(view, scenes.name)
    table = Descriptions(project.store / "drift" / card.id)
    described = {}
    missing = []
    for scene, checksum in now.items():
        if (there := table.get(scene, checksum)) is not None:
            described[scene] = there
        else:
            missing.append(scene)
    progress("scenes described", 0, len(missing))
    for done, each in enumerate(descriptions(scenes, missing, encoder, card, device=device()), start=1):
        table.put(now[each.scene], each)
        described[each.scene] = each
        progress("scenes described", done, len(missing))
    usual = [scene for scene in described if seen.get(scene) == now[scene] and scene not in held_then]
    history = sorted((described[scene] for scene in usual), key=lambda each: each.time)
    baseline = Baseline(history, false_alarms=project.settings.drift.false_alarms)
    unit, statistics = scenes.sensor.radiometry, card.statistics
    watch = Watch(
        baseline,
        [band.wavelength for band in scenes.sensor.bands],
        np.array(statistics.mean) * unit.scale + unit.offset,
        np.array(statistics.std) * unit.scale,
    )
    later = sorted((described[s] for s in described.keys() - set(usual)), key=lambda each: (each.time, each.scene))
    looked = [(each.scene, watch.look(each)) for each in later]
    return Drift(
        card.id,
        [(each.scene, each.time, float(d)) for each, d in zip(baseline.history, baseline.distances, strict=True)],
        baseline.threshold,
        baseline.promised,
        [finding for _, finding in looked if finding is not None],
        [scene for scene, finding in looked if finding is None],
        held,
    )


def let_go(project: Project, scenes: list[str]) -> list[str]:
    """Release held scenes; drift does not hold them again."""
    done = release(project.cube(), project.sensor.name, scenes)
    before = project.state.get("released")
    with project.state.recording("released", "") as result:
        result.update((before.result if before is not None else {}) | dict.fromkeys(scenes, True))
    return done


def figures(project: Project) -> dict[str, Any] | None:
    """What was written of the drift away from the newest encoder (:meth:`Drift.to_dict`); None where nothing was."""
    found = read_json(project.store / "drift" / FIGURES)
    record = project.state.get("pretrain")
    return None if found is None or record is None or found["encoder"] != record.result["encoder"] else found


def table(found: Mapping[str, Any]) -> Table:
    """The scenes since the training, for people, by the figures that were written."""
    out = Table("scene", "day", "distance", "", title=f"beside what {found['encoder']} was trained on")
    for f in found["scenes"]:
        mark = "[red]held[/red]: " if f["scene"] in found["held"] else ""
        distance = f"{f['distance']:.1f} of {f['threshold']:.1f}"
        out.add_row(f["scene"], f["time"][:10], distance, f"{mark}{f['why'] or 'usual'}")
    for scene in found["too_cloudy"]:
        out.add_row(scene, "", "–", "too little clear ground to judge")
    return out


def picture(found: Drift) -> bytes:
    """Distances over time as a PNG."""
    return distances(
        [(time, value, False) for _, time, value in found.history],
        [(f.time, f.distance, f.fault is not None) for f in found.findings],
        found.threshold,
    )


def _scenes(scenes: Collection) -> dict[str, str]:
    """Scene id → checksum of its files."""
    found: dict[str, str] = {}
    for tile_id in scenes.tile_ids:
        found |= dict(zip(scenes.scene_ids(tile_id), scenes.checksums(tile_id), strict=True))
    return found


def _held(view: View, collection: str) -> dict[str, str]:
    return held_scenes(subgroup(view.root, collection))
