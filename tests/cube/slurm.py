"""A Slurm cluster of two nodes on this machine, in a folder of its own, without systemd."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
NODES = ("n1", "n2")

_CONFIG = """\
ClusterName=geossl
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SchedulerParameters=sched_interval=2,batch_sched_delay=0
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def absent() -> str:
    """Why no cluster can be started here; empty where one can."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started as root"


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and its like speak to the cluster; its processes end with the block."""
    host = socket.gethostname().partition(".")[0]
    controller, first, second = _free_ports(3)
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    config = folder / "slurm.conf"
    config.write_text(_CONFIG.format(host=host, folder=folder, controller=controller, first=first, second=second))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(config)}
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munged.seed"}
    munged = ["munged", "--force", "--foreground", f"--key-file={key}"]
    daemons = [
        [*munged, *(f"--{option}={folder / name}" for option, name in files.items())],
        ["slurmctld", "-D", "-f", str(config)],
        *(["slurmd", "-D", "-N", node, "-f", str(config)] for node in NODES),
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for daemon in daemons:
            with (folder / f"{daemon[0]}.out").open("ab") as output:
                started.append(subprocess.Popen(daemon, stdout=output, stderr=output, env=environment))
            if daemon[0] == "munged":
                _wait((folder / "munge.socket").exists, "munged", folder)
        _wait(lambda: _states(environment) == {"idle"}, "the nodes", folder)
        yield environment
    finally:
        # a daemon that loses munged while it ends a job never ends itself
        _ask(["scancel", "--user=root"], environment)
        deadline = time.monotonic() + 30
        while _ask(["squeue", "-h"], environment) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def jobs(environment: dict[str, str]) -> list[str]:
    """Ids of the running jobs."""
    return _ask(["squeue", "-h", "-t", "RUNNING", "-o", "%i"], environment).split()


def _states(environment: dict[str, str]) -> set[str]:
    return set(_ask(["sinfo", "-h", "-N", "-o", "%T"], environment).split())


def _ask(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def _wait(ready: object, what: str, folder: Path) -> None:
    for _ in range(300):
        if ready():  # type: ignore[operator]
            return
        time.sleep(0.1)
    logs = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in folder.glob("*.log"))
    raise RuntimeError(f"{what} did not start\n{logs}")


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
