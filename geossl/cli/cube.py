"""`geossl cube …`: look into the store that holds every scene, and look after it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from geossl.cli.options import HERE, ProjectFile
from geossl.cli.say import console, print_json

DAMAGED = 4
"""Exit code of a check that found damage."""

cube = App(
    name="cube",
    group="Look",
    help="""Look into the cube's history, check it, and keep it small.

The cube holds every scene of the project, and every state that it was ever in: each ingest adds a
*snapshot*, and whatever was made from one (an encoder, a map) *tags* it. A typical round:

    geossl cube log                    what happened, newest first
    geossl cube diff                   what the last change brought
    geossl cube check                  is every byte as it was written?
    geossl cube expire --keep 90d      forget old snapshots, free their bytes

`expire`, `gc` and `migrate` say with `--dry-run` what they would do.""",
    help_format="markdown",
)

Json = Annotated[bool, Parameter(negative="", help="Print it for machines.")]
DryRun = Annotated[bool, Parameter(negative="", help="Only say what would go.")]


@cube.command
def log(*, last: int = 30, project: ProjectFile = HERE, json: Json = False) -> int:
    """List the snapshots, newest first: time, what was done, number of scenes, tags.

    Each id or tag can be given to `diff`, to `check --snapshot` and to `geossl scenes --snapshot`.

    Parameters
    ----------
    last
        How many; 0: all.
    """
    from geossl.project.project import Project
    from geossl.project.stages.cube import log_dict, log_table

    entries = Project.load(project).cube().log()
    entries = entries[:last] if last else entries
    if json:
        print_json(log_dict(entries))
    else:
        console().print(log_table(entries))
    return 0


@cube.command
def diff(
    before: str | None = None, after: str | None = None, *, project: ProjectFile = HERE, json: Json = False
) -> int:
    """Say what changed between two snapshots.

    Scenes that were added, replaced or removed, the tiles that this touched, labels, statistics, and what was
    set aside.

    Parameters
    ----------
    before
        Id or tag; by default the snapshot before the other one.
    after
        Id or tag; by default the newest.
    """
    from geossl.cube.history import diff as compare
    from geossl.project.project import Project
    from geossl.project.stages.cube import diff_lines

    found = compare(Project.load(project).cube(), before, after)
    if json:
        print_json(found.to_dict())
    else:
        for line in diff_lines(found):
            print(line)
    return 0


@cube.command
def check(
    *,
    snapshot: str | None = None,
    repair: Annotated[bool, Parameter(negative="")] = False,
    project: ProjectFile = HERE,
    json: Json = False,
) -> int:
    """Read every chunk of a snapshot and compare its checksum; ends with exit code 4 where something is damaged.

    Names what is damaged by collection, tile, scene and window, and what to do about it. Nothing is decoded, so
    this is as fast as the disk.

    Parameters
    ----------
    snapshot
        Id or tag; by default the newest.
    repair
        Enter the damage in the cube, so that the next `geossl ingest` (and `stats`) reads again what it needs.
    """
    from geossl.cli.progress import bars
    from geossl.cube.space import human
    from geossl.project.project import Project
    from geossl.project.stages.cube import check as stage
    from geossl.project.stages.cube import damage_table

    out = console(stderr=json)
    with bars(out) as progress:
        report, done = stage(Project.load(project), snapshot, progress, mend=repair)
    if json:
        print_json(report.to_dict() | {"repaired": done})
        return DAMAGED if report.damage and not done else 0
    if report.damage:
        out.print(damage_table(report))
    for line in done:
        out.print(f"✓ {line}", highlight=False)
    if done:
        out.print("Now run `geossl ingest` and `geossl stats`.")
    looked_at = f"{report.chunks} chunks ({human(report.bytes)}), {report.scenes} scenes, {report.tiles} tiles"
    verdict = f"{len(report.damage)} damaged" if report.damage else "all sound"
    out.print(f"snapshot {report.snapshot}: {looked_at}: {verdict}", highlight=False)
    return DAMAGED if report.damage and not done else 0


@cube.command
def expire(*, keep: str, dry_run: DryRun = False, project: ProjectFile = HERE) -> int:
    """Forget snapshots older than `--keep`, and free the bytes that only they needed.

    The newest snapshot stays, and so does every one with a tag: what an encoder or a map was made from can
    always be read again. Bytes younger than a week stay a while longer, as for `gc`.

    Parameters
    ----------
    keep
        Such as 90d, 12w or 36h.
    """
    from geossl.cube.space import human
    from geossl.project.project import Project
    from geossl.project.stages.cube import duration, log_table

    store = Project.load(project).cube()
    going = store.expire(duration(keep), dry_run=dry_run)
    if going:
        console().print(log_table(going))
    if dry_run:
        print(f"{len(going)} snapshot(s) would be forgotten.")
    else:
        print(f"{len(going)} snapshot(s) forgotten, {human(store.collect_garbage())} freed.")
    return 0


@cube.command
def gc(*, dry_run: DryRun = False, project: ProjectFile = HERE) -> int:
    """Free what no snapshot needs: leftovers of runs that crashed, and of snapshots that expired.

    What is younger than a week stays, since it may belong to an ingest that runs right now.
    """
    from geossl.cube.space import human
    from geossl.project.project import Project

    freed = Project.load(project).cube().collect_garbage(dry_run=dry_run)
    print(f"{human(freed)} {'would be freed' if dry_run else 'freed'}.")
    return 0


@cube.command
def migrate(*, dry_run: DryRun = False, project: ProjectFile = HERE) -> int:
    """Bring a cube that an older geossl wrote to the format of this one.

    Can be interrupted at any time, and run again. Old snapshots stay as they are, and readable.
    """
    from geossl.cli.progress import bars
    from geossl.cube import layout
    from geossl.project.project import Project
    from geossl.project.stages.cube import migrate as stage

    opened = Project.load(project)
    version = layout.format_version(opened.cube().view().root)
    if version == layout.FORMAT:
        print(f"The cube has format {version}, which is this geossl's: nothing to do.")
    elif dry_run:
        print(f"The cube has format {version}; it would be brought to {layout.FORMAT}.")
    else:
        with bars(console()) as progress:
            done = stage(opened, progress)
        print(*done, sep="\n")
    return 0


@cube.command
def export(file: Path, *, snapshot: str | None = None, project: ProjectFile = HERE) -> int:
    """Write the table of scenes as stac-geoparquet, which STAC tools, GeoPandas, DuckDB and QGIS read.

    Each scene is the STAC Item that it came from, with its revision, checksum, tiles and clear fraction.

    Parameters
    ----------
    file
        Where to, such as scenes.parquet.
    snapshot
        Id or tag; by default the newest.
    """
    from geossl.project.project import Project
    from geossl.project.stages.cube import export as stage

    print(f"{stage(Project.load(project), file, snapshot)} scene(s) written to {file}.")
    return 0
