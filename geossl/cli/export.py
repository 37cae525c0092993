"""`geossl export …`: take what was made here elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from geossl.cli.options import HERE, ProjectFile

export = App(
    name="export", group="Look", help="Take an encoder to other libraries, a model to QGIS.", help_format="markdown"
)


@export.command
def encoder(
    id: str | None = None,
    *,
    to: Literal["timm", "torchgeo", "terratorch"],
    out: Path,
    project: ProjectFile = HERE,
) -> int:
    """Write an encoder as files that timm, torchgeo or TerraTorch load by their own call.

    A README beside the weights says which bands in which order, how images are normalised, the call,
    and what is otherwise than here. Networks that the library does not have are refused.

    Parameters
    ----------
    id
        Which encoder; by default the newest.
    to
        The library.
    out
        Folder to write; an earlier export in it is replaced.
    """
    from geossl.project.project import Project
    from geossl.project.stages.export import run

    done = run(Project.load(project), to, out, id)
    print(f"Encoder {done.encoder} written to {out} for {to}:\n\n{done.load}\n")
    for line in done.lost:
        print(f"- {line}")
    return 0


@export.command
def model(
    task: str,
    *,
    to: Literal["onnx"] = "onnx",
    out: Path,
    project: ProjectFile = HERE,
) -> int:
    """Write the model that makes a task's map as one file that QGIS runs by its plugin Deepness.

    In QGIS: Plugins, Deepness, load the file; sizes, overlap and class names are read from it. The raster must
    have the bands in the order that is printed, as the stored numbers that the project works with, and no-data
    where clouds were. onnxruntime gives the same probabilities as the map, but Deepness does not blend windows.

    Parameters
    ----------
    task
        A task of the project file.
    to
        The format.
    out
        File to write; an earlier one is replaced.
    """
    import json

    from geossl.project.project import Project
    from geossl.project.stages.export import model as stage

    said = {key: json.loads(value) for key, value in stage(Project.load(project), task, out).items()}
    own = said["geossl"]
    print(f"Model {own['model']} written to {out} as {to}.\n")
    print(f"- bands: {', '.join(own['bands'])} ({own['dtype']}, no-data {own['nodata']})")
    print(
        f"- {said['resolution'] / 100:g} m per pixel, tiles of {said['tile_size']} pixels, overlap {said['tiles_overlap']} %"
    )
    print(f"- outputs: {', '.join(said['class_names'].values())}")
    return 0
