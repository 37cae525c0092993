"""``python -m tests.benchmarks.tables``: measure what is not measured yet, and print the tables of LANDCOVER.md.

Counts lie in ``out/tables``; a run that is stopped goes on where it was. ``--table`` alone prints what there is.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

from geossl.downstream.heldout import MEASURES, difference_rows, score_rows
from geossl.scores import ERRORS

from . import sets
from .measure import DRAWS, FEW, FEW_RANDOM, FULL, HAND_LDA, LABELS, SCRATCH, Kept, measure, models

MEASURES_SHOWN = MEASURES["landcover"]
PAIRS = ((FEW, FEW_RANDOM), (FEW, HAND_LDA), (FULL, SCRATCH), (FULL, FEW))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tables", description=__doc__)
    parser.add_argument("--set", choices=[*sets.SETS], nargs="*", default=[*sets.SETS])
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="models whose name holds one of these")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    wanted = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in wanted.set:
        if not wanted.table:
            measure(name, wanted.only)
    for name in wanted.set:
        print("\n".join(tables(name)))


def tables(name: str) -> Iterator[str]:
    """Lines of Markdown: scores of every model by number of labels, then differences."""
    kept = Kept(name)
    found = {n: {model: draws for model in models() if (draws := kept.get(model, n))} for n in LABELS}
    if not any(found.values()):
        return
    blocks = len(next(iter(found[LABELS[0]].values()))[0].confusion)
    yield from (f"## {name}", "", f"{blocks} test blocks, {DRAWS} draws of labels.", "")
    about = {"task": "landcover", "split": "", "labels": 0}
    rows = {n: score_rows(MEASURES_SHOWN, of, **about) for n, of in found.items()}
    for measure_ in MEASURES_SHOWN:
        better = "less is better" if measure_.name in ERRORS else "more is better"
        yield from (f"**{name}, {measure_.name.replace('_', ' ')}** ({better})", "")
        yield "| model |" + "".join(f" {n} labels |" for n in LABELS)
        yield "|---|" + "---|" * len(LABELS)
        for model in found[LABELS[0]]:
            cells = (
                cell(row) for n in LABELS for row in rows[n] if (row["model"], row["metric"]) == (model, measure_.name)
            )
            yield f"| {model} | " + " | ".join(cells) + " |"
        yield ""
    yield from (f"**{name}, differences of macro F1 on the same blocks**", "")
    yield "| model | against |" + "".join(f" {n} labels |" for n in LABELS)
    yield "|---|---|" + "---|" * len(LABELS)
    for model, other in PAIRS:
        cells = []
        for n in LABELS:
            if model in found[n] and other in found[n]:
                row = difference_rows(MEASURES_SHOWN[:1], found[n], model, [other], **about)[0]
                cells.append(f"{cell(row, '+.3f')} {row['verdict']}")
        if cells:
            yield f"| {model} | {other} | " + " | ".join(cells) + " |"
    yield ""
    for model in (FEW_RANDOM, FEW):
        for n in LABELS:
            if model in found[n]:
                chosen = Counter(f"{each['head']} on {each['features']}" for each in kept.about(model, n))
                yield f"- {model}, {n} labels, chose " + ", ".join(f"{what} ({k})" for what, k in chosen.items())
    yield ""


def cell(row: dict[str, Any], form: str = ".3f") -> str:
    """``0.412 (0.36 … 0.47)``, or the score alone where there are too few blocks for an interval."""
    between = "" if row["low"] is None else f" ({row['low']:{form}} … {row['high']:{form}})"
    return f"{row['mean']:{form}}{between}"


if __name__ == "__main__":
    main()
