"""A training as a Slurm job that queues again by itself, and goes on from its checkpoint, until it is done.

The job outlives whoever submitted it: the same command finds it by its name and follows it.
"""

from __future__ import annotations

import getpass
import shlex
import shutil
import subprocess
import sys
import time

from geossl.errors import SettingsError
from geossl.progress import Progress
from geossl.train.remote.job import Job
from geossl.train.remote.settings import SlurmSettings
from geossl.train.remote.torchrun import arguments, rendezvous, stoppable

_LOOK_EVERY = 15.0  # seconds, at the most: each look is a call to the cluster's one controller
_GRACE = 90.0  # seconds; Slurm gives a job that is cancelled 30 (KillWait)

_FORGOTTEN = "no longer known"
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "DEADLINE"}
_ENDED |= {"NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", _FORGOTTEN}

_SCRIPT = """\
#!/bin/bash
{prologue}
# A minute before the time limit the ranks write a checkpoint, and the job queues again.
trap 'out_of_time=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
# Preempted, requeued or cancelled: Slurm has told the ranks as well, and knows what comes next.
trap 'told_to_end=1' TERM
meet="$(hostname):$((20000 + SLURM_JOB_ID % 10000))"
srun --kill-on-bad-exit=1 ${{SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}} {torchrun} &
while kill -0 $! 2>/dev/null; do wait $!; status=$?; done
[ "$status" = 0 ] && exit 0
[ -n "$told_to_end" ] && exit 1
[ -e {failure} ] && exit 1  # of no use to start again
if [ -z "$out_of_time" ]; then
    echo "$SLURM_JOB_ID $status" >> {crashes}
    [ "$(wc -l < {crashes})" -gt {restarts} ] && exit 1
fi
scontrol requeue "$SLURM_JOB_ID" && sleep 60
exit 1
"""


def train(settings: SlurmSettings, job: Job, progress: Progress) -> None:
    """Submit the job, or find it where it is submitted already, and follow it to its end.

    It is cancelled, after a checkpoint, when this is interrupted; it goes on when this process is killed.

    Raises
    ------
    SettingsError
        There is no Slurm here, or it refuses the job.
    TrainingError
        A rank says that it is of no use, or Slurm ended the job.
    """
    if shutil.which("sbatch") is None:
        raise SettingsError(
            "pretrain.launch.slurm: there is no sbatch on this machine", "run geossl where jobs can be submitted"
        )
    number = _find(job.name) or _submit(settings, job)
    pause, state, before = 0.5, "", ""
    with stoppable():
        try:
            # seen once, a failure may be one that Slurm is just about to mend by queueing again
            while state != "COMPLETED" and not (state in _ENDED and state == before):
                time.sleep(pause)
                state, before = _state(number), state
                pause = 1.0 if state in _ENDED else min(1.5 * pause, _LOOK_EVERY)
                job.tell(progress)
        except BaseException:
            _cancel(number)
            raise
    job.require_sound()
    if job.done is None and job.folder.exists():
        raise job.lost(f"Slurm ended job {number}: {state}")


def options(settings: SlurmSettings, job: Job) -> list[str]:
    """What sbatch is told."""
    values = {
        "job-name": job.name,
        "nodes": settings.nodes,
        "ntasks-per-node": 1,
        "partition": settings.partition,
        "account": settings.account,
        "gpus-per-node": settings.gpus or None,
        "cpus-per-task": settings.cpus,
        "mem": settings.memory,
        "time": settings.time,
        "signal": "B:USR1@60",
        "output": job.log,
        "open-mode": "append",
    }
    given = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return [*given, "--requeue", *settings.extra]


def script(settings: SlurmSettings, job: Job) -> str:
    """What the job does: one torchrun on each node, started again as a whole by queueing again."""
    # by variables, as each time that the job runs its agents meet anew
    meet = rendezvous('"$meet"', '"$SLURM_JOB_ID-$SLURM_RESTART_COUNT"')
    told = arguments(job, nnodes=settings.nodes, nproc=max(settings.gpus, 1))
    return _SCRIPT.format(
        prologue="\n".join(settings.prologue),
        torchrun=" ".join([shlex.join([sys.executable, "-m", "torch.distributed.run"]), *meet, shlex.join(told)]),
        failure=shlex.quote(str(job.failure)),
        crashes=shlex.quote(str(job.crashes)),
        restarts=settings.restarts,
    )


def _submit(settings: SlurmSettings, job: Job) -> str:
    command = ["sbatch", "--parsable", *options(settings, job)]
    asked = subprocess.run(command, input=script(settings, job), capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = asked.stderr.strip().removeprefix("sbatch: error: ").partition("\n")[0]
        raise SettingsError(
            f"pretrain.launch.slurm: Slurm refuses the job: {reason}",
            "see what `sinfo` says of partitions, and `sacctmgr show assoc` of accounts",
        )
    return asked.stdout.strip().partition(";")[0]


def _find(name: str) -> str | None:
    """The job of that name that waits or runs."""
    found = _ask("squeue", "--noheader", f"--name={name}", f"--user={getpass.getuser()}", "--format=%i").split()
    return found[0] if found else None


def _state(number: str) -> str:
    """``PENDING``, ``RUNNING``, …; Slurm forgets a job some minutes after its end."""
    asked = subprocess.run(
        ["scontrol", "--oneliner", "show", "job", number], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        # otherwise the controller is away for a while; the job is not
        return _FORGOTTEN if "Invalid job id" in asked.stderr else ""
    return asked.stdout.partition("JobState=")[2].partition(" ")[0]


def _cancel(number: str) -> None:
    """End the job: Slurm sends SIGTERM, on which it writes a checkpoint, and some time later SIGKILL."""
    subprocess.run(["scancel", number], check=False)
    deadline = time.monotonic() + _GRACE
    while _ask("squeue", "--noheader", f"--jobs={number}", "--format=%T").strip() and time.monotonic() < deadline:
        time.sleep(1)


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
