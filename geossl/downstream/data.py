"""The labelled ground of one task: which image belongs to it, which pixels may teach, which may judge.

Everything is read tile by tile. What is kept is a bounded number of windows or a table of pixels,
so memory does not grow with the area.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geossl.chips.split import TRAIN, VAL, Split
from geossl.cube.collection import Collection, Labels
from geossl.downstream.images import DatedImages, Forest
from geossl.errors import LabelError
from geossl.legend import NO_LABEL, Legend

CORE = 128
"""Side in pixels of the part of a window whose predictions are used."""

CONTEXT = 32
"""Pixels around the core that a window shows but does not judge."""

SUBSETS = {TRAIN: "training", VAL: "validation"}

Describe = Callable[[NDArray[Any], NDArray[np.bool_]], NDArray[np.float32]]
"""From stored images (D, C, H, W) of D dates and valid (D, H, W) to features (F, H, W)."""


@dataclass(frozen=True)
class Ground:
    """What is known about the pixels of one tile; every array is (H, W)."""

    tile_id: str
    label: NDArray[np.uint8]
    """Class position, NO_LABEL where unlabelled, not seen at every date, or not asked for."""
    subset: NDArray[np.uint8]
    block: NDArray[np.int32]


@dataclass(frozen=True)
class Pixels:
    """N labelled pixels; every array is (N,)."""

    tile: NDArray[np.int32]
    """Position in :attr:`TaskData.tile_ids`."""
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    label: NDArray[np.uint8]
    block: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.tile)

    @classmethod
    def join(cls, tables: Sequence[Pixels]) -> Pixels:
        """Several tables, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(table, name) for table in tables]) for name in names))


@dataclass(frozen=True)
class Chips:
    """N labelled windows in memory."""

    image: NDArray[Any]
    """(N, D, C, S, S) stored numbers of D dates."""
    valid: NDArray[np.bool_]
    """(N, D, S, S)"""
    label: NDArray[np.uint8]
    """(N, S, S) class position, NO_LABEL where it must not teach."""

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Window:
    """One core window with its context."""

    row: int
    col: int
    """First pixel of the core in the tile."""
    image: NDArray[Any]
    """(D, C, S, S) stored numbers, S = core + 2 · context; 0 outside the tile."""
    valid: NDArray[np.bool_]
    """(D, S, S)"""


