"""Overlapping windows, blended so that no edge shows.

Windows lie on the grid's *global* pixel lattice, not on the tile: a window across a tile border
is the same window for both tiles, hence a pixel's prediction does not depend on the tile it
belongs to, and tile borders leave no trace either.

Along each axis a window is ``margin | trusted | margin``. Trusted spans overlap by ``overlap``
pixels, where one window fades out as cos² and the next fades in as sin²: first between the windows of a row, then
between rows. A window is predicted only where its *cell*, the pixels from its first trusted one to the next window's,
holds data; where data ends and the next window is not predicted, it does not fade.
"""

from __future__ import annotations

import itertools
import mmap
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from geossl.errors import GeosslError, SettingsError
from geossl.maps.canvas import Canvas
from geossl.maps.protocols import MapTask
from geossl.maps.settings import MapSettings

STRIDE = 32
"""Windows are this many pixels apart, or a multiple, unless told otherwise: what common networks pool by."""

BATCH_PIXELS = 8 * 256 * 256
"""Windows predicted at once have about so many pixels unless told otherwise."""

KEEP_BYTES = 256 << 20
"""Bound on the predictions kept for neighbouring tiles; beyond it they are computed again."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Where windows lie along one axis; window ``k`` begins at every ``k * stride - margin``."""

    window: int
    margin: int
    overlap: int

    def __post_init__(self) -> None:
        if self.margin < 0 or self.trusted < 1:
            raise SettingsError(f"a window of {self.window} px has nothing left inside margins of {self.margin} px")
        if not 0 <= self.overlap <= self.trusted // 2:
            raise SettingsError(
                f"windows of {self.window} px with margins of {self.margin} px cannot overlap by {self.overlap} px",
                f"choose an overlap of at most {self.trusted // 2} px, or a larger window",
            )

    @classmethod
    def of(cls, task: MapTask, settings: MapSettings) -> Self:
        """The lattice that settings ask for, with the model's own window where they leave it open."""
        window = settings.window or task.window
        margin = task.margin if settings.margin is None else settings.margin
        trusted = window - 2 * margin
        overlap = settings.overlap
        if overlap is None:
            # networks that pool see the same ground alike only from offsets that their strides divide
            stride = (trusted - trusted // 10) // STRIDE * STRIDE
            overlap = trusted - stride if 2 * stride >= trusted else min(window // 8, trusted // 2)
        return cls(window, margin, overlap)

    @property
    def trusted(self) -> int:
        """Pixels of a window that count."""
        return self.window - 2 * self.margin

    @property
    def stride(self) -> int:
        return self.trusted - self.overlap

    def span(self, k: int) -> range:
        """The trusted pixels of window ``k``."""
        return range(k * self.stride, k * self.stride + self.trusted)

    def cells(self, pixels: range) -> range:
        """The windows whose cell meets a span of pixels."""
        return range(pixels.start // self.stride, (pixels.stop - 1) // self.stride + 1)

    def frame(self, k: int) -> range:
        """All pixels of window ``k``."""
        return range(k * self.stride - self.margin, k * self.stride - self.margin + self.window)

    def over(self, pixels: range) -> range:
        """The windows whose trusted span meets a span of pixels."""
        return range((pixels.start - self.trusted) // self.stride + 1, (pixels.stop - 1) // self.stride + 1)

    def reach(self, pixels: range) -> range:
        """All pixels that the prediction of a span depends on."""
        windows = self.over(pixels)
        return range(self.frame(windows[0]).start, self.frame(windows[-1]).stop)

    def touched(self, pixels: range) -> range:
        """All pixels whose prediction depends on one of a span."""
        first = (pixels.start + self.margin - self.window) // self.stride + 1
        last = (pixels.stop - 1 + self.margin) // self.stride
        return range(self.span(first).start, self.span(last).stop)

    def rise(self) -> NDArray[np.float32]:
        """(overlap,) weights of a window in the pixels that it shares with the one before it, which has the rest."""
        return (np.sin(np.pi / 2 * (np.arange(self.overlap) + 0.5) / max(1, self.overlap)) ** 2).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Strip:
    """The pixels of one row of windows."""

    image: NDArray[Any]
    """(dates, C, window, W) stored numbers."""
    valid: NDArray[np.bool_]
    """(dates, window, W)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Finished rows of a blended prediction."""

    rows: range
    """Global rows."""
    probabilities: NDArray[np.float32]
    """(K, H, W); meaningless where not valid."""
    valid: NDArray[np.bool_]
    """(H, W) where every date is."""


class Blender:
    """Predicts rectangles of a canvas, a strip of windows at a time.

    Memory is that of one strip (one window high, one rectangle wide) and of at most
    :data:`KEEP_BYTES` of predictions that reach into rectangles still to come.
    """

    def __init__(
        self, task: MapTask, canvas: Canvas, lattice: Lattice, batch: int | None = None, *, flips: bool = False
    ) -> None:
        self.task = task
        self.canvas = canvas
        self.lattice = lattice
        self.batch = batch or max(1, BATCH_PIXELS // lattice.window**2)
        self.flips = flips
        """Whether a prediction is the mean over the window's eight flips and quarter turns."""
        self.windows = 0
        """How many windows were predicted so far."""
        self._rise = lattice.rise()
        self._kept: OrderedDict[tuple[int, int], NDArray[np.float32]] = OrderedDict()
        self._bytes = 0

    def strips(self, rows: range, cols: range) -> Iterator[Strip]:
        """What :meth:`blend` needs for a rectangle, from the top; reading alone, so that another thread may do it."""
        reach = self.lattice.reach(cols)
        for ky in self.lattice.over(rows):
            yield Strip(*self.canvas.read(self.lattice.frame(ky), reach))

    def blend(self, rows: range, cols: range, strips: Iterator[Strip] | None = None) -> Iterator[Rows]:
        """The prediction of a rectangle in global rows and columns, from the top.

        Parameters
        ----------
        strips:
            Those of the rectangle, and perhaps of others that come after it; None: read when needed.
        """
        lattice = self.lattice
        strips = self.strips(rows, cols) if strips is None else strips
        left = cols.start - lattice.reach(cols).start
        # the last rows of the strip above, and in which columns it has windows
        above = np.zeros((len(self.task.legend), lattice.overlap, len(cols)), np.float32)
        had = np.zeros(len(cols), bool)
        for ky in lattice.over(rows):
            pixels = next(strips)
            strip, has = self._across(ky, rows, cols, pixels)
            weights = np.where(has, np.where(had, self._rise[:, None], 1), 0).astype(np.float32)
            first = torch.from_numpy(strip[:, : lattice.overlap])
            torch.lerp(torch.from_numpy(above), first, torch.from_numpy(weights), out=first)
            top = lattice.span(ky).start
            done = range(max(top, rows.start), min(top + lattice.stride, rows.stop))
            if done:
                frame = done.start - lattice.frame(ky).start
                yield Rows(
                    done,
                    strip[:, done.start - top : done.stop - top],
                    pixels.valid[:, frame : frame + len(done), left : left + len(cols)].all(axis=0),
                )
            above, had = strip[:, lattice.stride :], has

    def _across(
        self, ky: int, rows: range, cols: range, pixels: Strip
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The windows of row ``ky`` as one prediction (K, trusted, W), and in which columns (W,) there are any."""
        lattice = self.lattice
        strip = np.zeros((len(self.task.legend), lattice.trusted, len(cols)), np.float32)
        has = np.zeros(len(cols), bool)
        # from the left, whichever were kept, so that the same windows always give the same bits
        for kx, window in sorted(self._strip(ky, rows, cols, pixels), key=itemgetter(0)):
            span = lattice.span(kx)
            shared = range(max(span.start, cols.start), min(span.stop, cols.stop))
            first = shared.start - span.start
            new = window[:, :, first : first + len(shared)]
            here = slice(shared.start - cols.start, shared.stop - cols.start)
            old = strip[:, lattice.trusted - window.shape[1] :, here]
            both = np.count_nonzero(has[here])  # columns of the window before it, which come first
            old[..., both:] = new[..., both:]
            fading, rise = torch.from_numpy(old[..., :both]), torch.from_numpy(self._rise[first : first + both])
            fading.lerp_(torch.from_numpy(new[..., :both]), rise)
            has[here] = True
        return strip, has

    def _strip(self, ky: int, rows: range, cols: range, pixels: Strip) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Trusted predictions (K, h, trusted) of the windows of row ``ky`` whose cell has valid pixels.

        Those that were kept have the last ``h`` rows alone, of which the rectangle needs no more.
        """
        lattice = self.lattice
        cell = slice(lattice.margin, lattice.margin + lattice.stride)
        image, valid = pixels.image, pixels.valid
        start = lattice.reach(cols).start
        todo: list[tuple[int, slice]] = []
        first_row = max(rows.start, lattice.span(ky).start)
        for kx in lattice.over(cols):
            frame = slice(lattice.frame(kx).start - start, lattice.frame(kx).stop - start)
            kept = self._pop((ky, kx))
            if kept is not None and lattice.span(ky).stop - kept.shape[1] <= first_row:
                self._keep((ky, kx), kept, rows, cols, apart=True)
                yield kx, kept
            elif valid[:, cell, frame][..., cell].all(axis=0).any():
                todo.append((kx, frame))
        for first in range(0, len(todo), self.batch):
            part = todo[first : first + self.batch]
            images = np.stack([image[..., frame] for _, frame in part])
            found = self.predict(images, np.stack([valid[..., frame] for _, frame in part]))
            self.windows += len(part)
            for (kx, _), probabilities in zip(part, found, strict=True):
                self._keep((ky, kx), probabilities, rows, cols)
                yield kx, probabilities

    def predict(
        self, images: NDArray[Any], valid: NDArray[np.bool_], *, margin: int | None = None
    ) -> NDArray[np.float32]:
        """A model's prediction but for a margin around it; by default, the trusted part.

        Parameters
        ----------
        images:
            (B, dates, C, H, W) stored numbers.
        valid:
            (B, dates, H, W).
        """
        height, width = valid.shape[-2:]
        if self.task.dates == 1:
            images, valid = images[:, 0], valid[:, 0]
        if self.flips:
            probabilities = np.zeros((len(images), len(self.task.legend), height, width), np.float32)
            for turns, mirrored in itertools.product(range(4), (False, True)):
                found = self._ask(_turned(images, turns, mirrored), _turned(valid, turns, mirrored))
                probabilities += _turned_back(found, turns, mirrored)
            probabilities /= 8
        else:
            probabilities = self._ask(images, valid)
        margin = self.lattice.margin if margin is None else margin
        return probabilities[:, :, margin : height - margin, margin : width - margin]

    def _ask(self, images: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What the model says (B, K, H, W), or an error where that makes no sense."""
        probabilities = self.task.predict(images, valid)
        expected = (len(images), len(self.task.legend), *valid.shape[-2:])
        if probabilities.shape != expected:
            raise GeosslError(f"the model {self.task.id} returned {probabilities.shape}, not {expected}")
        if not np.isfinite(probabilities.sum()):  # which no one of them that is not finite leaves finite
            raise GeosslError(
                f"the model {self.task.id} returned numbers that are not finite", "train it again; its weights are bad"
            )
        return probabilities

    def _keep(
        self,
        key: tuple[int, int],
        probabilities: NDArray[np.float32],
        rows: range,
        cols: range,
        *,
        apart: bool = False,
    ) -> None:
        """Keep what rectangles after this one need of a window: they come row by row of tiles, from the left.

        ``apart``: the prediction was kept before.
        """
        down, right = (self.lattice.span(k) for k in key)
        tiles = [(*tile.pixel_origin, tile.shape[0]) for tile in self.canvas.tiles(down, right)]
        if any(left >= cols.stop and top + height > rows.start for top, left, height in tiles):
            needed = probabilities
        elif any(top >= rows.stop for top, *_ in tiles):
            needed = probabilities[:, rows.stop - down.stop :]
        else:
            return
        self._kept[key] = needed if apart and needed is probabilities else _apart(needed)
        self._bytes += needed.nbytes
        while self._bytes > KEEP_BYTES:
            self._pop(next(iter(self._kept)))

    def _pop(self, key: tuple[int, int]) -> NDArray[np.float32] | None:
        """The last rows of a window's trusted prediction that were kept, if any were."""
        if (kept := self._kept.pop(key, None)) is not None:
            self._bytes -= kept.nbytes
        return kept


def _apart[T: np.generic](array: NDArray[T]) -> NDArray[T]:
    """A copy in pages of its own, which go with it; among what comes and goes quickly it would leave holes."""
    pages = mmap.mmap(-1, array.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    copy = np.frombuffer(pages, array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _turned[T: np.generic](pixels: NDArray[T], turns: int, mirrored: bool) -> NDArray[T]:
    """Pixels (…, H, W) turned by quarters, then mirrored."""
    turned = np.rot90(pixels, turns, (-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if mirrored else turned)


def _turned_back[T: np.generic](pixels: NDArray[T], turns: int, mirrored: bool) -> NDArray[T]:
    """The inverse of :func:`_turned`."""
    return np.rot90(pixels[..., ::-1] if mirrored else pixels, -turns, (-2, -1))
