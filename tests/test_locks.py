"""Locks that say who holds them, and that a kill frees."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from geossl.errors import TrainingError
from geossl.locks import held
from geossl.train.device import alone_on

_HOLDS = """
import sys, time
from pathlib import Path
from geossl.locks import held
with held(Path(sys.argv[1]), "it", "somebody"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_frees_it_and_who_waits_reads_for_whom_it_was(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "one"
    heard: list[str] = []
    waits = threading.Event()
    entered = threading.Event()

    def progress(what: str, done: int, total: int | None, note: str = "") -> None:
        heard.append(what)
        waits.set()

    def wait() -> None:
        with held(path, "it", "the next", progress):
            entered.set()

    with subprocess.Popen([sys.executable, "-c", _HOLDS, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert waits.wait(30)
        assert not entered.wait(1)
        holder.kill()
        assert entered.wait(30)
        waiting.join()
    [said] = heard
    assert said.startswith(f"waiting for it, which is held by somebody (process {holder.pid} on ")
    assert path.read_text() == "", "who holds it no longer is not named"


def test_trainings_that_want_several_devices_in_another_order_do_not_wait_for_each_other(tmp_path: Path) -> None:
    rounds = 20
    inside: list[str] = []

    def train(who: str, names: list[str]) -> None:
        for _ in range(rounds):
            with alone_on(names, who, folder=tmp_path):
                inside.append(who)
                assert inside[-1] == who
                inside.append(who)

    threads = [threading.Thread(target=train, args=each) for each in (("one", ["a", "b"]), ("two", ["b", "a"]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(inside) == 4 * rounds
    assert all(first == second for first, second in zip(inside[::2], inside[1::2], strict=True))


def test_locks_that_cannot_be_taken_are_no_silent_sharing(tmp_path: Path) -> None:
    (tmp_path / "gpu").mkdir()  # not even root can open that for writing
    with (
        pytest.raises(TrainingError, match="lock of GPU gpu cannot be taken"),
        alone_on(["gpu"], "me", folder=tmp_path),
    ):
        pass
