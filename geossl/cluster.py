"""A Dask client from a setting: processes of this machine, or a cluster that is already there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from geossl.errors import SettingsError

if TYPE_CHECKING:
    from distributed import Client


class ClusterSettings(BaseModel):
    """Where ingest, statistics and composites are computed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scheduler: str | None = Field(
        None, description="address of a Dask scheduler, such as tcp://host:8786; null: processes of this machine"
    )
    workers: int | None = Field(None, gt=0, description="number of local processes; null: one a core")
    memory_limit: str = Field("auto", description="of each local process, such as 4GB; auto: an equal share")


@contextlib.contextmanager
def dask_client(settings: ClusterSettings) -> Iterator[Client]:
    """A client of the configured cluster; local processes end with the block.

    Local workers are processes of one thread each, since GDAL handles are not for sharing between
    threads. They listen on the loopback interface only and serve no dashboard.

    Raises
    ------
    SettingsError
        No scheduler answers at the address.
    """
    from distributed import Client, LocalCluster

    if settings.scheduler is not None:
        try:
            client = Client(settings.scheduler)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"no Dask scheduler answers at {settings.scheduler}: {error}",
                "start one there, or leave `scheduler` out",
            ) from error
        with client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=settings.workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            # without an address the scheduler's small HTTP server claims port 8787, which may be taken
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            memory_limit=settings.memory_limit,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
