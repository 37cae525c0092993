"""`geossl area`: what a sample's answers say of areas and accuracies."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geossl.areas.answers import WHY_NOT, read_answers
from geossl.areas.assess import assess
from geossl.areas.estimators import Z
from geossl.areas.sample import INTERPRET, POINTS, Sample
from geossl.chips.split import TRAIN, VAL
from geossl.errors import LabelError, StoreError
from geossl.files import aside, write_json
from geossl.legend import NO_LABEL
from geossl.maps.published import Published, find_map
from geossl.project.project import Project
from geossl.project.state import fingerprint

INTERVALS = "95 % intervals: of areas ± 1.96 standard errors (Olofsson et al. 2014); of accuracies Wilson's with the same errors"


@dataclass(frozen=True)
class Assessed:
    """The figures, and where they were written."""

    figures: dict[str, Any]
    json: Path
    csv: Path


def run(
    project: Project,
    wanted: str,
    *,
    reference: Path | None = None,
    column: str = "reference",
    assessed: str | None = None,
) -> Assessed:
    """Estimate areas and accuracies, and write them beside the sample.

    Parameters
    ----------
    wanted:
        A sample's id or folder.
    reference:
        Interpreted points; by default those in the sample's folder.
    assessed:
        A newer map to assess by points that were drawn from an older one.

    Raises
    ------
    StoreError
        There is no such sample or map.
    LabelError
        The reference cannot be one.
    """
    folder = find_sample(project, wanted)
    sample = Sample.load(folder)
    path = reference if reference is not None else folder / INTERPRET / f"{POINTS}.gpkg"
    _refuse_labels(project, path)
    answers = read_answers(path, sample, column)
    published = None if assessed is None else find_map(project.maps, assessed)
    same = published is None or (published.name, published.id) == (sample.map, sample.release)
    mapped = _classes_drawn(sample) if published is None or same else _classes_at(sample, published)
    checksum = _sha256(path)
    key = fingerprint(sample=sample.id, answers=checksum, column=column, map=assessed)
    with project.state.recording(f"area.{folder.name}", key) as result:
        figures = assess(sample, answers, mapped, same_map=same)
        if taught := _taught(project, sample):
            figures["notes"].append(
                f"{taught} of {len(sample.points)} points lie on labels that taught the model; they count, since areas "
                "need the whole map, but must have been interpreted without looking at those labels"
            )
        figures |= {
            "sample": sample.id,
            "map": sample.map,
            "drawn_from": sample.release,
            "assessed": sample.release if published is None else f"{published.name}/{published.id}",
            "dates": list(sample.dates),
            "points_on_training_labels": taught,
            "reference": path.name,
            "reference_sha256": checksum,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }
        suffix = "" if same or published is None else f"-{published.name}-{published.id}"
        done = Assessed(figures, folder / f"area{suffix}.json", folder / f"area{suffix}.csv")
        write_json(done.json, figures)
        _write_csv(done.csv, figures)
        result.update(figures)
    return done


def find_sample(project: Project, wanted: str) -> Path:
    """The folder of a sample by its id or path, or of a map's only one by the map's name."""
    for folder in (Path(wanted), project.samples / wanted):
        if (folder / "sample.json").is_file():
            return folder
    known = sorted(path.parent.name for path in project.samples.glob("*/sample.json"))
    of_map = [name for name in known if Sample.load(project.samples / name).map == wanted]
    if len(of_map) == 1:
        return project.samples / of_map[0]
    raise StoreError(
        f"there is no sample {wanted!r}" if not of_map else f"the map {wanted!r} has {len(of_map)} samples",
        f"there are: {', '.join(known)}" if known else "draw one with `geossl sample MAP`",
    )


def table_rows(figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Class, mapped area, area, user's and producer's accuracy as text."""
    for entry in figures["classes"]:
        yield (
            entry["class"],
            "–" if entry["mapped_ha"] is None else f"{entry['mapped_ha']:,.1f}",
            _hectares(entry["area_ha"]),
            _share(entry["users"]),
            _share(entry["producers"]),
        )


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """What stands below the table."""
    yield INTERVALS
    yield f"overall accuracy {_share(figures['overall'])}"
    yield f"{figures['answered']} of {figures['points']} points answered ({figures['response']:.0%})"
    short = [row for row in figures["strata"] if row["answered"] < row["points"]]
    for row in short:
        yield f"  {row['stratum']}: {row['answered']} of {row['points']}"
    if short:
        for entry in figures["classes"]:
            low, high = entry["area_ha_whatever_the_open_points_are"]
            yield f"  {entry['class']}: {low:,.1f} to {high:,.1f} ha whatever the open points are"
    yield from figures["notes"]


