"""``python -m tests.benchmarks.unlabelled``: which change map without labels is the best default?

Embedding distance, IR-MAD and CVA on ground whose change is known and which none of them was shown: the labelled
cities of OSCD (any change; the encoder saw the unlabelled cities only) and the clearings of generated landscapes
(clearings; the encoder saw their imagery). Average precision asks for the order of pixels alone, F1 for the map as it
would be published, and its area error is (mapped - true) / true.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from geossl import scores
from geossl.demo.landscape import LandscapeSettings, write_landscape
from geossl.downstream import unlabelled
from geossl.downstream.data import TaskData
from geossl.downstream.settings import ChangeSettings, Of, UnlabelledMethod
from geossl.legend import NO_LABEL
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder
from geossl.nets.weights import load_encoder
from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.run import stage

from .recipes import sets
from .recipes.change_tasks import of_unlabelled_cities

METHODS: tuple[UnlabelledMethod, ...] = ("embedding", "irmad", "cva")
DEMO = Path(__file__).parents[2] / "geossl" / "demo" / "geossl.yaml"
SEEDS = (0, 1, 2)
OUT = Path("out/unlabelled")

Row = tuple[float, float, float]
"""Average precision, F1, area error."""


def cities() -> Iterator[tuple[str, TaskData, Encoder, Card]]:
    """The labelled cities of OSCD, and an encoder that saw the others."""
    encoder, card = of_unlabelled_cities()
    for city in sets.LABELLED:
        data = Project.load(sets.city(city)).task_data("change")
        assert isinstance(data, TaskData)
        yield city, data, encoder, card


def landscapes(seeds: Sequence[int]) -> Iterator[tuple[str, TaskData, Encoder, Card]]:
    """Generated landscapes with the clearings of a year, and an encoder that each was pretrained with."""
    for seed in seeds:
        folder = OUT / f"demo-{seed}"
        if not (folder / "imagery").exists():
            write_landscape(folder / "imagery", LandscapeSettings(seed=seed))
        (folder / "geossl.yaml").write_text(DEMO.read_text())
        project = Project.load(folder, ["pretrain.minutes=null", "pretrain.epochs=6"])
        for verb in ("ingest", "stats", "pretrain"):
            stage(verb)(project, silent)
        data = project.task_data("clearing")
        assert isinstance(data, TaskData)
        yield f"landscape {seed}", data, *load_encoder(project.encoder_folder())


def measured(data: TaskData, encoder: Encoder, card: Card, method: UnlabelledMethod, of: Of) -> Row:
    """Scores of a map over all labelled ground."""
    task = unlabelled.fit(data, encoder, card, ChangeSettings(method=method, of=of))
    truth, found = [], []
    for tile_id in data.require_dates():
        label = data.legend.to_index(data.labels.read(tile_id))
        label[~data.asked(tile_id)] = NO_LABEL
        image, valid = data.images(tile_id)
        truth.append(label[label != NO_LABEL])
        found.append(task.predict(image[None], valid[None])[0, 1][label != NO_LABEL])
    y, p = np.concatenate(truth) == 1, np.concatenate(found)
    matrix = scores.confusion(y, p > 0.5, 2)
    area = ((p > 0.5).sum() - y.sum()) / y.sum()
    return scores.average_precision_of(scores.histogram(y, p)), float(scores.f1(matrix)[1]), float(area)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.unlabelled", description=__doc__)
    parser.add_argument("--set", choices=["oscd", "demo"], nargs="*", default=["oscd", "demo"])
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="of the generated landscapes")
    wanted = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| set | place | method | average precision | F1 | area error |\n|---|---|---|---|---|---|")
    for name, places, of in (("oscd", cities, "any"), ("demo", partial(landscapes, wanted.seeds), "clearing")):
        if name not in wanted.set:
            continue
        rows: dict[str, list[Row]] = defaultdict(list)
        for place, data, encoder, card in places():
            for method in METHODS:
                rows[method].append(measured(data, encoder, card, method, of))  # type: ignore[arg-type]
                print(_line(name, place, method, rows[method][-1]), flush=True)
        for method, found in rows.items():
            mean = np.mean(np.abs(found), axis=0)
            print(_line(name, f"mean of {len(found)}", method, (mean[0], mean[1], mean[2]), area=".0%"), flush=True)


def _line(name: str, place: str, method: str, row: Row, area: str = "+.0%") -> str:
    return f"| {name} | {place} | {method} | {row[0]:.3f} | {row[1]:.3f} | {row[2]:{area}} |"


if __name__ == "__main__":
    main()
