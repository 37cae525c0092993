"""What keeping a frozen encoder's maps saves while a head is trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from geossl.augment import Normalize
from geossl.downstream import landcover
from geossl.downstream.data import Chips
from geossl.downstream.finetune import finetune
from geossl.downstream.kept import KeptMaps
from geossl.downstream.networks import LandcoverNetwork
from geossl.downstream.settings import FinetuneSettings
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings

from .harness import Sides, bench

BANDS, CLASSES = 6, 4


@bench("frozen-kept-vs-again", unit="CPU s", reference="the encoder run at every step", better="lower", rounds=2)
def frozen_kept_vs_again(folder: Path) -> Iterator[Sides]:
    """40 steps of 16 windows of 64 px with an FPN on a frozen unet-small, from 80 windows: CPU time of the process.

    A window is seen eight times, as with the default of 300 steps and 512 windows.
    """
    rng = np.random.default_rng(0)

    def chips(n: int) -> Chips:
        label = np.kron(rng.integers(0, CLASSES, (n, 8, 8)), np.ones((8, 8), int)).astype(np.uint8)
        image = rng.normal(500, 100, (n, 1, BANDS, 64, 64)) + 50 * label[:, None, None]
        return Chips(image.astype(np.int16), np.ones((n, 1, 64, 64), bool), label)

    train, judges = chips(80), chips(10)
    normalize = Normalize([550.0] * BANDS, [130.0] * BANDS)
    settings = FinetuneSettings(steps=40, encoder="frozen", patience=100)

    def run(keep: bool) -> float:
        torch.manual_seed(0)
        network = LandcoverNetwork(build_encoder(EncoderSettings(name="unet-small"), BANDS), CLASSES)
        with mock.patch.object(KeptMaps, "fits", return_value=keep):
            start = time.process_time()
            finetune(network, network.encoder, normalize, train, judges, landcover.score, settings, seed=0)
            return time.process_time() - start

    yield Sides(ours=lambda: run(True), reference=lambda: run(False))