def _hectares(row: dict[str, float | None]) -> str:
    return f"{row['value']:,.1f} ± {Z * (row['error'] or 0):,.1f} ha"


def _share(row: dict[str, float | None]) -> str:
    return "no point" if row["value"] is None else f"{row['value']:.3f} ({row['low']:.3f} … {row['high']:.3f})"


def _refuse_labels(project: Project, path: Path) -> None:
    """What taught the model is no reference for it."""
    layers = {name: task.labels for name, task in project.settings.tasks.items() if task.labels is not None}
    for name, labels in layers.items():
        files = [project.root / file for file in (*labels.paths, labels.area) if file is not None]
        if str(path) == name or path.resolve() in [file.resolve() for file in files]:
            raise LabelError(
                f"{path} holds the labels of the task {name!r}: {WHY_NOT}", "interpret the sample's points"
            )
    if path.resolve().is_relative_to(project.maps.resolve()):
        raise LabelError(f"{path} is of a map: {WHY_NOT}", "interpret the sample's points")


def _classes_drawn(sample: Sample) -> NDArray[np.uint8]:
    """(n,) class positions of the map that the points were drawn from."""
    return sample.legend.to_index(np.array([point.mapped for point in sample.points], np.uint8))


def _classes_at(sample: Sample, published: Published) -> NDArray[np.uint8]:
    """(n,) positions in the sample's legend of what another map says at the points."""
    ours = {name: position for position, name in enumerate(sample.legend.names)}
    if missing := [name for name in published.legend.names if name not in ours]:
        raise LabelError(
            f"the map {published.name}/{published.id} has classes that the sample's legend has not: {', '.join(missing)}",
            "assess a map of the same legend, or draw a sample from this one",
        )
    table = np.full(256, NO_LABEL, np.uint8)
    for land in published.legend:
        table[land.code] = ours[land.name]
    with rasterio.open(published.classes) as raster:
        if str(raster.crs) != sample.crs:
            raise LabelError(
                f"the map {published.name}/{published.id} lies in {raster.crs}, the sample in {sample.crs}"
            )
        # outside of the raster it yields no-data
        codes = [int(value[0]) for value in raster.sample([(point.x, point.y) for point in sample.points])]
    return table[np.array(codes, np.uint8)]


def _taught(project: Project, sample: Sample) -> int:
    """How many points lie on labels of training or validation blocks."""
    view = project.cube().view(sample.snapshot)
    if sample.map not in view.label_names():
        return 0
    labels = view.labels(sample.map)
    grid, with_labels = labels.grid, set(labels.tile_ids)
    side = grid.tile_size
    tiles: dict[str, list[tuple[int, int]]] = {}
    for point in sample.points:
        col, row = (point.x - grid.origin[0]) // grid.resolution, (grid.origin[1] - point.y) // grid.resolution
        tiles.setdefault(grid[int(col // side), int(row // side)].id, []).append((int(row % side), int(col % side)))
    taught = 0
    for tile_id in with_labels & tiles.keys():
        rows, cols = np.array(tiles[tile_id]).T
        subset = project.split.subset_mask(grid.tile(tile_id))[rows, cols]
        taught += int(((labels.read(tile_id)[rows, cols] != NO_LABEL) & np.isin(subset, (TRAIN, VAL))).sum())
    return taught


def _write_csv(path: Path, figures: dict[str, Any]) -> None:
    names = ("value", "error", "low", "high")
    with aside(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        what = ("area_ha", "users", "producers")
        writer.writerow(
            ["class", "mapped_ha", "points", *(f"{w}_{n}".removesuffix("_value") for w in what for n in names)]
        )
        for entry in figures["classes"]:
            writer.writerow(
                [entry["class"], entry["mapped_ha"], entry["points"], *(entry[w][n] for w in what for n in names)]
            )
        writer.writerow(
            ["overall accuracy", "", figures["answered"], *[""] * 4, *(figures["overall"][n] for n in names)]
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
