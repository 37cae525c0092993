"""Pretraining where one setting says, killed and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from geossl.files import read_json
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages import run as stages
from tests.cube.slurm import absent, jobs, slurm

from . import hosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = ("pretrain.epochs=4", "pretrain.batch_size=8", "pretrain.threads=1", "pretrain.precision='32'")
TWO_RANKS = "pretrain.launch.torchrun.nproc=2"
EPOCH = 31
"""Steps in an epoch of two ranks, which share its chips."""

_started: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """End what a test that fails leaves behind."""
    yield
    while _started:
        with _started.pop() as process:
            process.kill()


@pytest.fixture(scope="module")
def prepared(small_project: Path) -> Path:
    """A project whose imagery is ready to be trained on."""
    project = Project.load(small_project)
    for verb in ("ingest", "stats"):
        stages.stage(verb)(project, silent)
    return small_project


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The encoder of two ranks that nothing cuts off."""
    folder = copied(prepared, tmp_path_factory.mktemp("undisturbed"))
    done = start(folder, TWO_RANKS)
    assert done.wait() == 0
    return encoder(folder)


def copied(project: Path, folder: Path) -> Path:
    """The same project, of which nothing is trained."""
    shutil.copytree(project, folder, dirs_exist_ok=True)
    for name in ("encoders", "state/pretrain.json"):
        path = folder / "store" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return folder


def command(folder: Path, *overrides: str) -> list[str]:
    sets = [word for text in (*SETTINGS, *overrides) for word in ("--set", text)]
    return [sys.executable, "-m", "geossl.cli.app", "pretrain", "--project", str(folder), *sets]


