"""Does drift tell a year like the others from a changed one? ``python -m tests.benchmarks.drift --seeds 20``.

On generated landscapes, one a seed: two years of scenes are the history, the third is watched. As it is, nothing
should be said of it; the same scenes with something done to them should be noticed, and called what it is. Every
row is over all scenes of all seeds, with a 95 % interval by bootstrap over seeds (scenes of one landscape are
alike). The encoder is an untrained one: what is measured here is the watching, not the features.

``--kept FOLDER`` keeps what each landscape came to, a minute's work, so that a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from geossl.demo.sensor import SENSOR, Observation, observe
from geossl.demo.world import World, build_world
from geossl.drift.baseline import Baseline
from geossl.drift.describe import SIDE, Description, describe
from geossl.drift.faults import Watch
from geossl.files import read_json, write_json
from geossl.imagery.clouds import from_scl, is_clear
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.settings import EncoderSettings

SIZE = 512
LATITUDE = -8.9
EVERY = 16
"""Days between scenes."""

Image = NDArray[np.float32]
"""Reflectance (C, H, W)."""

Counts = dict[str, Counter[str]]
"""What was done to the scenes → verdict → number of scenes."""


def offset(image: Image, rng: np.random.Generator) -> Image:
    """A processing baseline's offset that was not undone, in part: .02 of reflectance in all bands."""
    return image + np.float32(0.02)


def gain(image: Image, rng: np.random.Generator) -> Image:
    """A calibration that is off by 8 %."""
    return image * np.float32(1.08)


def haze(image: Image, rng: np.random.Generator) -> Image:
    """Path radiance that falls with the wavelength's power of 2, .04 at .49 µm (Chavez 1988: hazy)."""
    wavelength = np.array([band.wavelength for band in SENSOR.bands], np.float32)
    path = 0.04 * (0.49 / wavelength) ** 2
    return image * (1 - path[:, None, None]) + path[:, None, None]


def stripes(image: Image, rng: np.random.Generator) -> Image:
    """Detectors of one band, the fourth, that differ by .01 of reflectance."""
    out = image.copy()
    out[3] += rng.normal(0, 0.01, image.shape[2]).astype(np.float32)
    return out


def misplaced(image: Image, rng: np.random.Generator) -> Image:
    """Two pixels to the right, one down."""
    return np.roll(image, (1, 2), (1, 2))


FAULTS: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    f.__name__: f for f in (offset, gain, haze, stripes, misplaced)
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--false-alarms", type=float, default=0.05)
    args = parser.parse_args()
    seeds = list(range(args.first, args.first + args.seeds))
    work = functools.partial(kept, false_alarms=args.false_alarms, folder=args.kept)
    with ProcessPoolExecutor(args.processes) as pool:
        found = []
        for number, counts in enumerate(pool.map(work, seeds), start=1):
            found.append(counts)
            print(f"{number} of {len(seeds)} landscapes", flush=True)
    table = Table("scenes of the third year", "scenes", "noticed", "95 %", "called", title=f"{len(seeds)} landscapes")
    for kind in found[0]:
        called = sum((counts[kind] for counts in found), Counter())
        total = sum(called.values())
        rate, low, high = _interval([counts[kind] for counts in found])
        names = ", ".join(f"{name} {n / total:.0%}" for name, n in called.most_common() if name != "usual")
        table.add_row(kind, str(total), f"{rate:.1%}", f"{low:.1%} … {high:.1%}", names or "–")
    Console(width=160).print(table)


def kept(seed: int, false_alarms: float, folder: Path | None) -> Counts:
    """What :func:`one_seed` finds, or found before."""
    path = folder and folder / f"{seed}-{false_alarms}.json"
    if path is not None and (known := read_json(path)) is not None:
        return {kind: Counter(counts) for kind, counts in known.items()}
    counts = one_seed(seed, false_alarms)
    if path is not None:
        write_json(path, counts)
    return counts


