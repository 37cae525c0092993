"""`geossl evaluate --dataset …`: what the frozen encoder knows of a public set of images, or of pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geossl.downstream.datasets import evaluate_dataset
from geossl.downstream.pairs import evaluate_pairs
from geossl.downstream.public import SETS, DatasetName
from geossl.errors import SettingsError
from geossl.files import write_json
from geossl.nets.weights import load_encoder
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.stages.evaluate import keep, summary


def run(
    project: Project,
    name: DatasetName | None,
    root: Path | None,
    bands: Sequence[str],
    progress: Progress,
    *,
    limit: int | None = None,
) -> StageResult:
    """Score the newest encoder, and keep the rows beside it as ``on-NAME.json``.

    Parameters
    ----------
    bands:
        Pairs such as ``nir=B08``: the encoder's band and the set's.

    Raises
    ------
    SettingsError
        Set or folder is not named, or a pair is none.
    """
    if name is None or root is None:
        raise SettingsError(
            "a public set is asked for by its name and its folder, and one of them is missing",
            "give both, as in --dataset eurosat --root data/eurosat",
        )
    mapping = {}
    for each in bands:
        ours, _, theirs = each.partition("=")
        if not (ours and theirs):
            raise SettingsError(f"--band {each} is no pair of bands", "write --band OURS=THEIRS")
        mapping[ours] = theirs
    folder = project.encoder_folder()
    encoder, card = load_encoder(folder)
    public, settings = SETS[name], project.settings.evaluate
    evaluate = evaluate_pairs if public.pairs else evaluate_dataset
    found = evaluate(name, root, encoder, card, settings, mapping=mapping, limit=limit, progress=progress)
    about = {"encoder": card.id, "dataset": name, "protocol": public.protocol, "bands": mapping, "limit": limit}
    if public.pairs:
        about["every"] = settings.every
    write_json(folder / f"on-{name}.json", about | keep(found, name))
    several = "cities" if public.pairs else "images"
    lines = [f"{card.id} on {public.protocol}" + ("" if limit is None else f", at most {limit:,} {several} of each")]
    if public.pairs and settings.every > 1:
        lines.append(f"scored on one of {settings.every**2} pixels; on all of them by `--set evaluate.every=1`")
    if public.sensor.name != card.sensor.name:
        lines.append(f"its images are {public.sensor.name}; the encoder was trained on {card.sensor.name}")
    lines += summary(found.rows, found.differences)
    if public.pairs:  # what is published of change is F1
        lines += summary([row for row in found.rows if row["metric"] == "f1"], [])
    return StageResult("evaluate", lines)
