"""How a project's flows lie on a Prefect server: settings alone, without Prefect."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

FlowName = Literal["watch", "ingest", "pretrain", "finetune", "retrain", "publish", "maintain", "mend"]

SECONDS = {"m": 60, "h": 3600, "d": 86400}
"""Of the units that an interval is written in."""

_INTERVAL = re.compile(r"[1-9][0-9]*[mhd]")


def _is_a_schedule(schedule: str) -> str:
    if not _INTERVAL.fullmatch(schedule) and len(schedule.split()) != 5:
        raise ValueError(
            f"{schedule!r} is neither an interval such as 15m, 6h or 1d nor a cron line of five fields such as 0 3 * * *"
        )
    return schedule


Schedule = Annotated[str, AfterValidator(_is_a_schedule)]
"""An interval such as ``15m``, ``6h``, ``1d``, or a cron line of five fields such as ``0 3 * * *``."""


def interval_seconds(schedule: Schedule) -> int | None:
    """Of an interval, its seconds; None for a cron line."""
    return int(schedule[:-1]) * SECONDS[schedule[-1]] if _INTERVAL.fullmatch(schedule) else None


class DeploySettings(BaseModel):
    """What `geossl deploy` puts on a Prefect server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: str | None = Field(
        None,
        min_length=1,
        description="work pool whose workers run the flows, made where there is none; null: one of the project's name",
    )
    gpu_pool: str | None = Field(
        None, min_length=1, description="work pool for what trains (retrain, pretrain, finetune); null: the same"
    )
    kind: Literal["process", "kubernetes"] = Field(
        "process", description="type of a pool that is made: runs are processes of the worker, or Kubernetes jobs"
    )
    image: str | None = Field(None, description="container image of the Kubernetes jobs")
    attempts: int = Field(
        3,
        ge=1,
        le=20,
        description="how often a run is started at most, if its process or its machine dies; each start goes on from "
        "what is done and from the last checkpoint. A minute without the server during a run counts as a start too",
    )
    schedules: dict[FlowName, Schedule | None] = Field(
        default_factory=dict,
        description="when a flow runs by itself, by its name: an interval such as 15m, 6h, 1d, or a cron line such as "
        "0 3 * * *; null: never. Flows that are not named keep what `geossl deploy --dry-run` shows",
    )
    timezone: str = Field("UTC", description="of the cron lines, such as America/Lima")
