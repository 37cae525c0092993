"""``python -m tests.benchmarks.recipes.glance``: every method on every set, one figure each.

A figure is the mean over all frozen heads and numbers of labels of a repetition, and its interval is over
repetitions: one question a method and set, where the rows ask dozens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .rows import COLLAPSED, FLOOR, RANDOM, SCRATCH, Estimate, Ledger, Measured

METRICS = {
    "zion": "macro_f1",
    "rstoolbox": "macro_f1",
    "oscd": "average_precision",
    "bigearthnet": "mean_average_precision",
}
"""By which each set is judged here."""

_WHOLE = "whole network"

Scores = Mapping[tuple[str, int], Mapping[str, float]]
"""Head and number of labels → repetition → score."""


def glance(measured: Sequence[Measured]) -> list[str]:
    """Lines of Markdown: for each set, a row for each pretraining.

    Differences are first to the random encoder with the identical head, then, of the best head of each number of
    labels by its mean, to the best floor; both are chosen by their test scores. The last is of the best head to the
    same network learnt whole from the same labels, from scratch, for the numbers of labels that this was measured at.
    """
    found: dict[tuple[str, str, str, str, str], dict[tuple[str, int], dict[str, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for each in measured:
        asked = each.method == SCRATCH or not each.model.startswith(_WHOLE)
        if asked and each.metric == METRICS[each.set]:
            time = f"{each.steps:,} steps" if each.steps else f"{each.minutes:g} min" if each.minutes else ""
            row = each.set, each.method, each.encoder, time, each.protocol
            found[row][each.model, each.labels][each.repetition] = each.value
    lines = [
        "| set | method | encoder | pretraining | protocol | n | to the random encoder, all heads"
        " | best head to best floor | best head to from scratch |",
        "|" + "---|" * 9,
    ]
    for (name, method, encoder, time, protocol), scores in sorted(found.items()):
        if method in (FLOOR, RANDOM, SCRATCH):
            continue
        random, floor = found.get((name, RANDOM, encoder, "", "-"), {}), found[name, FLOOR, "-", "", "-"]
        paired = [(scores[key], random[key]) for key in scores if key in random]
        best = [(_best(scores, n), _best(floor, n)) for n in sorted({labels for _, labels in scores})]
        scratch = found.get((name, SCRATCH, encoder, "", "-"), {})
        fresh = [(_best(scores, n), whole) for (_, n), whole in scratch.items()]
        n = len({repetition for each in scores.values() for repetition in each})
        about = name, method, encoder, time, protocol, n, *(_said(_means(each)) for each in (paired, best, fresh))
        lines.append("| " + " | ".join(map(str, about)) + " |")
    failed = sorted({(each.set, each.method, each.repetition) for each in measured if each.metric == COLLAPSED})
    return [*lines, "", *(f"Collapsed: {name}, {method}, {repetition}." for name, method, repetition in failed)]


def _best(scores: Scores, labels: int) -> Mapping[str, float]:
    """The scores of the head that is best at so many labels."""
    return max((each for (_, n), each in scores.items() if n == labels), key=lambda s: float(np.mean([*s.values()])))


def _means(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> list[float]:
    """For each repetition that all have, the mean difference."""
    both = set.intersection(*({*ours} & {*theirs} for ours, theirs in pairs)) if pairs else set()
    return [float(np.mean([ours[r] - theirs[r] for ours, theirs in pairs])) for r in sorted(both)]


def _said(differences: list[float]) -> str:
    if not differences:
        return "-"
    estimate = Estimate.of(differences)
    return f"{estimate.mean:+.3f} ± {estimate.half:.3f} {estimate.verdict(differences)}"


if __name__ == "__main__":
    print("\n".join(glance(Ledger(Path(__file__).with_name("measured.jsonl")).all)))
