"""``python -m tests.benchmarks.recipes --set zion --method simclr``: measure, keep, and print rows.

Measurements are lines of ``out/recipes/measured.jsonl``, and what is there is not measured again: a
run that is stopped goes on where it was. Without a method, floors and random encoders are measured;
``--table`` alone prints what there is.
"""

from __future__ import annotations

import argparse
import warnings

from . import change, landcover, patches, sets
from .pretraining import METHODS
from .rows import Ledger, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recipes", description=__doc__)
    parser.add_argument("--set", choices=[*sets.LANDCOVER, "oscd", "bigearthnet"], required=True)
    parser.add_argument("--method", choices=[*METHODS], nargs="*", default=[])
    parser.add_argument("--encoder", help="by default unet-small, and vit-tiny for mae")
    parser.add_argument("--minutes", type=float, default=1.5, help="of pretraining, on one thread")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--transductive", action="store_true", help="pretrain on all blocks, not on training blocks")
    parser.add_argument("--whole", action="store_true", help="train the whole network, beside the same from scratch")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    wanted = parser.parse_args()
    warnings.filterwarnings("ignore")
    ledger = Ledger(sets.OUT / "measured.jsonl")
    if not wanted.table:
        for method in wanted.method or [None]:
            encoder = wanted.encoder or ("vit-tiny" if method == "mae" else "unet-small")
            about = (wanted.set, method, encoder, wanted.minutes, wanted.seeds, ledger)
            if wanted.set == "oscd":
                change.measure(*about[1:4], ledger, transductive=wanted.transductive, whole=wanted.whole)
            elif wanted.set == "bigearthnet":
                patches.measure(*about[1:], transductive=wanted.transductive)
            elif wanted.whole:
                landcover.measure_whole(*about)
            else:
                landcover.measure(*about, transductive=wanted.transductive)
    of_set = [each for each in ledger.all if each.set == wanted.set]
    print("\n".join(table(of_set, set(wanted.method) or None)))


if __name__ == "__main__":
    main()
