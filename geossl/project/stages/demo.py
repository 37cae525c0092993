"""`geossl demo`: a generated landscape, and the main job on it as on any other imagery."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

from geossl.demo.landscape import LandscapeSettings, write_landscape
from geossl.files import write_json, write_text
from geossl.progress import Progress
from geossl.project.load import FILE_NAME
from geossl.project.project import Project, StageResult
from geossl.project.stages.run import run_all
from geossl.project.state import State, fingerprint


def demo(folder: Path, progress: Progress) -> list[StageResult]:
    """Write the landscape, run every stage on it, and collect what came out at the top of ``folder``.

    Writes ``report.html``, ``scores.json`` (rows of task, split, labels, model, metric, mean, low, high)
    and ``timings.json`` (seconds by stage) beside the project and its store.
    """
    text = resources.files("geossl.demo").joinpath(FILE_NAME).read_text(encoding="utf-8")
    write_text(folder / FILE_NAME, text)
    project = Project.load(folder)
    results = [_landscape(folder, State(project.store), progress), *run_all(project, progress)]
    shutil.copyfile(project.report_file, folder / "report.html")
    write_json(folder / "scores.json", project.scores())
    write_json(folder / "timings.json", {record.stage: record.seconds for record in project.state.records()})
    return results


def _landscape(folder: Path, state: State, progress: Progress) -> StageResult:
    settings = LandscapeSettings()
    key = fingerprint(landscape=settings)
    if state.fresh("landscape", key) is not None:
        return StageResult("landscape", skipped=True)
    with state.recording("landscape", key):
        info = write_landscape(folder / "imagery", settings, progress)
    return StageResult(
        "landscape", [f"{len(info.scenes)} scenes of {settings.size} × {settings.size} pixels generated"]
    )
