"""What a Prefect server keeps of a project's runs, kept within limits: its own clean-up removes events alone."""

from __future__ import annotations

import datetime as dt

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterTags,
)
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger

_AT_ONCE = 100
"""Runs that are looked up together; a server answers with 200 rows at most."""


def trim(project: str, days: int) -> int:
    """Delete the runs of a project that ended so many days ago, with their logs and artifacts; how many.

    Nothing but history is lost: what exists, and what it was made from, stands in the store.
    """
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    ended = FlowRunFilter(
        tags=FlowRunFilterTags(all_=["geossl", project]), end_time=FlowRunFilterEndTime(before_=before)
    )
    deleted = 0
    with get_client(sync_client=True) as client:
        while runs := client.read_flow_runs(flow_run_filter=ended, limit=_AT_ONCE):
            for run in runs:
                _delete_artifacts(client, run.id)
                try:
                    client.delete_flow_run(run.id)  # the server deletes task runs and logs along with it
                except ObjectNotFound:  # somebody else was faster
                    continue
                deleted += 1
    if deleted:
        get_logger("geossl").info(
            "%s: %d runs that ended before %s are deleted", project, deleted, f"{before:%Y-%m-%d}"
        )
    return deleted


def _delete_artifacts(client: SyncPrefectClient, run: object) -> None:
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    while artifacts := client.read_artifacts(artifact_filter=of_run, limit=_AT_ONCE):
        for artifact in artifacts:
            try:
                client.delete_artifact(artifact.id)
            except ObjectNotFound:
                continue
