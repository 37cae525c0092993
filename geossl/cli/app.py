"""The command line: the verbs of the main job here, all others beside it.

Each verb imports what it needs when it runs, so that ``geossl --help`` answers at once. A verb that
set something aside ends with exit code 3, a mistake of the user with 1, Ctrl-C with 130.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from geossl import __version__
from geossl.cli.alerts import alerts
from geossl.cli.areas import area, release, sample
from geossl.cli.backup import backup, restore
from geossl.cli.cube import cube
from geossl.cli.deploy import deploy, undeploy
from geossl.cli.export import export
from geossl.cli.labels import labels, suggest
from geossl.cli.lineage import lineage
from geossl.cli.look import doctor, drift, embed, scenes, status
from geossl.cli.options import HERE, Overrides, ProjectFile
from geossl.cli.registry import add_to as add_registry
from geossl.cli.say import SET_ASIDE, console, open_project, run_stage, run_stages
from geossl.cli.search import search
from geossl.cli.upkeep import maintain
from geossl.cli.watch import watch
from geossl.errors import GeosslError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""What a disk may say to any verb that writes."""

_start = Group("Start here", sort_key=1)
_stages = Group("Stages, in order", sort_key=2)
_look = Group("Look", sort_key=3)
_publish = Group("Publish figures", sort_key=4)
_operate = Group("Operate", sort_key=5)

app = App(
    name="geossl",
    version=__version__,
    help="""An encoder of your own region from unlabelled satellite imagery, and maps that renew themselves.

Try `geossl demo` for the whole journey on a generated landscape. For your own region: `geossl init`,
edit geossl.yaml, then `geossl run`, or one stage at a time. Every stage may be run again: it does
only what is not done yet.""",
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # main says what was kept
)
app.command(alerts)
app.command(cube)
app.command(export)
add_registry(app)
for looks in (doctor, drift, embed, labels, lineage, scenes, search, status, suggest, watch):
    app.command(looks, group=_look)
for publishes in (area, release, sample):
    app.command(publishes, group=_publish)
for operates in (backup, deploy, maintain, restore, undeploy):
    app.command(operates, group=_operate)


@app.command(group=_start)
def demo(folder: Annotated[Path, Parameter(["--folder", "-f"])] = Path("out/demo")) -> int:
    """Run the whole main job on a generated landscape and write a report page.

    Takes a few minutes on two cores, needs no network, and goes through the same functions as real
    imagery does. Running it again does only what is missing.

    Parameters
    ----------
    folder
        Where scenes, the project file, its store and the report go.
    """
    from geossl.cli.summary import score_table, time_table
    from geossl.project.project import Project
    from geossl.project.stages.demo import demo as stage

    code = run_stages(lambda progress: stage(folder, progress), brief=True)
    project, out = Project.load(folder), console()
    out.print(time_table(project), score_table(project))
    out.print(f"\nLook at [bold]{folder / 'report.html'}[/bold]; the maps are below {folder / 'store' / 'maps'}.")
    return code