class LabelledTiles(ABC):
    """Ground with labels, tile by tile: what pixels are drawn from, and what is scored."""

    tile_ids: list[str]

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the labels, for people."""

    @property
    @abstractmethod
    def legend(self) -> Legend: ...

    @abstractmethod
    def ground(self, tile_id: str) -> Ground | None:
        """Labels and subsets of a tile; None where its images are missing."""

    @abstractmethod
    def images(self, tile_id: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(D, C, H, W) stored numbers and (D, H, W) validity of a tile of which there is ground."""

    @abstractmethod
    def origin(self, tile_id: str) -> tuple[int, int]:
        """Row and column of a tile's first pixel on the lattice that all tiles share."""

    def grounds(self) -> Iterator[tuple[int, Ground]]:
        """Every tile with images: its position in :attr:`tile_ids`, and what is known about it."""
        for position, tile_id in enumerate(self.tile_ids):
            if (ground := self.ground(tile_id)) is not None:
                yield position, ground

    def counts(self, subset: int) -> NDArray[np.int64]:
        """(K,) labelled pixels of every class in a subset."""
        counts = np.zeros(len(self.legend), np.int64)
        for _, ground in self.grounds():
            counts += class_counts(ground.label[ground.subset == subset], len(counts))
        return counts

    def sample(self, n: int, *, seed: int, subset: int = TRAIN) -> Pixels:
        """Up to ``n`` labelled pixels of a subset, as balanced over the classes as there are pixels."""
        counts = self.counts(subset)
        rng = np.random.default_rng(seed)
        # which of each class's pixels, numbered in reading order
        chosen = [np.sort(rng.choice(c, q, replace=False)) for c, q in zip(counts, quotas(counts, n), strict=True)]
        seen = np.zeros_like(counts)
        parts: list[tuple[NDArray[Any], ...]] = []
        for position, ground in self.grounds():
            label = np.where(ground.subset == subset, ground.label, NO_LABEL).ravel()
            found = class_counts(label, len(counts))
            for k, (first, numbers) in enumerate(zip(seen, chosen, strict=True)):
                inside = numbers[np.searchsorted(numbers, first) : np.searchsorted(numbers, first + found[k])]
                if inside.size:
                    at = np.flatnonzero(label == k)[inside - first]
                    row, col = np.divmod(at, ground.label.shape[1])
                    parts.append((np.full(at.size, position), row, col, label[at], ground.block.ravel()[at]))
            seen += found
        dtypes: tuple[Any, ...] = (np.int32, np.int32, np.int32, np.uint8, np.int32)
        columns = zip(*parts, strict=True) if parts else [[np.zeros(0)]] * len(dtypes)
        return Pixels(*(np.concatenate(column).astype(d) for column, d in zip(columns, dtypes, strict=True)))

    def gather(self, pixels: Pixels, describe: Describe) -> NDArray[np.float32]:
        """The features (N, F) of pixels, each seen with its context."""
        out: NDArray[np.float32] | None = None
        for position in np.unique(pixels.tile):
            rows = np.flatnonzero(pixels.tile == position)
            image, valid = self.images(self.tile_ids[position])
            wanted = np.zeros(valid.shape[1:], bool)
            wanted[pixels.row[rows], pixels.col[rows]] = True
            for window in windows(image, valid, wanted):
                row, col = pixels.row[rows] - window.row, pixels.col[rows] - window.col
                inside = (row >= 0) & (row < CORE) & (col >= 0) & (col < CORE)
                features = describe(window.image, window.valid)
                if out is None:
                    out = np.empty((len(pixels), len(features)), np.float32)
                out[rows[inside]] = features[:, row[inside] + CONTEXT, col[inside] + CONTEXT].T
        if out is None:
            raise LabelError(f"no labelled pixel of {self.name!r} was drawn", "label more ground")
        return out


