"""Every task from its labels, by hand."""

from __future__ import annotations

from pathlib import Path

from flows import artifacts
from flows.retrain import announce_promoted
from flows.stage import of_project, run_stage
from geossl.project.project import Project, StageResult


@of_project
def finetune(project_file: Path, overrides: list[str] | None = None) -> StageResult:
    """Learn every task whose labels, images, encoder or settings changed; the new models make the maps at once.

    The loop instead lets a new model pass the gate before it makes maps.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file.
    """
    result = run_stage("finetune", project_file, overrides)
    announce_promoted(project_file, overrides)
    if not result.skipped:
        artifacts.scores(Project.load(project_file, overrides or []))
    return result
