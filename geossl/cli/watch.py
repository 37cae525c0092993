"""`geossl watch`: is there new imagery?"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.say import console, open_project, run_stage, run_stages


def watch(
    *,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
    every: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
) -> int:
    """Say whether the sources hold anything that the cube does not; no pixel is read.

    With `--every` it keeps looking, and does what `geossl run` does whenever there is something new: all that a
    project on one machine needs to renew its maps by itself. Ctrl-C stops it, and the next one goes on.

    Parameters
    ----------
    every
        Minutes from one look to the next.
    """
    if every is None:
        return run_stage("watch", project, overrides)
    from geossl.progress import silent
    from geossl.project.stages import watch as stage
    from geossl.project.stages.run import run_all

    out = console()
    stage.keep_watching(
        lambda: open_project(project, overrides),
        every,
        lambda opened: run_stages(lambda progress: run_all(opened, progress)),
        lambda line: out.print(line, highlight=False, markup=False),
        silent,
    )
    return 0
