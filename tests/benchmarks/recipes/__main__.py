"""``python -m tests.benchmarks.recipes --set zion --method simclr``: measure, keep, and print rows.

Measurements are lines of ``measured.jsonl`` beside this file, and what is there is not measured again: a
run that is stopped goes on where it was, and all rows are printed without the imagery. Without a method, floors and random encoders are measured;
``--table`` alone prints what there is.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

from geossl.nets.weights import CARD

from . import change, landcover, patches, sets
from .elsewhere import Training, pack
from .pretraining import METHODS, Length
from .rows import INDUCTIVE, POOLED, TRANSDUCTIVE, Ledger, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.recipes", description=__doc__)
    parser.add_argument("--set", choices=[*sets.LANDCOVER, "oscd", "bigearthnet"], required=True)
    parser.add_argument("--method", choices=[*METHODS], nargs="*", default=[])
    parser.add_argument("--encoder", help="by default unet-small, and vit-tiny for mae")
    parser.add_argument("--minutes", type=float, default=1.5, help="of pretraining, on one thread")
    parser.add_argument("--steps", type=int, default=0, help="of pretraining, instead of minutes: in whole epochs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--transductive", action="store_true", help="pretrain on all blocks, not on training blocks")
    parser.add_argument(
        "--pool",
        action="store_true",
        help="pretrain on training blocks and on other sets that are cubes (of zion, rstoolbox)",
    )
    parser.add_argument("--whole", action="store_true", help="train the whole network, beside the same from scratch")
    parser.add_argument(
        "--encoder-rate",
        type=float,
        default=1.0,
        help="with --whole (of zion, rstoolbox): the encoder's learning rate in that of the head; 0: it is frozen",
    )
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="train nothing: write what elsewhere.py trains")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    wanted = parser.parse_args()
    if wanted.pool and (wanted.set not in sets.LANDCOVER or wanted.whole or wanted.transductive or wanted.pack):
        parser.error(f"--pool is for frozen encoders of {' and '.join(sets.LANDCOVER)}, which are trained here")
    if wanted.encoder_rate != 1 and (wanted.set not in sets.LANDCOVER or not wanted.whole or not wanted.method):
        parser.error(f"--encoder-rate is for --whole and a --method, of {' and '.join(sets.LANDCOVER)}")
    warnings.filterwarnings("ignore")
    ledger = Ledger(Path(__file__).with_name("measured.jsonl"))
    length = Length(steps=wanted.steps) if wanted.steps else Length(wanted.minutes)
    if wanted.pack:
        for method in wanted.method:
            what = method, wanted.encoder or _usual(method), length
            for each in _trainings(wanted.set, *what, wanted.seeds, _protocol(wanted)):
                if not (each.folder / CARD).exists():
                    pack(each, wanted.pack / each.folder.relative_to(sets.OUT))
        return
    if not wanted.table:
        for method in wanted.method or [None]:
            encoder = wanted.encoder or _usual(method)
            about = (wanted.set, method, encoder, length, wanted.seeds, ledger)
            if wanted.set == "oscd":
                change.measure(*about[1:4], ledger, protocol=_protocol(wanted), whole=wanted.whole)
            elif wanted.set == "bigearthnet":
                patches.measure(*about[1:], protocol=_protocol(wanted))
            elif wanted.whole:
                landcover.measure_whole(*about, rate=wanted.encoder_rate)
            else:
                landcover.measure(*about, protocol=_protocol(wanted))
    of_set = [each for each in ledger.all if each.set == wanted.set]
    print("\n".join(table(of_set, set(wanted.method) or None)))


def _usual(method: str | None) -> str:
    return "vit-tiny" if method == "mae" else "unet-small"


def _protocol(wanted: argparse.Namespace) -> str:
    if wanted.pool:
        return POOLED
    return TRANSDUCTIVE if wanted.transductive else INDUCTIVE


def _trainings(name: str, method: str, encoder: str, length: Length, seeds: int, protocol: str) -> Iterator[Training]:
    for number in range(len(change.FOLDS) if name == "oscd" else seeds):
        if name == "oscd":
            yield change.training(change.Fold.of(number), method, encoder, length, protocol=protocol)
        elif name == "bigearthnet":
            yield patches.training(patches.Patches.of(number), method, encoder, length, protocol=protocol)
        else:
            yield landcover.training(name, method, encoder, length, number, protocol=protocol)


if __name__ == "__main__":
    main()
