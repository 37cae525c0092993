"""Public sets with labels as torchgeo reads them from disk: where they come from, and what their numbers mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geossl import bands
from geossl.bands import Radiometry, Sensor
from geossl.errors import RadiometryError, StoreError

DatasetName = Literal["eurosat", "eurosat-spatial", "bigearthnet", "so2sat", "so2sat-culture-10", "oscd"]

Half = Literal["train", "test"]

_NEAR = 0.02  # µm: bands of one name and so near are the same
_L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
_L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
_SO2SAT = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_OSCD = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


@dataclass(frozen=True)
class PublicSet:
    """A set of images, and what its figures are to be compared with."""

    torchgeo: str
    """The class of ``torchgeo.datasets`` that reads it."""
    options: Mapping[str, Any]
    sensor: Sensor
    """The bands of its images, in order, and the meaning of their numbers."""
    protocol: str
    """Of its split, as rows name it."""
    several: bool = False
    """Whether an image may be of several classes."""
    pairs: bool = False
    """Whether it is of two dates each, with change marked pixel by pixel."""


def _so2sat(version: str, protocol: str) -> PublicSet:
    """So2Sat LCZ42's Sentinel-2 bands, which are top-of-atmosphere reflectance as it is, and not ten thousand times it.

    Its Sentinel-1 bands are parts of complex numbers and filtered intensities, of no unit that an encoder here sees.
    """
    reflectance = Radiometry("float32", unit="reflectance")
    return PublicSet(
        "So2Sat",
        {"version": version, "bands": tuple(f"S2_{name}" for name in _SO2SAT)},
        dataclasses.replace(bands.sensor("sentinel-2-l1c").subset(_SO2SAT), radiometry=reflectance),
        f"{protocol}, 17 local climate zones (Zhu et al. 2020, doi:10.1109/MGRS.2020.2964708)",
    )


SETS: dict[str, PublicSet] = {
    "eurosat": PublicSet(
        "EuroSAT",
        {},
        bands.sensor("sentinel-2-l1c").subset(_L1C),
        "torchgeo's train and test (Neumann et al. 2019, arXiv:1911.06721)",
    ),
    "eurosat-spatial": PublicSet(
        "EuroSATSpatial",
        {},
        bands.sensor("sentinel-2-l1c").subset(_L1C),
        "torchgeo's train and test by longitude",
    ),
    "bigearthnet": PublicSet(
        "BigEarthNetV2",
        {"bands": "s2"},
        bands.sensor("sentinel-2-l2a").subset(_L2A),
        "train and test of BigEarthNet v2, 19 classes (Clasen et al. 2024, arXiv:2407.03653)",
        several=True,
    ),
    # both learn from the same images
    "so2sat": _so2sat("2", "train and test of So2Sat LCZ42 version 2: 42 cities, and the eastern half of 10 others"),
    "so2sat-culture-10": _so2sat(
        "3_culture_10", "train and test of So2Sat LCZ42 version 3, culture-10: 42 cities, and 10 others"
    ),
    "oscd": PublicSet(
        "OSCD",
        {},
        bands.sensor("sentinel-2-l1c").subset(_OSCD),
        "train and test of OSCD: change in 14 cities, and in 10 others (Daudt et al. 2018, "
        "doi:10.1109/IGARSS.2018.8518015)",
        pairs=True,
    ),
}


def opened(name: DatasetName, root: Path, split: Half) -> Any:
    """A split of a set on disk, as torchgeo's class of it.

    Raises
    ------
    StoreError
        The set is not in that folder, or a package that reads it is not installed; nothing is downloaded.
    """
    import torchgeo.datasets
    from torchgeo.datasets.errors import DependencyNotFoundError

    public = SETS[name]
    try:
        # torchgeo downloads nothing unless it is told to, and not every class can be told
        dataset = getattr(torchgeo.datasets, public.torchgeo)(root, split=split, checksum=False, **public.options)
    except DependencyNotFoundError as error:
        package = str(error).split()[0]  # its message begins with it
        raise StoreError(
            f"torchgeo's {public.torchgeo} reads its files by {package}, which is not installed",
            f"install it: `pip install {package}`",
        ) from error
    except OSError as error:
        raise _missing(name, root, split, str(error)) from error
    except IndexError as error:  # as OSCD's class ends where files of bands are missing
        raise _missing(name, root, split, "files of some bands are missing") from error
    if not len(dataset):
        raise _missing(name, root, split, "there are no labels in it")
    return dataset


def _missing(name: str, root: Path, split: str, why: str) -> StoreError:
    return StoreError(
        f"{root} does not hold the {split} split of {name} as torchgeo's {SETS[name].torchgeo} reads it: {why}",
        "download and unpack it there, or name its folder in --root",
    )


def some(count: int, limit: int | None) -> NDArray[np.int64]:
    """Positions of all, or of ``limit`` drawn at random, the same every time; in order."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, limit, replace=False))


def columns(ours: Sensor, theirs: Sensor, mapping: Mapping[str, str]) -> list[int]:
    """Which of a set's bands each of an encoder's is: the one that ``mapping`` names, or that of its name.

    Raises
    ------
    RadiometryError
        A band has no counterpart, or the units differ.
    """
    if ours.radiometry.unit != theirs.radiometry.unit or ours.radiometry.unit == "none":
        raise RadiometryError(
            f"the encoder (sensor {ours.name}) sees numbers of unit {ours.radiometry.unit}, "
            f"and the images (sensor {theirs.name}) are in {theirs.radiometry.unit}",
            "evaluate an encoder that was trained on reflectance",
        )
    chosen = {ours.band(name).name: theirs.band(other).name for name, other in mapping.items()}
    known = {band.name: band for band in theirs.bands}
    missing = []
    for band in ours.bands:
        same = known.get(band.name)
        if band.name not in chosen:
            if same is None or band.wavelength is None or abs(band.wavelength - (same.wavelength or 0)) > _NEAR:
                missing.append(band.name)
            else:
                chosen[band.name] = same.name
    if missing:
        raise RadiometryError(
            f"the images have no band like {', '.join(missing)} of the encoder (sensor {ours.name}); "
            f"theirs are {', '.join(theirs.band_names)}",
            f"say which of them each is, as in --band {missing[0]}={theirs.band_names[0]}",
        )
    return [theirs.band_names.index(chosen[band.name]) for band in ours.bands]


def restored(image: Tensor, ours: Sensor, theirs: Sensor) -> Tensor:
    """Numbers as a set stores them → as the encoder's own imagery stores them; any shape."""
    mine, other = ours.radiometry, theirs.radiometry
    return (image * other.scale + (other.offset - mine.offset)) / mine.scale
