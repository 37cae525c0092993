"""Read a published map back: which release, what it says and what it was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geossl.errors import StoreError
from geossl.legend import LandClass, Legend
from geossl.maps.tiles import TileRecord


@dataclass(frozen=True, slots=True)
class Published:
    """One release of a map, as its own files describe it."""

    name: str
    id: str
    folder: Path
    legend: Legend
    model: str
    """Id of the model that made it."""
    collection: str
    """Of the cube, whose images it shows."""
    records: tuple[TileRecord, ...]

    @property
    def classes(self) -> Path:
        """The class raster."""
        return self.folder / f"{self.name}.tif"

    @property
    def tag(self) -> str:
        """The cube's tag on the snapshot that it was published from."""
        return f"map-{self.name}-{self.id}"

    @property
    def dates(self) -> tuple[str, ...]:
        """The day or period of each of its images, over all tiles: one, or before and after."""
        sources = list(zip(*(record.own for record in self.records if record.extent is not None), strict=True))
        ends = [(min(s.first for s in of), max(s.last for s in of)) for of in sources]
        return tuple(first if first == last else f"{first} to {last}" for first, last in ends)


def find_map(root: Path, wanted: str | Path) -> Published:
    """The release that a name (its newest), ``name/release``, or a folder means.

    Parameters
    ----------
    root:
        Folder of all maps of the store.

    Raises
    ------
    StoreError
        There is none; the message names those that there are.
    """
    for folder in (Path(wanted), root / wanted / "latest", root / str(wanted).replace("/", "/releases/", 1)):
        if folder.is_dir() and (found := _read(folder.resolve())) is not None:
            return found
    known = [f"{path.parents[1].name}/{path.name}" for path in sorted(root.glob("*/releases/[!.]*")) if path.is_dir()]
    raise StoreError(
        f"there is no published map {str(wanted)!r}",
        f"there are: {', '.join(known)}" if known else "make one with `geossl map` first",
    )


def _read(folder: Path) -> Published | None:
    """What lies in a folder; None where it is no release."""
    # by what lies there, since a release may have been copied elsewhere
    lineage = next(folder.glob("*-lineage.json"), None)
    if lineage is None:
        return None
    name = lineage.name.removesuffix("-lineage.json")
    try:
        others = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json") if path != lineage]
        about: dict[str, Any] = next((other for other in others if other.get("type") == "Feature"), {})
        made: dict[str, Any] = json.loads(lineage.read_text(encoding="utf-8"))
        classes = about["assets"]["map"]["classification:classes"]
        legend = Legend(
            tuple(LandClass(int(c["value"]), c["title"], f"#{c['color_hint'].lower()}") for c in classes), name
        )
        records = tuple(TileRecord.from_dict(record) for record in made["tiles"])
        return Published(
            name, about["id"], folder, legend, made["task"], about["properties"]["geossl:collection"], records
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the published map {folder} is damaged: {error!r}", "map it again") from error
