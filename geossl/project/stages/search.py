"""`geossl search`: the places that are most like a point or a polygon."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geossl.chips.index import ChipIndex
from geossl.chips.reader import ChipReader
from geossl.cube.collection import Collection
from geossl.errors import SettingsError, StoreError
from geossl.files import write_bytes
from geossl.project.outline import read_outline
from geossl.project.project import Project
from geossl.project.state import Record
from geossl.report.pictures import quicklook
from geossl.report.sheet import Cell, contact_sheet
from geossl.search.milvus import Milvus, address
from geossl.search.nearest import Exact, Hit, Index, Question, at_point, geometry, places_of, question, within
from geossl.search.table import Embeddings, Where


@dataclass(frozen=True)
class Answer:
    """The places that were found."""

    geojson: dict[str, Any]
    """A FeatureCollection, the most similar first; ``query`` says what was asked."""
    sheet: Path
    """Picture of what was asked for (framed) and of what was found."""
    notes: list[str]
    """What the asker should know, in plain words."""


def search(
    project: Project,
    *,
    at: tuple[float, float] | None = None,
    like: Path | None = None,
    where: Where | None = None,
    most: int = 12,
    sheet: Path | None = None,
) -> Answer:
    """Find the places most like a point (longitude, latitude), or most like the ground in a vector file.

    Parameters
    ----------
    where:
        Only chips of these dates that are this clear, both of what is asked for and of what is found.
    sheet:
        Where the contact sheet goes; by default into the store.

    Raises
    ------
    StoreError
        There are no embeddings yet, or they are not of the newest encoder.
    SettingsError
        There is no chip where it was asked for.
    """
    if (at is None) == (like is None):
        raise SettingsError("say either what point to start from or what polygon", "--at LON,LAT or --like FILE")
    record = _record(project)
    embeddings = Embeddings(project.embeddings / record.result["folder"])
    where = where or Where()
    places = places_of(embeddings, where)
    if like is not None:
        area = read_outline(like, "--like", embeddings.about.lattice.grid.crs)
        if not area.area > 0:
            raise SettingsError(f"--like: {like} holds no polygon", "ask for a single point by --at LON,LAT")
        chosen, asked = within(embeddings, places, area), f"like {like.name}"
    else:
        assert at is not None, "one of the two is given"
        chosen, asked = at_point(embeddings, places, *at), f"at {at[0]:g},{at[1]:g}"
    asking = question(embeddings, chosen, where)
    with ExitStack() as stack:
        uri = address(project.settings.search)
        # the files hold all that Milvus does, and their answers are the exact ones
        index: Index = (
            Exact(embeddings)
            if uri is None or uri != record.result["milvus"]
            else stack.enter_context(Milvus(uri, embeddings))
        )
        hits = index.nearest(asking, where, most)
    scenes = project.scenes()
    sheet = sheet or project.embeddings / "similar.png"
    write_bytes(sheet, contact_sheet(_cells(scenes, embeddings, asking, hits, asked)))
    query = {
        "asked": asked,
        "filter": str(where),
        "chips": asking.chips,
        "encoder": embeddings.about.encoder,
        "snapshot": record.result["snapshot"],
        "by": "exact comparison" if isinstance(index, Exact) else f"Milvus, {uri}",
    }
    return Answer(_geojson(embeddings, hits, query), sheet, _notes(scenes, record, asking, hits, most))


def parse_point(text: str) -> tuple[float, float]:
    """``LON,LAT`` in degrees.

    Raises
    ------
    SettingsError
        It is something else.
    """
    try:
        longitude, latitude = (float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--at {text!r} is no point", "write it as LON,LAT in degrees: --at -54.7,-8.9") from None
    if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
        raise SettingsError(f"--at {text}: there is no such place on Earth", "longitude first, then latitude")
    return longitude, latitude


def parse_day(option: str, text: str | None) -> dt.date | None:
    """``2024-03-31``; nothing stays nothing."""
    try:
        return None if text is None else dt.date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{option} {text!r} is no date", "write it as 2024-03-31") from None


def _record(project: Project) -> Record:
    """The last embedding; refuses one of another encoder than the project's."""
    encoder = project.encoder_folder().name
    record = project.state.get("embed")
    if record is None or not (project.embeddings / record.result["folder"]).exists():
        raise StoreError(f"project {project.settings.name!r} has no embeddings yet", "run `geossl embed` first")
    if record.result["encoder"] != encoder:
        raise StoreError(
            f"the embeddings are of the encoder {record.result['encoder']}, but the project's is now {encoder}",
            "run `geossl embed`",
        )
    return record


def _geojson(embeddings: Embeddings, hits: Sequence[Hit], query: dict[str, Any]) -> dict[str, Any]:
    features = [
        {
            "type": "Feature",
            "geometry": json.loads(shapely.to_geojson(outline)),
            "properties": {
                "rank": rank,
                "similarity": round(hit.similarity, 4),
                "time": f"{hit.time}Z",
                "scene": hit.scene,
                "tile": hit.tile,
                "row": hit.row,
                "col": hit.col,
                "clear_fraction": round(hit.clear, 4),
            },
        }
        for rank, (hit, outline) in enumerate(zip(hits, geometry(embeddings, hits), strict=True), start=1)
    ]
    return {"type": "FeatureCollection", "query": query, "features": features}


def _cells(scenes: Collection, embeddings: Embeddings, asking: Question, hits: Sequence[Hit], asked: str) -> list[Cell]:
    """The chip that stands for what was asked, then the answers."""
    statistics = scenes.statistics
    assert statistics is not None, "an encoder was trained with some"
    chips = [asking.example, *hits]
    pixels = ChipReader(scenes).read(_index(scenes, chips, embeddings.about.lattice.size), np.arange(len(chips)))
    titles = [asked, *(f"{rank}: similarity {hit.similarity:.3f}" for rank, hit in enumerate(hits, start=1))]
    return [
        Cell(quicklook(image, scenes.sensor, statistics), [title, str(chip.time)[:10]], framed=number == 0)
        for number, (chip, title, image) in enumerate(zip(chips, titles, pixels.image, strict=True))
    ]


def _index(scenes: Collection, chips: Sequence[Hit], size: int) -> ChipIndex:
    """The chips as the cube's newest snapshot has them."""
    tile_ids = tuple(dict.fromkeys(chip.tile for chip in chips))
    steps = {tile_id: scenes.scene_ids(tile_id) for tile_id in tile_ids}
    gone = [chip.scene for chip in chips if chip.scene not in steps[chip.tile]]
    if gone:
        raise StoreError(f"the scene {gone[0]} is no longer in the cube", "run `geossl embed`")
    return ChipIndex(
        tile_ids,
        size,
        np.array([tile_ids.index(chip.tile) for chip in chips], np.int32),
        np.array([steps[chip.tile].index(chip.scene) for chip in chips], np.int32),
        np.array([chip.row for chip in chips], np.int32),
        np.array([chip.col for chip in chips], np.int32),
        np.array([chip.clear for chip in chips], np.float32),
        np.array([chip.time for chip in chips], "datetime64[ns]"),
    )


def _notes(scenes: Collection, record: Record, asking: Question, hits: Sequence[Hit], most: int) -> list[str]:
    notes = [f"{len(hits)} places like {asking.chips} chip(s) of {len(asking.places)} place(s)"]
    if len(hits) < most:
        notes.append("there are no more that lie apart from each other and from what was asked for")
    if scenes.snapshot != record.result["snapshot"]:
        notes.append("the cube has changed since: `geossl embed` brings the embeddings up to date")
    return notes
