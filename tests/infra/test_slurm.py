"""The batch scripts of `infra/slurm`, on a Slurm of two nodes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import run as stages
from tests.cube.slurm import absent, jobs, slurm

from . import stack
from .stack import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(absent()), reason=absent()),
]

FEW = ("pretrain.epochs=2", "pretrain.batch_size=8", "pretrain.threads=1", "pretrain.precision='32'")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def submit(
    environment: dict[str, str], script: str, folder: Path, told: dict[str, str], *arguments: str, nodes: int = 1
) -> str:
    """The number of a job whose output goes to a file in the folder."""
    command = ["sbatch", "--parsable", f"--output={folder}/said", f"--nodes={nodes}", ROOT / "infra/slurm" / script]
    known = stack.programs() | {"SLURM_CONF": environment["SLURM_CONF"], "GEOSSL_HOME": str(ROOT)} | told
    done = subprocess.run([*command, *arguments], env=known, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def ended(environment: dict[str, str], job: str, seconds: float, folder: Path) -> str:
    """The state in which a job ended."""
    deadline = time.monotonic() + seconds
    while True:
        shown = subprocess.run(["scontrol", "-o", "show", "job", job], env=environment, capture_output=True, text=True)
        state = shown.stdout.partition("JobState=")[2].partition(" ")[0]
        if state not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
            return state
        assert time.monotonic() < deadline, (folder / "said").read_text()
        time.sleep(0.5)


def test_two_nodes_train_one_encoder(cluster: dict[str, str], small_project: Path, tmp_path: Path) -> None:
    for verb in ("ingest", "stats"):
        stages.stage(verb)(Project.load(small_project), silent)
    home = tmp_path / "region"
    shutil.copytree(small_project, home, symlinks=True)
    shutil.rmtree(home / "store/encoders", ignore_errors=True)
    (home / "store/state/pretrain.json").unlink(missing_ok=True)
    sets = [word for text in FEW for word in ("--set", text)]
    job = submit(cluster, "train.sbatch", tmp_path, {"GEOSSL_PROJECT": str(home)}, *sets, nodes=2)
    assert ended(cluster, job, 400, tmp_path) == "COMPLETED", (tmp_path / "said").read_text()
    (encoder,) = (home / "store/encoders").iterdir()
    assert sorted(path.name for path in encoder.iterdir()) == ["card.json", "encoder.safetensors", "history.csv"]


def test_a_worker_that_is_a_job_takes_runs_and_queues_again(cluster: dict[str, str], tmp_path: Path) -> None:
    with stack.folder() as folder:
        stack.local("up", folder, "--only", "postgres", "--only", "prefect-server")
        told = stack.environment(folder) | {"GEOSSL_POOL": "slurm"}
        job = submit(cluster, "worker.sbatch", tmp_path, told)
        said = tmp_path / "said"
        wait(lambda: said.exists() and "Worker" in said.read_text() and "started" in said.read_text(), said)
        ask = [sys.executable, "-m", "prefect", "work-pool", "inspect", "slurm"]
        assert subprocess.run(ask, env=stack.programs() | told, capture_output=True, check=False).returncode == 0
        # what Slurm does two minutes before the time limit
        subprocess.run(["scancel", "--signal=USR1", "--batch", job], env=cluster, check=True)
        wait(lambda: "Restarts=1 " in shown(cluster, job), said)
        assert "stopped!" in said.read_text()  # it was not killed
        assert jobs(cluster) == []
        subprocess.run(["scancel", job], env=cluster, check=True)
        ended(cluster, job, 60, tmp_path)


def shown(environment: dict[str, str], job: str) -> str:
    command = ["scontrol", "-o", "show", "job", job]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def wait(ready: object, said: Path) -> None:
    deadline = time.monotonic() + 240
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < deadline, said.read_text() if said.exists() else "it never ran"
        time.sleep(0.3)
