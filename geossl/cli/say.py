"""What many verbs do: run stages under progress bars, and say what each did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # all of these take their time, and `geossl --help` needs none
    from rich.console import Console

    from geossl.progress import Progress
    from geossl.project.project import Project, StageResult

SET_ASIDE = 3
"""Exit code of a verb that set something aside."""

Verb = Literal[
    "ingest",
    "stats",
    "pretrain",
    "evaluate",
    "finetune",
    "map",
    "alerts",
    "report",
    "embed",
    "retrain",
    "drift",
    "watch",
    "maintain",
]


def console(*, stderr: bool = False) -> Console:
    """Where tables and bars go."""
    from rich.console import Console

    return Console(stderr=stderr)


def print_json(data: Any) -> None:
    """Print it for machines."""
    print(json.dumps(data, indent=1))


def open_project(project: Path, overrides: list[str] | None = None) -> Project:
    """The project of a file or folder."""
    from geossl.project.project import Project

    return Project.load(project, overrides or [])


def run_stage(verb: Verb, project: Path, overrides: list[str] | None) -> int:
    """Run one stage; the exit code."""
    from geossl.project.stages.run import stage

    return run_stages(lambda progress: [stage(verb)(open_project(project, overrides), progress)])


def run_stages(work: Callable[[Progress], list[StageResult]], *, brief: bool = False) -> int:
    """Run stages under progress bars, then say what each did (``brief``: only which did anything); the exit code."""
    from geossl.cli.progress import bars

    out = console()
    with bars(out) as progress:
        results = work(progress)
    for result in results:
        mark = "–" if result.skipped else "✓"
        out.print(f"{mark} [bold]{result.stage}[/bold]" + ("  nothing to do" if result.skipped else ""))
        for line in [] if brief else result.lines:
            out.print(f"    {line}", highlight=False, markup=False)
        if result.skipped and result.set_aside:
            out.print(f"    {result.set_aside} set aside before; geossl status says what", highlight=False)
    return SET_ASIDE if any(result.set_aside for result in results) else 0
