"""The loop: judge what came in, let it be mapped, and learn again where that is worth it."""

from __future__ import annotations

from pathlib import Path

from flows import artifacts
from flows.events import ACCEPTED, PROMOTED, TRAINED, announce
from flows.stage import of_project, run_stage
from geossl.project.project import Project, StageResult
from geossl.project.stages import run as stages


@of_project
def retrain(project_file: Path, overrides: list[str] | None = None) -> list[StageResult]:
    """Judge new scenes and make them ready, wake the maps, and learn again where the policy says so.

    A new model makes maps only after it has passed the gate. Without a policy (`retrain:` in the project file)
    whatever is out of date is learnt again and used at once.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file, such as ``retrain.hours=40``.
    """
    project = Project.load(project_file, overrides or [])
    results = [run_stage(verb, project_file, overrides) for verb in stages.part(project, "accept")]
    if not all(result.skipped for result in results):  # the ingest that should have done it was cut off
        announce(ACCEPTED, project, held=sum(result.set_aside for result in results))
    encoder = project.state.get("pretrain")
    learnt = [run_stage(verb, project_file, overrides) for verb in stages.part(project, "learn")]
    trained = project.state.get("pretrain")
    if trained is not None and (encoder is None or encoder.finished != trained.finished):
        announce(TRAINED, project, encoder=trained.result["encoder"])
        artifacts.encoder(project)
    announce_promoted(project_file, overrides)
    if not all(result.skipped for result in learnt):
        artifacts.scores(project)
    return [*results, *learnt]


def announce_promoted(project_file: Path, overrides: list[str] | None) -> None:
    """Wake the maps where a champion did not make its task's map yet."""
    project = Project.load(project_file, overrides or [])
    if models := project.unmapped():
        announce(PROMOTED, project, models=models)