def start(folder: Path, *overrides: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    with (folder / "said.txt").open("ab") as said:
        process = subprocess.Popen([*before, *command(folder, *overrides)], stdout=said, stderr=said)
    _started.append(process)
    return process


def encoder(folder: Path) -> bytes:
    """The weights of the one encoder, which nothing unfinished lies beside."""
    (found,) = (folder / "store" / "encoders").iterdir()
    assert sorted(path.name for path in found.iterdir()) == ["card.json", "encoder.safetensors", "history.csv"]
    return (found / "encoder.safetensors").read_bytes()


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Until the first rank says that it has come so far."""
    deadline = time.monotonic() + 240
    while True:
        said = [read_json(path) for path in folder.glob("store/encoders/unfinished-*/launch/progress.json")]
        if any(one["what"] == "pretraining" and one["done"] >= step for one in said):
            return
        assert process is None or process.poll() is None, (folder / "said.txt").read_text()
        assert time.monotonic() < deadline, f"no step {step}: {said}"
        time.sleep(0.05)


def ranks(folder: Path) -> list[psutil.Process]:
    """The processes that train in this project, agents included."""

    def named() -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if "geossl.project.rank" in words and any(word.startswith(str(folder)) for word in words):
                yield process

    return list(named())


def wait_until_gone(folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while found := ranks(folder):
        assert time.monotonic() < deadline, f"still running: {found}"
        time.sleep(0.2)


def test_killed_before_the_encoder_is_in_its_place(prepared: Path, tmp_path: Path) -> None:
    folder = copied(prepared, tmp_path)
    cut_off = "import os, pathlib, sys; pathlib.Path.rename = lambda *_: os.kill(os.getpid(), 9); "
    cut_off += "from geossl.cli.app import main; main()"
    arguments = command(folder, "pretrain.epochs=1")[3:]
    assert subprocess.run([sys.executable, "-c", cut_off, *arguments], check=False).returncode == -signal.SIGKILL
    (unfinished,) = (folder / "store" / "encoders").iterdir()
    trained = (unfinished / "history.csv").read_bytes()  # the clock's figures are in it
    assert start(folder, "pretrain.epochs=1").wait() == 0
    assert encoder(folder)
    (home,) = (folder / "store" / "encoders").iterdir()
    assert (home / "history.csv").read_bytes() == trained
    assert start(folder, "pretrain.epochs=1").wait() == 0
    assert "nothing to do" in (folder / "said.txt").read_text()


def test_torchrun_is_killed_in_every_part_and_goes_on(prepared: Path, undisturbed: bytes, tmp_path: Path) -> None:
    folder = copied(prepared, tmp_path)
    # a rank: both start again
    parent = start(folder, TWO_RANKS)
    wait_for_step(folder, EPOCH + 10, parent)
    (checkpoint,) = folder.glob("store/encoders/unfinished-*/checkpoints/last.ckpt")
    first = {process.pid for process in ranks(folder)}
    (agent,) = [process.pid for process in ranks(folder) if process.ppid() == parent.pid]
    assert len(first) == 3
    os.kill(min(first - {agent}), signal.SIGKILL)
    deadline = time.monotonic() + 120
    while len(second := {process.pid for process in ranks(folder)} - first) < 3:
        assert time.monotonic() < deadline, f"not started again: {second}"
        time.sleep(0.1)
    # whoever waits for them: they end as well, and leave a checkpoint
    wait_for_step(folder, EPOCH + 40, parent)
    before = checkpoint.stat().st_mtime_ns
    parent.kill()
    parent.wait()
    wait_until_gone(folder, 30)
    assert checkpoint.stat().st_mtime_ns > before
    # asked to end
    parent = start(folder, TWO_RANKS)
    wait_for_step(folder, EPOCH + 70, parent)
    before = checkpoint.stat().st_mtime_ns
    parent.terminate()
    assert parent.wait(timeout=60) == 143
    assert ranks(folder) == []
    assert checkpoint.stat().st_mtime_ns > before
    assert start(folder, TWO_RANKS).wait() == 0
    assert encoder(folder) == undisturbed


def test_what_a_rank_says_is_said_by_the_command(prepared: Path, tmp_path: Path) -> None:
    folder = copied(prepared, tmp_path)
    parent = start(folder, TWO_RANKS, "pretrain.learning_rate=1e12")
    assert parent.wait() == 1
    said = (folder / "said.txt").read_text()
    assert "geossl: the training broke at step" in said or "geossl: the encoder has collapsed" in said
    assert "Traceback" not in said
    (log,) = folder.glob("store/encoders/unfinished-*/launch/log.txt")
    assert log.read_text().count("geossl: ") >= 1  # and was not tried again


def test_one_of_two_hosts_is_lost_and_comes_back(prepared: Path, undisturbed: bytes, tmp_path: Path) -> None:
    if hosts.absent():
        pytest.skip(hosts.absent())
    folder = copied(prepared, tmp_path)
    with hosts.two_hosts() as (first, second):
        there = ("pretrain.launch.torchrun.nnodes=2", f"pretrain.launch.torchrun.endpoint={first.address}:29500")
        stays, is_lost = (start(folder, *there, before=host.before) for host in (first, second))
        wait_for_step(folder, 12, stays)
        second.lose()
        assert is_lost.wait() == -signal.SIGKILL
        comes_back = start(folder, *there, before=second.before)
        assert (stays.wait(), comes_back.wait()) == (0, 0), (folder / "said.txt").read_text()
    assert encoder(folder) == undisturbed


@pytest.mark.skipif(bool(absent()), reason=absent())
def test_a_slurm_job_is_preempted_queues_again_and_goes_on(
    prepared: Path, undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(prepared, tmp_path / "project")
    on_two_nodes = ("pretrain.launch.slurm.nodes=2", "pretrain.launch.slurm.partition=main")
    with slurm(tmp_path / "slurm") as environment:
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        refused = start(folder, "pretrain.launch.slurm.partition=nowhere")
        assert refused.wait() == 1
        assert "Slurm refuses the job: invalid partition" in (folder / "said.txt").read_text()
        parent = start(folder, *on_two_nodes)
        wait_for_step(folder, 12, parent)
        (job,) = jobs(environment)
        # what Slurm does a minute before the time limit; then as for a job that matters more
        for times, ask in enumerate((["scancel", "--signal=USR1", "--batch"], ["scontrol", "requeue"]), start=1):
            subprocess.run([*ask, job], check=True)
            requeued(job, times)
            (checkpoint,) = folder.glob("store/encoders/unfinished-*/checkpoints/last.ckpt")
            assert torch.load(checkpoint, weights_only=True)["step"] >= 12 + 20 * (
                times - 1
            )  # none is at an epoch's end
            wait_for_step(folder, 12 + 20 * times, parent)
        # whoever waits for it is killed; the job is not, and is found again
        parent.kill()
        parent.wait()
        assert jobs(environment) == [job]
        assert start(folder, *on_two_nodes).wait() == 0, (folder / "said.txt").read_text()
        assert jobs(environment) == []
    assert encoder(folder) == undisturbed


def requeued(job: str, times: int) -> None:
    """Wait until a job has been queued again, and let it run without the two minutes that Slurm holds it."""
    deadline = time.monotonic() + 120
    while True:
        shown = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True).stdout
        if f"Restarts={times} " in shown and "JobState=RUNNING" in shown:
            return
        assert time.monotonic() < deadline, shown
        if f"Restarts={times} " in shown and "JobState=PENDING" in shown:
            # not sooner: Slurm holds it so that the end of its script is not taken for that of its next run
            time.sleep(5)
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True, check=False)
        time.sleep(0.5)


def test_a_slurm_job_that_is_cancelled_with_the_command(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if absent():
        pytest.skip(absent())
    folder = copied(prepared, tmp_path / "project")
    with slurm(tmp_path / "slurm") as environment:
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        parent = start(folder, "pretrain.launch.slurm.nodes=1")
        wait_for_step(folder, 3, parent)
        parent.terminate()
        assert parent.wait(timeout=100) == 143
        assert jobs(environment) == []
    assert ranks(folder) == []
    assert list(folder.glob("store/encoders/unfinished-*/checkpoints/last.ckpt"))
