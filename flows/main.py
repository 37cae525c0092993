"""All of it once: ``python -m flows.main PROJECT``.

``geossl deploy`` puts the flows that this one calls on a server, where schedules and events start them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import tags

from flows.ingest import ingest
from flows.publish import publish
from flows.retrain import retrain
from flows.stage import of_project, project_name


@of_project
def run(project_file: Path, overrides: list[str] | None = None) -> None:
    """Bring everything up to date: scenes, models, maps, alerts, report.

    Each stage compares what exists with what is wanted and does only what is missing.

    Parameters
    ----------
    project_file:
        The project file, or the folder it lies in, as the worker sees it.
    overrides:
        ``key.path=value`` settings that win over the file.
    """
    ingest(project_file, overrides)
    retrain(project_file, overrides)
    publish(project_file, overrides)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m flows.main PROJECT [key.path=value ...]")
    project_file = Path(sys.argv[1]).resolve()
    with tags("geossl", project_name(project_file)):
        run(project_file, sys.argv[2:])
