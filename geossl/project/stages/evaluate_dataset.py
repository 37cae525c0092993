"""`geossl evaluate --dataset …`: what the frozen encoder knows of a public set of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geossl.downstream.datasets import SETS, DatasetName, evaluate_dataset
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
    found = evaluate_dataset(
        name, root, encoder, card, project.settings.evaluate, mapping=mapping, limit=limit, progress=progress
    )
    public = SETS[name]
    about = {"encoder": card.id, "dataset": name, "protocol": public.protocol, "bands": mapping, "limit": limit}
    write_json(folder / f"on-{name}.json", about | keep(found, name))
    lines = [f"{card.id} on {public.protocol}" + ("" if limit is None else f", at most {limit:,} images of each")]
    if public.sensor.name != card.sensor.name:
        lines.append(f"its images are {public.sensor.name}; the encoder was trained on {card.sensor.name}")
    return StageResult("evaluate", [*lines, *summary(found.rows, found.differences)])
