"""Timing two sides of one question fairly, and telling the result.

A benchmark is one file of this folder with one generator function::

    @bench("sort-vs-heap", unit="lists/s", reference="heapq", better="higher")
    def sort_vs_heap(folder: Path) -> Iterator[Sides]:
        lists = make_lists(seed=0)                      # prepare; `folder` is empty and goes afterwards
        yield Sides(
            ours=lambda: rate(len(lists), lambda: [sorted(x) for x in lists]),
            reference=lambda: rate(len(lists), lambda: [heap_sort(x) for x in lists]),
        )                                               # code after the yield cleans up

Each side measures one round and returns its figure in ``unit``. After one uncounted round of both
(imports, compilation, page cache), :data:`ROUNDS` rounds (or the benchmark's own number) follow in which both sides run one after
the other and take turns at going first, so that a machine that speeds up or slows down meets both.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

ROUNDS = 5

type Better = Literal["higher", "lower", "alike"]
type Goal = float | tuple[float, float] | None
"""The ratio to reach; least and greatest, where both sides should do alike."""


class Skipped(Exception):
    """Raised by a benchmark before it yields: what it needs is not here, and why."""


@dataclass(frozen=True)
class Sides:
    """What is compared: two functions that each run one round and return its figure."""

    ours: Callable[[], float]
    reference: Callable[[], float]


@dataclass(frozen=True)
class Bench:
    """One registered comparison."""

    name: str
    unit: str
    reference: str
    """Who the other side is."""
    better: Better
    goal: Goal
    rounds: int
    """How many rounds are counted."""
    prepare: Callable[[Path], Iterator[Sides]]


@dataclass(frozen=True)
class Result:
    """The figures of one comparison, round by round."""

    bench: Bench
    ours: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of ours over median of the reference."""
        return statistics.median(self.ours) / statistics.median(self.reference)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest ratio of any round."""
        ratios = [a / b for a, b in zip(self.ours, self.reference, strict=True)]
        return min(ratios), max(ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is what it should be; None where nothing is said about it."""
        match self.bench.goal:
            case None:
                return None
            case least, greatest:
                return least <= self.ratio <= greatest
            case goal:
                return self.ratio >= goal if self.bench.better == "higher" else self.ratio <= goal

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.bench.name,
            "unit": self.bench.unit,
            "ours": statistics.median(self.ours),
            "reference_name": self.bench.reference,
            "reference": statistics.median(self.reference),
            "ratio": self.ratio,
            "better": self.bench.better,
            "goal": self.bench.goal,
        }


BENCHES: dict[str, Bench] = {}


def bench(
    name: str, *, unit: str, reference: str, better: Better, goal: Goal = None, rounds: int = ROUNDS
) -> Callable[[Callable[[Path], Iterator[Sides]]], Callable[[Path], Iterator[Sides]]]:
    """Register a generator function that prepares in an empty folder and yields its :class:`Sides` once."""

    def register(prepare: Callable[[Path], Iterator[Sides]]) -> Callable[[Path], Iterator[Sides]]:
        if name in BENCHES:
            raise ValueError(f"two benchmarks are called {name!r}")
        BENCHES[name] = Bench(name, unit, reference, better, goal, rounds, prepare)
        return prepare

    return register


def rate(count: float, work: Callable[[], object]) -> float:
    """How many of ``count`` things a second ``work`` gets done."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def run(chosen: Bench, out: Path) -> Result:
    """Run one benchmark in a fresh folder below ``out / "bench"``."""
    (out / "bench").mkdir(parents=True, exist_ok=True)
    ours: list[float] = []
    reference: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix=f"{chosen.name}-", dir=out / "bench") as folder,
        contextlib.contextmanager(chosen.prepare)(Path(folder)) as sides,
    ):
        sides.ours()
        sides.reference()
        both = [(sides.ours, ours), (sides.reference, reference)]
        for _ in range(chosen.rounds):
            for measure, figures in both:
                figures.append(measure())
            both.reverse()
    return Result(chosen, tuple(ours), tuple(reference))


def table(results: list[Result]) -> Table:
    """Medians, ratio and spread, one row a benchmark."""
    shown = Table("benchmark", "unit", "ours", "reference", "", "ratio", "least … greatest", "goal", "reached")
    for result in results:
        low, high = result.spread
        shown.add_row(
            result.bench.name,
            result.bench.unit,
            f"{statistics.median(result.ours):,.1f}",
            f"{statistics.median(result.reference):,.1f}",
            result.bench.reference,
            f"{result.ratio:.2f}",
            f"{low:.2f} … {high:.2f}",
            _goal(result.bench),
            {None: "", True: "yes", False: "no"}[result.reached],
        )
    return shown


def _goal(chosen: Bench) -> str:
    match chosen.goal:
        case None:
            return f"{chosen.better} is better"
        case least, greatest:
            return f"{least:g} … {greatest:g}"
        case goal:
            return f"{'≥' if chosen.better == 'higher' else '≤'} {goal:g}"


def show(results: list[Result]) -> None:
    """Print the table."""
    Console(width=160).print(table(results))


def save(results: list[Result], out: Path) -> None:
    """Write ``bench.json``."""
    content = json.dumps([result.to_dict() for result in results], indent=2, ensure_ascii=False)
    (out / "bench.json").write_text(content + "\n", encoding="utf-8")
