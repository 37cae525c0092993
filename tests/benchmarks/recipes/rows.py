"""Measurements as JSON lines, and the rows that they add up to."""

from __future__ import annotations

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from geossl.errors import TrainingError

FLOOR = "-"
"""The method of what was not pretrained and looks through no encoder."""

RANDOM, SCRATCH = "random", "scratch"
"""The methods of encoders that were not pretrained: frozen as they are, and learnt from the labels alone."""

INDUCTIVE, TRANSDUCTIVE, POOLED = "inductive", "transductive", "inductive, all sets"
"""What pretraining saw: ground that teaches, also ground that judges, or ground that teaches and other sets."""

COLLAPSED = "collapsed"
"""The model and metric of a pretraining that left no encoder: that it may happen is part of what a method is worth."""

AT_RATE = ", encoder at"
"""What the model of a whole network says whose encoder learns at another rate than its head: how many times that."""

FEWEST = 3
"""Repetitions from which a difference says anything."""


@dataclass(frozen=True)
class Measured:
    """One score of one repetition: a seed of split, labels and pretraining, or a city."""

    set: str
    protocol: str
    """What pretraining saw; ``-`` where nothing was pretrained."""
    method: str
    encoder: str
    minutes: float
    """Of pretraining, on one thread."""
    model: str
    """Features and head."""
    labels: int
    metric: str
    repetition: str
    value: float
    steps: int = 0
    """Of pretraining, where it was not ended by the clock."""


class Ledger:
    """Measurements in a file, one a line; what is there is not measured again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[Measured] = []
        if path.exists():
            self.all = [Measured(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def has(self, **what: str | float) -> bool:
        """Whether there is any measurement with these values."""
        return any(all(getattr(each, name) == value for name, value in what.items()) for each in self.all)

    def add(self, found: Iterable[Measured]) -> None:
        """Append, all of them or none."""
        found = list(found)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in found))
        self.all += found

    @contextlib.contextmanager
    def training(self, repetitions: Sequence[str], **about: Any) -> Iterator[None]:
        """Keep that a pretraining did not end well, for each repetition, where it does so within the block."""
        try:
            yield
        except TrainingError as error:
            print(error)
            of = {"model": COLLAPSED, "labels": 0, "metric": COLLAPSED, "value": 0.0}
            self.add(Measured(repetition=each, **about, **of) for each in repetitions)


@dataclass(frozen=True)
class Estimate:
    """A mean over repetitions with half of its 95 % interval (Student's t); NaN from a single one."""

    mean: float
    half: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        n = len(values)
        half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        return cls(float(np.mean(values)), half, n)

    def verdict(self, values: Sequence[float]) -> str:
        """What a difference allows to say: a gain or loss needs an interval without 0 and one sign in all repetitions."""
        if self.n < FEWEST:
            return "too few"
        if all(v > 0 for v in values) and self.mean - self.half > 0:
            return "gain"
        if all(v < 0 for v in values) and self.mean + self.half < 0:
            return "loss"
        return "no gain"


def table(measured: Sequence[Measured], wanted: set[str] | None = None) -> list[str]:
    """Lines of Markdown: a table for each set and metric, a column for each number of labels.

    A cell is a score; of an encoder that learnt something, in brackets, how much better it is in
    pairs of repetitions than the random encoder with the identical head (a whole network: than the
    same from scratch), then than the floor that is best there.

    Parameters
    ----------
    wanted:
        Methods to show beside what was not pretrained; all by default.
    """
    by_row: dict[_Row, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    failed: dict[_Row, list[str]] = defaultdict(list)
    for each in measured:
        if each.metric == COLLAPSED:
            failed[_Row.of(each)].append(each.repetition)
            continue
        by_row[_Row.of(each)][each.labels][each.repetition] = each.value
    lines: list[str] = []
    for name, metric in sorted({(row.set, row.metric) for row in by_row}):
        rows = {row: found for row, found in by_row.items() if (row.set, row.metric) == (name, metric)}
        labels = sorted({n for found in rows.values() for n in found})
        lines += [f"**{name}, {metric}**", ""]
        lines.append(
            "| protocol | method | encoder | pretraining | features and head | n |"
            + "".join(f" {n} labels |" for n in labels)
        )
        lines.append("|" + "---|" * (6 + len(labels)))
        for row in sorted(rows):
            if wanted and row.method not in wanted | {FLOOR, RANDOM, SCRATCH}:
                continue
            n = len({repetition for found in rows[row].values() for repetition in found})
            cells = [_cell(rows, row, each) for each in labels]
            start = (row.protocol, row.method, row.encoder, row.time, row.model, n)
            lines.append("| " + " | ".join(map(str, [*start, *cells])) + " |")
        lines.append("")
    for row in sorted(failed):
        if not wanted or row.method in wanted:
            run = f"{row.protocol} {row.method} on {row.encoder}, {row.time}"
            lines += [f"Collapsed, and left no encoder: {row.set}, {run}: {', '.join(failed[row])}.", ""]
    return lines


@dataclass(frozen=True, order=True)
class _Row:
    """What the measurements of one row have in common; what was not pretrained sorts first."""

    set: str
    metric: str
    kind: int
    method: str
    protocol: str
    encoder: str
    minutes: float
    steps: int
    model: str

    @classmethod
    def of(cls, one: Measured) -> _Row:
        kinds = [FLOOR, RANDOM, SCRATCH]
        kind = kinds.index(one.method) if one.method in kinds else len(kinds)
        return cls(one.set, one.metric, kind, one.method, one.protocol, one.encoder, one.minutes, one.steps, one.model)

    @property
    def time(self) -> str:
        """Of pretraining."""
        return f"{self.steps:,} steps" if self.steps else f"{self.minutes:g} min" if self.minutes else ""

    def not_pretrained(self, method: str) -> _Row:
        """The same encoder and head, not pretrained; a whole network from scratch learns at one rate."""
        kind, model = [FLOOR, RANDOM, SCRATCH].index(method), self.model.partition(AT_RATE)[0]
        return replace(self, kind=kind, method=method, protocol="-", minutes=0.0, steps=0, model=model)


def _cell(rows: Mapping[_Row, Mapping[int, dict[str, float]]], row: _Row, labels: int) -> str:
    values = rows[row].get(labels)
    if not values:
        return ""
    text = _text(Estimate.of(list(values.values())))
    if row.method in (FLOOR, RANDOM, SCRATCH):
        return text
    nothing: dict[str, float] = {}
    twin = next(
        (found for m in (RANDOM, SCRATCH) if (found := rows.get(row.not_pretrained(m), {}).get(labels))), nothing
    )
    floors = [found[labels] for other, found in rows.items() if other.method == FLOOR and labels in found]
    # the best by its own score on test ground: hard on us, not on the floor
    floor = max(floors, key=lambda found: float(np.mean(list(found.values()))), default=nothing)
    return f"{text} ({_difference(values, twin)}; {_difference(values, floor)})"


def _difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """Of the repetitions that both have, in pairs."""
    both = [ours[r] - theirs[r] for r in ours if r in theirs]
    if not both:
        return "-"
    estimate = Estimate.of(both)
    return f"{_text(estimate, '+.3f')} {estimate.verdict(both)}"


def _text(estimate: Estimate, form: str = ".3f") -> str:
    spread = "" if math.isnan(estimate.half) else f" ± {estimate.half:.3f}"
    return f"{estimate.mean:{form}}{spread}"