class TaskData(DatedImages, LabelledTiles):
    """A collection's images and a label layer on one split.

    Parameters
    ----------
    dates:
        The wanted date of each image, see :class:`DatedImages`. By default one image for land cover, and the
        labels' own two dates for change.
    forest:
        Labels elsewhere neither teach nor judge.
    """

    def __init__(
        self,
        collection: Collection,
        labels: Labels,
        split: Split,
        dates: Sequence[dt.date | str | None] | None = None,
        forest: Forest | None = None,
    ) -> None:
        if labels.grid != collection.grid.plain:
            raise LabelError(
                f"labels {labels.name!r} lie on another grid than collection {collection.name!r}", "add them again"
            )
        if dates is None:
            dates = (labels.before, labels.after) if labels.task == "change" else (None,)
        super().__init__(collection, dates, forest)
        self.labels = labels
        self.split = split
        with_labels = set(labels.tile_ids)
        self.tile_ids = [tile_id for tile_id in self.tile_ids if tile_id in with_labels]

    @property
    def name(self) -> str:
        return self.labels.name

    @property
    def legend(self) -> Legend:
        return self.labels.legend

    def origin(self, tile_id: str) -> tuple[int, int]:
        return self.collection.tile(tile_id).pixel_origin

    def ground(self, tile_id: str) -> Ground | None:
        """Labels and subsets of a tile; None where its images are missing."""
        if self.steps(tile_id) is None:
            return None
        tile = self.collection.tile(tile_id)
        label = self.legend.to_index(self.labels.read(tile_id))
        label[~self.asked(tile_id)] = NO_LABEL
        return Ground(tile_id, label, self.split.subset_mask(tile), self.split.block_id(tile))

    def require_labels(self, subset: int) -> NDArray[np.int64]:
        """The counts of a subset, or a :class:`LabelError` where they cannot teach or judge."""
        counts, where = self.counts(subset), SUBSETS[subset]
        if not counts.any():
            raise LabelError(
                f"no clear pixel in the {where} blocks is labelled in {self.labels.name!r}",
                "label more ground, choose another date, or use smaller blocks under `split`",
            )
        if (counts > 0).sum() < 2:
            only = self.legend.names[int(counts.argmax())]
            raise LabelError(
                f"all labelled pixels in the {where} blocks of {self.labels.name!r} are {only!r}",
                "label at least two classes there, or use smaller blocks under `split`",
            )
        return counts

    def chips(self, subset: int, size: int, *, limit: int, seed: int, only: Pixels | None = None) -> Chips:
        """Up to ``limit`` windows with labels of a subset; windows with rare classes are drawn first.

        Parameters
        ----------
        only:
            Hide all labels but these.
        """
        k = len(self.legend)
        found: list[tuple[int, int, int, NDArray[np.bool_]]] = []
        for position, ground in self.grounds():
            label = self._teaching(position, ground, subset, only)
            for row, col in np.ndindex(label.shape[0] // size, label.shape[1] // size):
                has = class_counts(label[row * size : (row + 1) * size, col * size : (col + 1) * size], k) > 0
                if has.any():
                    found.append((position, row * size, col * size, has))
        if not found:
            raise LabelError(f"no labelled pixel of {self.labels.name!r} lies in the {SUBSETS[subset]} blocks")
        has = np.stack([window[3] for window in found])
        weight = (has / np.maximum(has.sum(axis=0), 1)).sum(axis=1)
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(found), min(limit, len(found)), replace=False, p=weight / weight.sum()))
        parts: list[tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]] = []
        for position in sorted({found[i][0] for i in chosen}):
            tile_id = self.tile_ids[position]
            again = self.ground(tile_id)
            assert again is not None
            label = self._teaching(position, again, subset, only)
            image, valid = self.images(tile_id)
            for i in chosen:
                at, row, col, _ = found[i]
                if at == position:
                    y, x = slice(row, row + size), slice(col, col + size)
                    parts.append((image[..., y, x].copy(), valid[..., y, x].copy(), label[y, x].copy()))
        image, valid, label = (np.stack(column) for column in zip(*parts, strict=True))
        return Chips(image, valid, label)

    def _teaching(self, position: int, ground: Ground, subset: int, only: Pixels | None) -> NDArray[np.uint8]:
        """The labels that may be seen."""
        label = np.where(ground.subset == subset, ground.label, np.uint8(NO_LABEL))
        if only is not None:
            shown = np.zeros(label.shape, bool)
            here = only.tile == position
            shown[only.row[here], only.col[here]] = True
            label[~shown] = NO_LABEL
        return label


def windows(image: NDArray[Any], valid: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> Iterator[Window]:
    """The core windows of a tile that hold a wanted pixel, with context; outside the tile nothing is valid.

    Parameters
    ----------
    image, valid:
        (D, C, H, W) and (D, H, W) of the whole tile.
    wanted:
        (H, W).
    """
    height, width = wanted.shape
    # enough for the last core window as well, where a tile is no multiple of it
    ends = [CONTEXT + -length % CORE for length in (height, width)]
    around = [(CONTEXT, end) for end in ends]
    image = np.pad(image, ((0, 0), (0, 0), *around))
    valid = np.pad(valid, ((0, 0), *around))
    side = CORE + 2 * CONTEXT
    for row in range(0, height, CORE):
        for col in range(0, width, CORE):
            if wanted[row : row + CORE, col : col + CORE].any():
                y, x = slice(row, row + side), slice(col, col + side)
                yield Window(row, col, image[..., y, x], valid[..., y, x])


def quotas(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Share ``n`` out over classes as evenly as their counts allow: (K,), adding up to min(n, all)."""
    out = np.zeros_like(counts)
    left = min(int(n), int(counts.sum()))
    # the scarcest first: what it cannot use goes to the others
    for done, k in enumerate(np.argsort(counts, kind="stable")):
        out[k] = min(int(counts[k]), left // (len(counts) - done))
        left -= int(out[k])
    return out


def class_counts(label: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(K,) pixels of every class; those without a label count for none."""
    return np.bincount(label.ravel(), minlength=NO_LABEL + 1)[:classes]
