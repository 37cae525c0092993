"""`geossl stats`: band statistics over clear pixels, and cloud-free composites."""

from __future__ import annotations

from geossl.cluster import dask_client
from geossl.cube import statistics
from geossl.cube.collection import Collection
from geossl.cube.composite import composite
from geossl.cube.settings import CompositeSettings
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.state import content, fingerprint


def run(project: Project, progress: Progress) -> StageResult:
    """Bring statistics and composites up to date with the scenes in the cube."""
    scenes = project.scenes()
    named = project.named_periods
    # without named periods it is the key of cubes that knew none
    key = fingerprint(
        scenes=content(scenes), composite=project.settings.composite, **({"periods": named} if named else {})
    )
    if project.state.fresh("stats", key) is not None:
        return StageResult("stats", skipped=True)
    with project.state.recording("stats", key), dask_client(project.settings.cluster) as client:
        cube = project.cube()
        note = project.store / "state" / f"{scenes.name}-counted.npz"
        known = statistics.Counted.read(note, scenes.sensor)
        counted = statistics.count(scenes, known, client=client, progress=progress)
        statistics.store(cube, scenes.name, counted.statistics())
        counted.write(note, scenes.sensor)
        if project.settings.composite is not None:
            composite(cube, scenes.name, project.settings.composite, client, progress)
        if named:
            rule = project.settings.composite or CompositeSettings()
            composite(cube, scenes.name, rule, client, progress, named=named)
    return StageResult("stats", [*_bands(project.scenes()), *_composites(project)])


def _bands(scenes: Collection) -> list[str]:
    found = scenes.statistics
    assert found is not None
    unit = scenes.sensor.radiometry
    rows = zip(scenes.sensor.band_names, found.mean, found.std, strict=True)
    shown = ", ".join(
        f"{name} {mean * unit.scale + unit.offset:.3g} ± {abs(std * unit.scale):.2g}" for name, mean, std in rows
    )
    return [f"mean ± std over {found.count[0]:,} clear pixels ({unit.unit}): {shown}"]


def _composites(project: Project) -> list[str]:
    view, found = project.cube().view(), []
    for name in (project.composite_name, project.periods_name):
        if name in view.collections():
            images = view.collection(name)
            periods = sorted({period for tile_id in images.tile_ids for period in images.scene_ids(tile_id)})
            found.append(f"composites: {', '.join(periods)}")
    return found
