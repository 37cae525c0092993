"""`geossl export …`: take what was made here elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from geossl.cli.options import HERE, ProjectFile

export = App(name="export", group="Look", help="Take an encoder to other libraries.", help_format="markdown")


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
