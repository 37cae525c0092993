"""`geossl export`: an encoder for other libraries, a task's model for QGIS."""

from __future__ import annotations

from pathlib import Path

from geossl.downstream.onnx import export_onnx
from geossl.downstream.task import load_task
from geossl.errors import StoreError
from geossl.nets.export import Export, Library, export_encoder
from geossl.nets.weights import load_encoder
from geossl.project.project import Project


def run(project: Project, library: Library, folder: Path, encoder: str | None = None) -> Export:
    """Write an encoder (by default the newest) into ``folder``, for a library to load.

    Raises
    ------
    SettingsError
        The library has no such network.
    StoreError
        There is no such encoder; or the folder holds something else.
    """
    home = project.encoder_folder() if encoder is None else project.encoders / encoder
    if encoder is not None and not (home / "card.json").is_file():
        known = ", ".join(sorted(path.parent.name for path in project.encoders.glob("*/card.json"))) or "none"
        raise StoreError(f"no encoder {encoder!r} in {project.encoders}", f"there are: {known}")
    net, card = load_encoder(home)
    return export_encoder(net, card, library, folder)


def model(project: Project, task: str, path: Path) -> dict[str, str]:
    """Write the model that makes a task's map as ONNX; returns what the file says of itself.

    Raises
    ------
    StoreError
        There is no such task, or it has no model yet.
    GeosslError
        The model cannot be written as ONNX.
    """
    champion = project.registry.find(task, "champion") if task in project.settings.tasks else None
    if champion is None:
        known = [name for name in project.settings.tasks if project.registry.find(name, "champion") is not None]
        raise StoreError(
            f"task {task!r} has no model in {project.tasks}",
            f"there are models of: {', '.join(known)}" if known else "run `geossl finetune` first",
        )
    return export_onnx(load_task(project.store / champion.folder), path, project.task_images().grid.resolution)
