"""A Dask client from a setting: processes of this machine, jobs of a Slurm cluster, or a cluster that is there."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from geossl.errors import ClusterError, SettingsError

if TYPE_CHECKING:
    from distributed import Client

_HEAL_EVERY = 3.0
"""Seconds between two looks at whether a worker is missing for good and has to be replaced."""

_GREETINGS = 5
"""How often joining a scheduler is tried that says something else besides."""

# Without an address the scheduler's small HTTP server claims port 8787, which may be taken.
_NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Workers fill and free the same few buffers of megabytes over and over. By Dask's default each goes back
    # to the system at once, and the next one costs a page fault every 4 KiB: a third of an ingest's time.
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(256 * 2**20),
}
"""What local worker processes start with."""

# On a machine whose every processor decodes, whatever watches takes from the work: Dask looks at the stacks of all
# threads a hundred times a second in every process, and at its event loops fifty times.
_WATCH_LESS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "200ms",
    "distributed.admin.system-monitor.interval": "5s",
}


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SlurmSettings(_Settings):
    """Worker processes as Slurm jobs, one a job, so that a lost one is replaced by itself."""

    workers: int | tuple[int, int] = Field(
        4, description="number of jobs; or [least, most]: as many as there is work for"
    )
    memory: ByteSize = Field(ByteSize(4 * 10**9), description="of each job, such as 4GB")
    walltime: str = Field("04:00:00", description="of each job; one that reaches it is replaced, its tasks redone")
    queue: str | None = Field(None, description="partition; null: the cluster's default")
    account: str | None = None
    extra: tuple[str, ...] = Field((), description="further options of sbatch, such as --qos=long")
    prologue: tuple[str, ...] = Field(
        (), description="shell lines before the worker starts, such as `module load …`; it runs this same Python"
    )
    interface: str | None = Field(None, description="network interface by which jobs reach this machine, such as ib0")
    logs: Path | None = Field(None, description="folder for the jobs' output; null: it is not kept")

    @model_validator(mode="after")
    def _counts(self) -> SlurmSettings:
        least, most = self.bounds
        if not 0 <= least <= most or most == 0:
            raise ValueError(f"workers: {self.workers} is no number of jobs, nor [least, most]")
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and most number of jobs."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)


class ClusterSettings(_Settings):
    """Where ingest, statistics and composites are computed; by default, processes of this machine."""

    scheduler: str | None = Field(None, description="address of a Dask scheduler that is there: tcp://host:8786")
    slurm: SlurmSettings | None = Field(None, description="start workers as jobs, from a machine that has sbatch")
    workers: int | None = Field(None, gt=0, description="number of local processes; null: one a core")
    memory_limit: str = Field("auto", description="of each local process, such as 4GB; auto: an equal share")

    @model_validator(mode="after")
    def _one_kind(self) -> ClusterSettings:
        local = {"workers", "memory_limit"} & self.model_fields_set
        named = [name for name in ("scheduler", "slurm") if getattr(self, name) is not None]
        if len(named) > 1 or (named and local):
            both = ", ".join([*named, *sorted(local)])
            raise ValueError(f"{both}: choose scheduler, slurm, or local processes (workers, memory_limit)")
        return self


@contextlib.contextmanager
def dask_client(settings: ClusterSettings) -> Iterator[Client]:
    """A client of the configured cluster; processes and jobs that it starts end with the block.

    Its workers are processes of one thread each, since GDAL handles are not for sharing between threads,
    watched over by a nanny that replaces one that dies. Local ones listen on the loopback interface only;
    none serves a dashboard. The client is not Dask's default one: that belongs to who calls, and the list that Dask
    keeps of them is not safe against clients that other threads open and close.

    Raises
    ------
    SettingsError
        No scheduler answers at the address, or Slurm refuses the jobs.
    ClusterError
        The local processes do not start.
    """
    from distributed import Client

    with contextlib.ExitStack() as stack:
        if settings.scheduler is not None:
            try:
                client = _joined(settings.scheduler)
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"no Dask scheduler answers at {settings.scheduler}: {error}",
                    "start one there, or leave `scheduler` out",
                ) from error
            # a lost connection is said by whoever waits for it; Dask would log a traceback as well
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
        else:
            start = _local(settings) if settings.slurm is None else _slurm(settings.slurm)
            client = Client(stack.enter_context(start), set_as_default=False)
        yield stack.enter_context(client)


def _joined(address: str) -> Client:
    """A client of a scheduler that others use as well.

    What a scheduler says to all its clients, such as that a task was cancelled, may reach one that is about to join
    in the same message as the greeting that it waits for, and Dask asserts that there is nothing else in that.
    """
    from distributed import Client

    for _ in range(_GREETINGS - 1):
        with contextlib.suppress(AssertionError):
            return Client(address, set_as_default=False)
    return Client(address, set_as_default=False)


@contextlib.contextmanager
def _local(settings: ClusterSettings) -> Iterator[Any]:
    import dask
    from distributed import LocalCluster

    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": _ENVIRONMENT} | _WATCH_LESS):
            cluster = LocalCluster(
                n_workers=settings.workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                scheduler_kwargs=_NO_DASHBOARD,
                memory_limit=settings.memory_limit,
                silence_logs=logging.CRITICAL,
            )
    except RuntimeError as error:
        raise ClusterError(f"worker processes do not start: {error}", "use fewer: cluster.workers") from error
    with cluster, _healed(cluster):
        yield cluster


@contextlib.contextmanager
def _slurm(settings: SlurmSettings) -> Iterator[Any]:
    if shutil.which("sbatch") is None:
        raise SettingsError(
            "cluster.slurm: there is no sbatch on this machine", "run geossl where jobs can be submitted"
        )
    from dask_jobqueue.slurm import SLURMCluster

    unkept = () if settings.logs else ("--output=/dev/null",)
    with SLURMCluster(
        cores=1,
        processes=1,
        memory=f"{settings.memory}B",
        walltime=settings.walltime,
        queue=settings.queue,
        account=settings.account,
        job_extra_directives=[*unkept, *settings.extra],
        job_script_prologue=list(settings.prologue),
        interface=settings.interface,
        log_directory=None if settings.logs is None else str(settings.logs),
        scheduler_options=_NO_DASHBOARD,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        _require_accepted(cluster.job_script())
        least, most = settings.bounds
        if least == most:
            cluster.scale(least)
        else:
            cluster.adapt(minimum=least, maximum=most)
        with _healed(cluster):
            yield cluster


@contextlib.contextmanager
def _healed(cluster: Any) -> Iterator[None]:
    """Replace workers that the cluster has given up, for as long as the block lasts.

    A Dask cluster strikes a worker off that is away some time after it was lost: a Slurm job that was
    cancelled, a local process that died again while its nanny started it anew. It never starts another
    in its place unless it is scaled, and without any worker tasks wait forever.
    """
    from tornado.ioloop import PeriodicCallback

    heal = PeriodicCallback(lambda: cluster.scale(len(cluster.plan)), 1000 * _HEAL_EVERY)
    cluster.loop.add_callback(heal.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(heal.stop)


def _require_accepted(script: str) -> None:
    """Ask Slurm about a job without submitting it, since a refusal later on would be waited for in vain."""
    asked = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = asked.stderr.strip().removeprefix("sbatch: error: ").partition("\n")[0]
        raise SettingsError(
            f"cluster.slurm: Slurm refuses the worker jobs: {reason}",
            "see what `sinfo` says of queues, and `sacctmgr show assoc` of accounts",
        )
