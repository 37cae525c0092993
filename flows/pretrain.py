"""An encoder from the imagery, by hand."""

from __future__ import annotations

from pathlib import Path

from flows import artifacts
from flows.events import TRAINED, announce
from flows.stage import of_project, run_stage
from geossl.project.project import Project, StageResult


@of_project
def pretrain(project_file: Path, overrides: list[str] | None = None) -> list[StageResult]:
    """Train an encoder on the scenes in the cube and score it, whatever the policy of retraining says.

    Nothing is promoted by that: the loop, or `geossl-finetune`, learns the tasks from it.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file, such as ``pretrain.epochs=50``.
    """
    results = [run_stage(verb, project_file, overrides) for verb in ("stats", "pretrain", "evaluate")]
    if not results[1].skipped:
        project = Project.load(project_file, overrides or [])
        announce(TRAINED, project, encoder=project.encoder_folder().name)
        artifacts.encoder(project)
    return results
