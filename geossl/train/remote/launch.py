"""Run a training where its settings say, and wait for it."""

from __future__ import annotations

from typing import Any

from geossl.progress import Progress
from geossl.train.remote import kubernetes, slurm, torchrun
from geossl.train.remote.job import Job
from geossl.train.remote.settings import LaunchSettings


def launch(settings: LaunchSettings, job: Job, plan: dict[str, Any], progress: Progress) -> dict[str, Any] | None:
    """What the first rank says of the finished training; None where another machine has taken it away already.

    Parameters
    ----------
    plan:
        What the ranks are to train, JSON-ready; they read it from ``job.plan``.

    Raises
    ------
    TrainingError
        It failed: a rank's own words, or the end of the log.
    SettingsError
        The cluster does not take the job.
    """
    if job.done is None:
        job.begin(plan)
        if settings.torchrun is not None:
            torchrun.train(settings.torchrun, job, progress)
        elif settings.slurm is not None:
            slurm.train(settings.slurm, job, progress)
        elif settings.kubernetes is not None:
            kubernetes.train(settings.kubernetes, job, progress)
    if (result := job.done) is None and job.folder.exists():
        raise job.lost("the ranks ended well, but the first one says of no encoder")
    return result
