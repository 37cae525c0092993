"""The year: which scenes arrive in which order, what is wrong with some, and what has to become of each.

Everything follows from one seed. Scenes are written into a depot once; :class:`Landing` lets them arrive in a
project's folder one by one, each in one move, as a receiving station that means well does it.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geossl.demo.landscape import LandscapeSettings, write_landscape
from geossl.demo.products import scene_id

SIZE = 512
"""Pixels of 10 m."""

HISTORY = tuple(dt.date(2021, 1, 7) + dt.timedelta(days=33 * k) for k in range(22))
"""Days whose scenes are there from the beginning: two years, from which follows what is usual."""
YEAR = tuple(dt.date(2023, 1, 4) + dt.timedelta(days=20 * k) for k in range(18))
"""Days whose scenes arrive one by one."""


class Fate(StrEnum):
    """What has to become of a scene."""

    GOOD = "in the cube once"
    CLOUDED = "in the cube once, without a clear pixel"
    ASIDE = "set aside"
    HELD = "in the cube, held for review"


@dataclass(frozen=True)
class Spoilt:
    """What is wrong with a scene."""

    fate: Fate
    spoil: Callable[[Path], None]
    again: bool = False
    """Whether it is delivered again, intact, as the next arrival."""


def _rewrite(path: Path, change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> None:
    """Write a raster again with other pixels; what tags it stays."""
    with rasterio.open(path) as file:
        pixels, profile, scales, offsets = file.read(), file.profile, file.scales, file.offsets
    for key in ("blockxsize", "blockysize", "tiled", "photometric", "interleave"):
        profile.pop(key, None)
    with rasterio.open(path, "w", **(profile | {"driver": "GTiff"})) as file:
        file.write(change(pixels).astype(pixels.dtype))
        file.scales, file.offsets = scales, offsets


def _overcast(scene: Path) -> None:
    _rewrite(scene / "scl.tif", lambda codes: np.where(codes == 0, 0, 9))
    for band in scene.glob("B*.tif"):
        _rewrite(band, lambda pixels: np.where(pixels == 0, 0, 7000))


def _shifted(scene: Path) -> None:
    """As if the processing had forgotten half of the offset that it declares."""
    for band in scene.glob("B*.tif"):
        _rewrite(band, lambda pixels: np.where(pixels == 0, 0, pixels + 500))


def _cut_off(scene: Path) -> None:
    band = scene / "B08.tif"
    os.truncate(band, band.stat().st_size // 2)


def _incomplete(scene: Path) -> None:
    (scene / "B11.tif").unlink()


SPOILT: dict[dt.date, Spoilt] = {
    YEAR[2]: Spoilt(Fate.CLOUDED, _overcast),
    YEAR[4]: Spoilt(Fate.GOOD, _cut_off, again=True),
    YEAR[7]: Spoilt(Fate.HELD, _shifted),
    YEAR[10]: Spoilt(Fate.ASIDE, _incomplete),
    YEAR[15]: Spoilt(Fate.CLOUDED, _overcast),
}

FATES: dict[str, Fate] = {scene_id(day): Fate.GOOD for day in (*HISTORY, *YEAR)} | {
    scene_id(day): spoilt.fate for day, spoilt in SPOILT.items()
}
"""Scene → what has to become of it by the end of the year."""


PROJECT = """\
name: soak
store: store
grid: {{ tile: 256 }}
cluster: {cluster}
sensor: {{ name: sentinel-2-l2a, bands: [B02, B03, B04, B08, B11] }}
sources:
  - {{ kind: folder, path: landing }}
composite: {{ months: 6 }}
split: {{ block: 32, buffer: 4, fractions: [0.45, 0.1, 0.45], gate: 0.3, seed: 3 }}
pretrain:
  launch: {launch}
  method: {{ name: simclr, pairs: season }}
  encoder: {{ name: unet-tiny }}
  epochs: 1
  chip: 32
  batch_size: 64
  threads: 1
evaluate: {{ labels: [60], draws: 1, every: 8, floors: false }}
tasks:
  landcover:
    kind: landcover
    labels: {{ path: labels/landcover.gpkg, column: class }}
    settings: {{ labels: {labels}, mode: {mode}, finetune: {{ steps: 40, window: 64, windows: 64 }} }}
alerts:
  clearings: {{ since: 2023-06-01, reference: {{ path: labels/clearings.gpkg, date_column: date }} }}
