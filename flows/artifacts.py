"""What a person sees beside a run on the Prefect server: :mod:`geossl.project.show` as artifacts, whose pictures show offline."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from geossl.project.project import Project

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

_FIRST, _LATER = 10.0, 120.0
"""Seconds between two looks at a training: at its beginning, and at the most."""
_PATIENCE = 5.0
"""Seconds that the end of a training waits for its last picture."""


def scenes(project: Project) -> None:
    """A table of the newest scenes, and their pictures."""
    with _optional() as show:
        create_table_artifact(
            show.scene_table(project),
            key=_key(project, "scenes"),
            description="The newest scenes, and what was set aside",
        )
        if (pictures := show.quicklooks(project)) is not None:
            create_markdown_artifact(pictures, key=_key(project, "quicklooks"), description="The newest scenes")


def scores(project: Project) -> None:
    """Every score beside its floors, and the last decision of the gate on each task."""
    with _optional() as show:
        if rows := show.score_table(project):
            create_table_artifact(
                rows, key=_key(project, "scores"), description="Scores on held-out blocks, beside the floors"
            )
        if (decided := show.decisions(project)) is not None:
            create_markdown_artifact(
                decided, key=_key(project, "gate"), description="May the newest models make the maps?"
            )


def encoder(project: Project) -> None:
    """How the training of the newest encoder went."""
    with _optional() as show:
        if (found := show.training(project.encoder_folder())) is not None:
            picture, figures = found
            create_image_artifact(picture, key=_key(project, "encoder"), description=figures)


def maps(project: Project) -> None:
    """A picture of each task's map."""
    for name in project.settings.tasks:
        with _optional() as show:
            if (found := show.map_preview(project, name)) is not None:
                key = _key(project, f"map-{re.sub('[^a-z0-9]+', '-', name.lower())}")
                create_markdown_artifact(found, key=key, description=f"The map of {name}")


@contextlib.contextmanager
def followed(project: Project) -> Iterator[None]:
    """Show loss and health of the training that runs inside of the block, by a picture that is renewed.

    The training does not notice: where the server does not answer, there is no picture.
    """
    end = threading.Event()
    logger = get_run_logger()
    context = contextvars.copy_context()  # artifacts and log lines belong to this run
    thread = threading.Thread(target=context.run, args=(_follow, project, end, logger), daemon=True, name="followed")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(_PATIENCE)


def _follow(project: Project, end: threading.Event, logger: Logger) -> None:
    artifact: Any = None  # its id; Prefect types it as a coroutine as well
    shown, pause = "", _FIRST
    while not end.wait(pause):
        pause = min(1.2 * pause, _LATER)
        with _optional() as show, contextlib.suppress(OSError):  # just now the training comes to its end
            found = show.running_training(project)
            if found is None or found[1] == shown:
                continue
            picture, shown = found
            logger.info("%s: %s", project.settings.name, shown)
            if artifact is None:
                artifact = create_image_artifact(picture, key=_key(project, "training"), description=shown)
            else:
                with get_client(sync_client=True) as client:
                    client.update_artifact(artifact, ArtifactUpdate(data=picture, description=shown))


def _key(project: Project, name: str) -> str:
    return f"{project.settings.name}-{name}"


@contextlib.contextmanager
def _optional() -> Iterator[Any]:
    """What makes the pictures, none of which is worth a run that fails: what is wrong is logged."""
    try:
        from geossl.project import show  # takes seconds, and most runs have nothing to show

        yield show
    except Exception:
        with contextlib.suppress(Exception):
            _logger().warning("a picture of this run could not be made or stored", exc_info=True)


def _logger() -> Any:
    try:
        return get_run_logger()
    except Exception:
        return logging.getLogger("geossl")
