"""A tiny resumable loader and a run over it, also as a script that can be killed."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from geossl.bands import Band, Radiometry, Sensor, Statistics
from geossl.nets.card import Card
from geossl.progress import Progress, silent
from geossl.train.history import Log, Watch, ignored
from geossl.train.pretrain import pretrain
from geossl.train.settings import PretrainSettings

SENSOR = Sensor("three", tuple(Band(f"b{i}", 0.5 + i / 10, 10) for i in range(3)), Radiometry("int16", 1e-4))
STATISTICS = Statistics((9,) * 3, (1500.0,) * 3, (900.0,) * 3, *[(0.0,) * 3] * 4)


class Places:
    """Batches of smooth random places that depend on epoch and number alone."""

    def __init__(
        self, *, batches: int = 5, size: int = 8, pairs: bool = False, alike: bool = False, bands: int = 3
    ) -> None:
        self.batches, self.size, self.pairs, self.alike, self.bands = batches, size, pairs, alike, bands
        self.epoch = self.number = 0
        self.handed_out: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.number = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.number = state["epoch"], state["number"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self.number < self.batches:
            self.handed_out.append((self.epoch, self.number))
            batch = self._batch(torch.Generator().manual_seed(1000 * self.epoch + self.number))
            self.number += 1
            yield batch

    def _batch(self, generator: torch.Generator) -> dict[str, Any]:
        dates = (2,) if self.pairs else ()
        shape = (self.size, *dates, self.bands, 16, 16)
        place = (
            torch.zeros(1)
            if self.alike
            else torch.randn(self.size, *[1] * len(dates), self.bands, 1, 1, generator=generator)
        )
        image = 1500 + 600 * place + (0 if self.alike else 200) * torch.randn(shape, generator=generator)
        return {
            "image": image.to(torch.int16).expand(shape),
            "valid": torch.rand(self.size, *dates, 16, 16, generator=generator) > (0 if self.alike else 0.05),
        }


def settings(**changes: Any) -> PretrainSettings:
    plain = {
        "method": {"name": "simclr"},
        "encoder": {"name": "unet-tiny"},
        "epochs": 3,
        "batch_size": 8,
        "chip": 16,
        "precision": "32",
        "threads": 1,
    }
    return PretrainSettings.model_validate(plain | changes)


def run(
    folder: Path,
    loader: Places | None = None,
    progress: Progress = silent,
    watch: Mapping[str, Watch] | None = None,
    log: Log = ignored,
    **changes: Any,
) -> Card:
    return pretrain(
        settings(**changes),
        Places() if loader is None else loader,
        sensor=SENSOR,
        statistics=STATISTICS,
        snapshot="SNAPSHOT",
        folder=folder,
        watch=watch,
        log=log,
        progress=progress,
    )


def rows(folder: Path) -> list[dict[str, str]]:
    """The history without what the clock and the system say."""
    passing = {"chips_per_s", "waiting", "memory_mb"}
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k not in passing} for row in csv.DictReader(file)]


if __name__ == "__main__":
    mean = float(sys.argv[2]) if len(sys.argv) > 2 else None
    run(Path(sys.argv[1]), progress=lambda *progress: print(progress[1], flush=True), ema=mean)