map: {{ minimum_ha: 0.1 }}
drift: {{ false_alarms: 0.01 }}
retrain: {{ hours: 3, new_pixels: {new_pixels}, margin: 0.02 }}
{more}"""


@dataclass(frozen=True)
class Edition:
    """What somebody writes into the project file."""

    labels: int = 24
    mode: str = "few"
    new_pixels: float = 0.35

    def text(self, cluster: str, launch: str, more: str) -> str:
        about = {"labels": self.labels, "mode": self.mode, "new_pixels": self.new_pixels}
        return PROJECT.format(**about, cluster=cluster, launch=launch, more=more)


USUAL = Edition()
WORSE = Edition(labels=8)
"""A challenger that is worse on purpose: one labelled pixel or two a class."""
BETTER = Edition(labels=3000, new_pixels=0.0)
"""A hundred times the labels, and a new encoder from whatever there is by then: where the loop comes to rest with it
does not depend on the way there."""

WORSE_AFTER, USUAL_AFTER = YEAR[12], YEAR[13]
"""Somebody spoils the project file after one scene has arrived, and puts it right after another."""


@dataclass(frozen=True)
class Arrival:
    """Something that happens: a scene arrives, or the project file is edited."""

    day: dt.date
    scene: Path | None = None
    """Folder in the depot."""
    edition: Edition | None = None

    def __str__(self) -> str:
        what = f"scene {self.scene.parent.name}/{self.scene.name}" if self.scene else f"project file: {self.edition}"
        return f"{self.day} {what}"


@dataclass(frozen=True)
class World:
    """The depot of all scenes, good ones and spoilt ones."""

    depot: Path

    @classmethod
    def write(cls, depot: Path) -> World:
        """Generate what is not there yet."""
        days = (*HISTORY, *YEAR)
        landscape = write_landscape(depot, LandscapeSettings(size=SIZE, dates=days))
        for day, spoilt in SPOILT.items():
            target = depot / "spoilt" / scene_id(day)
            if not target.exists():
                partial = target.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(landscape.folder / "scenes" / scene_id(day), partial)
                spoilt.spoil(partial)
                partial.rename(target)
        return cls(depot)

    @property
    def history(self) -> list[Path]:
        return [self.depot / "scenes" / scene_id(day) for day in HISTORY]

    def year(self) -> Iterator[Arrival]:
        """Everything that happens, in order."""
        for day in YEAR:
            spoilt = SPOILT.get(day)
            yield Arrival(day, self.depot / ("spoilt" if spoilt else "scenes") / scene_id(day))
            if spoilt is not None and spoilt.again:
                yield Arrival(day, self.depot / "scenes" / scene_id(day))
            if day in (WORSE_AFTER, USUAL_AFTER):
                yield Arrival(day, edition=WORSE if day == WORSE_AFTER else USUAL)
        yield Arrival(YEAR[-1], edition=BETTER)


@dataclass(frozen=True)
class Landing:
    """A project on the world; its scenes arrive by :meth:`happen`."""

    folder: Path
    cluster: str
    """What the project file says of it."""
    launch: str = "{}"
    more: str = ""
    """Further lines of the project file."""

    def begin(self, world: World) -> None:
        """A project with the history and the labels."""
        (self.folder / "landing").mkdir(parents=True)
        shutil.copytree(world.depot / "labels", self.folder / "labels")
        self.edit(USUAL)
        for scene in world.history:
            self._deliver(scene)

    def happen(self, arrival: Arrival) -> None:
        if arrival.scene is not None:
            self._deliver(arrival.scene)
        if arrival.edition is not None:
            self.edit(arrival.edition)

    def edit(self, edition: Edition) -> None:
        partial = self.folder / ".geossl.yaml"
        partial.write_text(edition.text(self.cluster, self.launch, self.more))
        partial.replace(self.folder / "geossl.yaml")

    def _deliver(self, scene: Path) -> None:
        """Into the landing folder in one move; what had come under that name is taken away before."""
        there, wire = self.folder / "landing" / scene.name, self.folder / "wire"
        wire.mkdir(exist_ok=True)
        shutil.copytree(scene, wire / scene.name)
        if there.exists():
            there.rename(wire / "replaced")
        (wire / scene.name).rename(there)
        shutil.rmtree(wire)