def one_seed(seed: int, false_alarms: float) -> Counts:
    """Watch one landscape's third year as it is, and with every fault, and with another biome in its place."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), len(SENSOR.bands)).eval()
    world, other = build_world(SIZE, seed), build_world(SIZE, seed + 1000)
    first = dt.date(2021, 1, 4)
    days = [first + dt.timedelta(days=EVERY * n) for n in range(3 * 365 // EVERY)]
    past, watched = [d for d in days if d.year < 2023], [d for d in days if d.year == 2023]
    seen = {day: read(world, day) for day in days}
    everything = np.concatenate([image[:, clear] for image, clear in (seen[day] for day in past)], axis=1)
    scale = everything.mean(axis=1), everything.std(axis=1)

    def number(day: dt.date, image: Image, clear: NDArray[np.bool_]) -> Description:
        return described(day, image, clear, scale, encoder)

    baseline = Baseline([number(day, *seen[day]) for day in past], false_alarms=false_alarms)
    watch = Watch(baseline, [band.wavelength for band in SENSOR.bands], *scale)
    counts: Counts = defaultdict(Counter)
    rng = np.random.default_rng(seed)
    for day in watched:
        image, clear = seen[day]
        kinds = {"as they are": image} | {name: fault(image, rng) for name, fault in FAULTS.items()}
        elsewhere, clear_there = read(other, day)
        for kind, (changed, where) in (
            {k: (v, clear) for k, v in kinds.items()} | {"another biome": (elsewhere, clear_there)}
        ).items():
            finding = watch.look(number(day, changed, where))
            if finding is not None:
                counts[kind][finding.fault or ("the land" if finding.unusual else "usual")] += 1
    return dict(counts)


def read(world: World, day: dt.date) -> tuple[Image, NDArray[np.bool_]]:
    """Reflectance of all bands at 10 m, and where the ground was seen."""
    return _reflectance(observation := observe(world, day, LATITUDE)), is_clear(from_scl(_ten_metres(observation.scl)))


def _reflectance(observation: Observation) -> Image:
    planes = [_ten_metres(observation.bands[band.name]) for band in SENSOR.bands]
    return (np.stack(planes).astype(np.float32) - observation.offset) / 10_000


def _ten_metres(plane: NDArray[np.generic]) -> NDArray[np.generic]:
    factor = SIZE // len(plane)
    return plane.repeat(factor, 0).repeat(factor, 1)


def described(
    day: dt.date, image: Image, clear: NDArray[np.bool_], scale: tuple[Image, Image], encoder: Encoder
) -> Description:
    """All windows of a scene as places."""
    mean, spread = scale
    n = SIZE // SIDE
    normal = ((image - mean[:, None, None]) / spread[:, None, None] * clear).astype(np.float32)
    windows = normal.reshape(len(normal), n, SIDE, n, SIDE).transpose(1, 3, 0, 2, 4).reshape(n * n, -1, SIDE, SIDE)
    valid = clear.reshape(n, SIDE, n, SIDE).transpose(0, 2, 1, 3).reshape(n * n, SIDE, SIDE)
    with torch.inference_mode():
        embedding = encoder(torch.from_numpy(np.ascontiguousarray(windows))).pooled.numpy()
    return describe(str(day), np.datetime64(day, "ns"), np.arange(n * n), windows, valid, embedding)


def _interval(by_seed: list[Counter[str]]) -> tuple[float, float, float]:
    """The share that was noticed, with a 95 % interval by bootstrap over seeds."""
    noticed = np.array([sum(n for name, n in c.items() if name != "usual") for c in by_seed])
    total = np.array([sum(c.values()) for c in by_seed])
    draws = np.random.default_rng(0).integers(0, len(by_seed), (2000, len(by_seed)))
    rates = noticed[draws].sum(axis=1) / np.maximum(total[draws].sum(axis=1), 1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(noticed.sum() / total.sum()), float(low), float(high)


if __name__ == "__main__":
    main()