@app.command(group=_start)
def init(
    folder: Path = Path(),
    *,
    imagery: Path = Path("imagery"),
    show: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a commented geossl.yaml.

    Parameters
    ----------
    folder
        Folder of the new project.
    imagery
        Folder with your scenes (GeoTIFF, COG, JP2, SAFE).
    show
        Print every field with its meaning and default instead of writing a file.
    force
        Overwrite an existing project file.
    """
    from geossl.project.stages.init import explain_settings, init_project

    if show:
        print(explain_settings())
        return 0
    print(f"Wrote {init_project(folder, imagery, overwrite=force)}. Edit it, then `geossl run`.")
    return 0


@app.command(group=_stages, sort_key=1)
def ingest(
    *,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
    plan: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Tile new scenes into the cube, and put the tasks' labels onto its grid.

    Parameters
    ----------
    plan
        Only say what there is to do: scenes, tiles, disk and hours, by reading a small sample.
    """
    if not plan:
        return run_stage("ingest", project, overrides)
    from geossl.cli.progress import bars
    from geossl.cli.summary import plan_lines
    from geossl.project.stages.ingest import plan as stage

    out = console()
    with bars(out) as progress:
        found = stage(open_project(project, overrides), progress)
    for line in plan_lines(found):
        out.print(line, highlight=False, markup=False)
    return SET_ASIDE if found.set_aside else 0


@app.command(group=_stages, sort_key=2)
def stats(*, project: ProjectFile = HERE, overrides: Overrides = None) -> int:
    """Compute band statistics over clear pixels, and cloud-free composites."""
    return run_stage("stats", project, overrides)


@app.command(group=_stages, sort_key=3)
def pretrain(*, project: ProjectFile = HERE, overrides: Overrides = None) -> int:
    """Train an encoder on the unlabelled imagery. Goes on where it was interrupted."""
    return run_stage("pretrain", project, overrides)


@app.command(group=_stages, sort_key=4)
def evaluate(
    *,
    dataset: Literal["eurosat", "eurosat-spatial", "bigearthnet", "so2sat", "so2sat-culture-10", "oscd"] | None = None,
    root: Path | None = None,
    band: Annotated[list[str] | None, Parameter(negative="")] = None,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    project: ProjectFile = HERE,
    overrides: Overrides = None,
) -> int:
    """Score the frozen encoder on held-out blocks, beside the floors.

    With `--dataset` on a public set of images instead, which you have on disk: heads learn from its training split
    and are scored on its test split, so that figures can stand beside published ones. From how many labels, and how
    often those are drawn, is said by `evaluate` in the project file; from all of them once more.
    On oscd, whose labels are of change between two dates, they are pixels of its training cities, half of them
    changed; once more from 5,000.

    Parameters
    ----------
    dataset
        The set, as torchgeo reads it; bigearthnet is version 2, so2sat version 2 and its Sentinel-2 bands,
        so2sat-culture-10 the split of that name of version 3. Both of these are read by h5py, which you install.
    root
        Folder that the set was unpacked in. Nothing is downloaded.
    band
        Which of the set's bands one of the encoder's is, as in `--band nir=B08`. May be repeated; bands of the same
        name and wavelength need not be named.
    limit
        At most so many images, or cities of oscd, of each split, drawn at random; by default all, as published
        figures have it.
    """
    if dataset is None and root is None and not band and limit is None:
        return run_stage("evaluate", project, overrides)
    from geossl.project.stages.evaluate_dataset import run as on_dataset

    return run_stages(
        lambda progress: [
            on_dataset(open_project(project, overrides), dataset, root, band or [], progress, limit=limit)
        ]
    )


@app.command(group=_stages, sort_key=5)
def finetune(*, project: ProjectFile = HERE, overrides: Overrides = None) -> int:
    """Fit each task from its labels, and score it on held-out blocks beside the floors."""
    return run_stage("finetune", project, overrides)


@app.command(name="map", group=_stages, sort_key=7)
def map_(*, project: ProjectFile = HERE, overrides: Overrides = None) -> int:
    """Map the area: GeoTIFFs with palette, polygons, QGIS styles, STAC Items."""
    return run_stage("map", project, overrides)


@app.command(group=_stages, sort_key=9)
def report(*, project: ProjectFile = HERE, overrides: Overrides = None) -> int:
    """Write one page of pictures and figures that needs no network."""
    return run_stage("report", project, overrides)


@app.command(group=_stages, sort_key=6)
def retrain(*, project: ProjectFile = HERE, overrides: Overrides = None) -> int:
    """Learn again if it is due by `retrain:` in the project file; a new model makes maps only if it is provably not worse."""
    return run_stage("retrain", project, overrides)


@app.command(group=_start)
def run(*, project: ProjectFile = HERE, overrides: Overrides = None) -> int:
    """All stages, in order; each does only what is not done yet."""
    from geossl.project.stages.run import run_all

    return run_stages(lambda progress: run_all(open_project(project, overrides), progress))


def main() -> None:
    """Entry point of the ``geossl`` command."""
    try:
        code = app(result_action="return_value")
    except GeosslError as error:
        print(f"geossl: {error}", file=sys.stderr)
        code = 1
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        print(
            f"geossl: {error}\n  → free disk, or ask for the right to read and write there, then run the same command again",
            file=sys.stderr,
        )
        code = 1
    except KeyboardInterrupt:
        print("\ngeossl: stopped. What was committed is kept; run the same command to go on.", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
