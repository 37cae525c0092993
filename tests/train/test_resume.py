from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geossl.nets.weights import load_card

from .synthetic import Places, rows, run


def require_same(folder: Path, undisturbed: Path) -> None:
    """Bit for bit the same weights, the same card but for its time, the same history."""
    assert (folder / "encoder.safetensors").read_bytes() == (undisturbed / "encoder.safetensors").read_bytes()
    assert load_card(folder).id == load_card(undisturbed).id
    assert rows(folder) == rows(undisturbed)


def at(step: int, act: Callable[[], object]) -> Callable[[str, int, int | None], None]:
    def progress(what: str, done: int, total: int | None, note: str = "") -> None:
        if done == step:
            act()

    return progress


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 5, 7, 10, 14])  # 5 batches an epoch: first, last, inside, last, nearly done
def test_interrupted_between_steps_and_resumed(tmp_path: Path, undisturbed: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at(step, interrupt))
    loader = Places()
    run(tmp_path, loader)
    require_same(tmp_path, undisturbed)
    assert loader.handed_out == [divmod(n, 5) for n in range(step, 15)]


def test_interrupted_again_and_again(tmp_path: Path, undisturbed: Path) -> None:
    for step in (2, 3, 5, 6, 11):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, progress=at(step, interrupt))
    run(tmp_path)
    require_same(tmp_path, undisturbed)


def test_a_running_mean_goes_on_too(tmp_path: Path) -> None:
    run(tmp_path / "whole", ema=0.8)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", progress=at(7, interrupt), ema=0.8)
    run(tmp_path / "cut", ema=0.8)
    require_same(tmp_path / "cut", tmp_path / "whole")


def test_cut_off_in_the_middle_of_a_step(tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # after batch norm has seen the batch and before the weights have moved: such a state must not be kept
    from geossl.methods.simclr import Simclr

    forward, calls = Simclr.forward, []

    def cut(self: Simclr, batch: Any) -> Any:
        losses = forward(self, batch)
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return losses

    monkeypatch.setattr(Simclr, "forward", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.undo()
    loader = Places()
    run(tmp_path, loader)
    require_same(tmp_path, undisturbed)
    assert loader.handed_out[0] == (1, 0)  # from the last epoch's end


def test_a_loader_that_fails_loses_nothing(tmp_path: Path, undisturbed: Path) -> None:
    class Failing(Places):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for batch in super().__iter__():
                yield batch
                if (self.epoch, self.number) == (1, 2):
                    raise OSError("the bucket is gone")

    with pytest.raises(OSError, match="bucket"):
        run(tmp_path, Failing())
    loader = Places()
    run(tmp_path, loader)
    require_same(tmp_path, undisturbed)
    assert loader.handed_out[0] == (1, 2)


def test_ctrl_c_waits_for_the_step_and_gives_the_handler_back(tmp_path: Path, undisturbed: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at(7, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) == before
    loader = Places()
    run(tmp_path, loader)
    require_same(tmp_path, undisturbed)
    assert loader.handed_out[0] == (1, 2)


def test_sigterm_leaves_a_checkpoint_and_says_so_in_the_exit_status(tmp_path: Path, undisturbed: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, progress=at(7, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert stop.value.code == 143
    loader = Places()
    run(tmp_path, loader)
    require_same(tmp_path, undisturbed)
    assert loader.handed_out[0] == (1, 2)


def test_killed_without_warning(tmp_path: Path, undisturbed: Path) -> None:
    command = [sys.executable, "-m", "tests.train.synthetic", str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 7:
            child.kill()
            break
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    loader = Places()
    run(tmp_path, loader)
    require_same(tmp_path, undisturbed)
    assert loader.handed_out[0][0] >= 1


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path, epochs=1)
    loader = Places()
    again = run(tmp_path, loader, epochs=1)
    assert loader.handed_out == []
    assert again.id == first.id


def test_other_settings_start_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at(7, interrupt))
    loader = Places()
    run(tmp_path, loader, seed=1)
    assert loader.handed_out[0] == (0, 0)
    assert [int(row["step"]) for row in rows(tmp_path)] == [10, 15]


def test_more_minutes_go_on_where_the_clock_stopped_it(tmp_path: Path) -> None:
    first, second = Places(), Places()
    assert run(tmp_path, first, minutes=1e-6).id
    run(tmp_path, second, minutes=5.0)
    assert first.handed_out == [(0, 0)]
    assert second.handed_out == [divmod(n, 5) for n in range(1, 15)]
