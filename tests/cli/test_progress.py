"""What a log says of a long job: how far, how fast, and how long still."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from geossl.cli import progress


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
    """For this module alone: the event loops of other threads read the clock as well."""
    clock = iter(seconds)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))


def test_a_log_says_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, [0.0, 10.0, 20.0, 240.0])
    out = io.StringIO()
    with progress.bars(Console(file=out, width=100)) as listen:
        for done in (0, 10, 20, 40):
            listen("map", done, 40)
    assert out.getvalue().splitlines() == [
        "  map: 0 of 40",
        "  map: 10 of 40, 1.0/s, 0:00:30 left",
        "  map: 20 of 40, 1.0/s, 0:00:20 left",
        "  map: 40 of 40",
    ]


def test_slow_things_are_counted_by_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, [0.0, 60.0])
    out = io.StringIO()
    with progress.bars(Console(file=out, width=100)) as listen:
        for done in (0, 6):
            listen("map", done, 12)
    assert out.getvalue().splitlines()[-1] == "  map: 6 of 12, 6.0/min, 0:01:00 left"


def test_the_same_work_once_more_is_timed_from_its_own_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, [0.0, 10.0, 1000.0, 1010.0])
    out = io.StringIO()
    with progress.bars(Console(file=out, width=100)) as listen:
        for done in (1, 300, 1, 75):
            listen("fine-tune", done, 300)
    assert out.getvalue().splitlines()[2:] == [
        "  fine-tune: 1 of 300",
        "  fine-tune: 75 of 300, 7.5/s, 0:00:30 left",
    ]
