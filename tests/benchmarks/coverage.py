"""How often do the 95 % intervals hold the truth? Simulated samples of the demo world, where the truth is known.

    python -m tests.benchmarks.coverage

The map is the world's own truth, disturbed: moved by a pixel, and in smooth patches mistaken for what lies elsewhere.
Every sample is drawn and estimated by what `geossl sample` and `geossl area` use, with their default design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from geossl.areas.design import allocate, sample_size
from geossl.areas.estimators import Estimates, StratifiedSample, estimate
from geossl.areas.strata import choose
from geossl.demo.cover import LANDCOVER
from geossl.demo.world import World, build_world
from geossl.project.stages.sample import Design

SAMPLES = 1000

DESIGN = Design()

BEFORE, AFTER = date(2021, 10, 1), date(2023, 10, 1)

FIGURES = ("area", "users", "producers", "overall")


@dataclass(frozen=True)
class Coverage:
    """Of one figure of one class, over all samples."""

    map: str
    figure: str
    of: str
    truth: float
    """Share of the ground, or accuracy."""
    mean: float
    """Of the estimates."""
    inside: float
    """Share of the samples whose interval holds the truth."""
    points: int


def simulate(
    title: str,
    truth: NDArray[np.uint8],
    mapped: NDArray[np.uint8],
    stratum: NDArray[np.uint8],
    names: Sequence[str],
    users: Sequence[float],
    *,
    samples: int = SAMPLES,
) -> list[Coverage]:
    """Draw many samples of one map.

    Parameters
    ----------
    truth, mapped:
        (N,) class positions.
    stratum:
        (N,) positions of strata.
    users:
        (H,) anticipated accuracies, for the design.
    """
    k, units = len(names), np.bincount(stratum)
    pixels = [np.flatnonzero(stratum == h) for h in range(len(units))]
    wanted = max(sample_size(units, users, DESIGN.error, units=units), DESIGN.minimum * len(units))
    points = allocate(units, units, users, wanted, minimum=DESIGN.minimum)
    found: list[Estimates] = []
    for seed in range(samples):
        at = np.concatenate([of[n] for of, n in zip(pixels, choose(units, points, seed), strict=True)])
        found.append(estimate(StratifiedSample(stratum[at], units, units=units), mapped[at], truth[at], k))
    right = _truth(truth, mapped, k)
    rows = []
    for name in FIGURES:
        figures = [getattr(estimates, name) for estimates in found]
        value = np.array([np.atleast_1d(f.value) for f in figures])
        low, high = (np.array([np.atleast_1d(f.interval()[end]) for f in figures]) for end in (0, 1))
        scale = len(truth) if name == "area" else 1
        inside = (low <= right[name] * scale) & (right[name] * scale <= high)
        for i in range(value.shape[1]):
            of = names[i] if name != "overall" else "all"
            known = np.isfinite(value[:, i])
            rows.append(
                Coverage(
                    title, name, of, float(right[name][i]), float(value[known, i].mean() / scale),
                    float(inside[known, i].mean()), int(points.sum()),
                )
            )  # fmt: skip
    return rows


def _truth(truth: NDArray[np.uint8], mapped: NDArray[np.uint8], k: int) -> dict[str, NDArray[np.float64]]:
    matrix = np.zeros((k, k))
    np.add.at(matrix, (mapped, truth), 1 / len(truth))
    hit = np.diagonal(matrix)
    return {
        "area": matrix.sum(axis=0),
        "users": hit / matrix.sum(axis=1),
        "producers": hit / matrix.sum(axis=0),
        "overall": np.array([hit.sum()]),
    }


def clearing(world: World, samples: int = SAMPLES) -> list[Coverage]:
    """Two-date change, with a buffer of two pixels around what is mapped as cleared."""
    truth = ((world.felled > BEFORE.toordinal()) & (world.felled <= AFTER.toordinal())).astype(np.uint8)
    mapped = disturb(truth, seed=1)
    near = (ndimage.distance_transform_edt(mapped == 0) <= 2) & (mapped == 0)
    stratum = np.where(near, 2, mapped).astype(np.uint8)
    users = [0.9, 0.7, 0.7]
    return simulate(
        "clearing", truth.ravel(), mapped.ravel(), stratum.ravel(), ["no change", "clearing"], users, samples=samples
    )


def landcover(world: World, samples: int = SAMPLES) -> list[Coverage]:
    """Six classes of one date."""
    truth = LANDCOVER.to_index(world.land_cover(AFTER))
    mapped = disturb(truth, seed=2).ravel()
    return simulate("landcover", truth.ravel(), mapped, mapped, LANDCOVER.names, [0.9] * 6, samples=samples)


def disturb(codes: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """A map with errors as maps have them: at edges, and in patches."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=codes.shape), 3)
    moved = np.roll(codes, (1, 1), (0, 1))
    return np.where(field > 1.4 * field.std(), np.roll(codes, codes.shape[0] // 3, 0), moved).astype(np.uint8)


def main() -> None:
    world = build_world(1024, seed=0)
    rows = clearing(world) + landcover(world)
    table = Table(
        "map", "figure", "class", "truth", "mean of estimates", "interval holds it", title=f"{SAMPLES} samples"
    )
    for row in rows:
        table.add_row(row.map, row.figure, row.of, f"{row.truth:.4f}", f"{row.mean:.4f}", f"{row.inside:.1%}")
    Console().print(table)
    print(
        *(f"{name}: {points} points a sample" for name, points in dict.fromkeys((r.map, r.points) for r in rows)),
        sep="\n",
    )
    for what, figures in {"areas": ("area",), "accuracies": FIGURES[1:]}.items():
        inside = [row.inside for row in rows if row.figure in figures]
        print(f"{what}: intervals hold the truth in {min(inside):.1%} to {max(inside):.1%} of the samples")


if __name__ == "__main__":
    main()
