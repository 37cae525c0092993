"""A training that is killed again and again ends with the weights of one that nothing disturbed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.train.processes import BATCHES, drain, finish, start

from .test_resume import require_same

KILLS = 24


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder)
    return folder


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, whole: Path) -> None:
    chance = random.Random(5)
    kills = {"anywhere": 0, "after a step": 0, "while writing": 0}
    moments = itertools.cycle(kills)
    folder = tmp_path / "1"
    while sum(kills.values()) < KILLS:
        moment = next(moments)
        partial = folder / "checkpoints" / "last.partial"
        partial.unlink(missing_ok=True)  # the last kill's
        process, steps = start(folder, every=0.1)
        if moment == "anywhere":
            time.sleep(chance.uniform(0, 0.7))
        elif moment == "after a step":
            drain(steps, chance.randint(1, 5))
        else:
            while process.is_alive() and not partial.exists():
                time.sleep(0.0005)
            time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
        kills[moment] += process.exitcode != 0
        if process.exitcode == 0:  # done between two kills
            require_same(folder, whole)
            folder = tmp_path / f"{1 + int(folder.name)}"
    assert min(kills.values()) > KILLS // 6
    finish(folder)
    require_same(folder, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_leaves_a_checkpoint_at_once(tmp_path: Path, whole: Path, number: signal.Signals) -> None:
    process, steps = start(tmp_path)
    drain(steps, 5)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(timeout=10)
    assert process.exitcode == 128 + number
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert 5 <= saved["step"] < BATCHES  # not at the first epoch's end
    finish(tmp_path)
    require_same(tmp_path, whole)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, whole: Path) -> None:
    process, steps = start(tmp_path)
    drain(steps, BATCHES + 3)
    process.kill()
    process.join()
    good = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    process, steps = start(tmp_path, largest=len(good) - 1)
    assert f"cannot be written at step {2 * BATCHES}: File too large" in drain(steps)
    process.join()
    assert process.exitcode == 1
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == good
    assert not (tmp_path / "checkpoints" / "last.partial").exists()
    finish(tmp_path)
    require_same(tmp_path, whole)
