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
from geossl.nets.settings import EncoderName, EncoderSettings

from .harness import Sides, bench

BANDS, CLASSES = 6, 4


AGAIN = "the encoder run at every step"


@bench("frozen-kept-vs-again", unit="CPU s", reference=AGAIN, better="lower", rounds=2)
def frozen_kept_vs_again(folder: Path) -> Iterator[Sides]:
    """With a unet-small, whose maps are as large as the image: the head is most of the work."""
    yield beside_again("unet-small")


@bench("frozen-kept-vs-again-vit", unit="CPU s", reference=AGAIN, better="lower", rounds=2)
def frozen_kept_vs_again_vit(folder: Path) -> Iterator[Sides]:
    """With a ViT-S, where the encoder is."""
    yield beside_again("vit-small")


def beside_again(encoder: EncoderName) -> Sides:
    """40 steps of 16 windows of 64 px with an FPN on a frozen encoder, from 80 windows.

    A window is seen eight times, as with the default of 300 steps and 512 windows. Processor time of one thread: that
    of several counts how they wait for one another.
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
        network = LandcoverNetwork(build_encoder(EncoderSettings(name=encoder), BANDS), CLASSES)
        with mock.patch.object(KeptMaps, "fits", return_value=keep):
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                start = time.process_time()
                finetune(network, network.encoder, normalize, train, judges, landcover.score, settings, seed=0)
                return time.process_time() - start
            finally:
                torch.set_num_threads(threads)

    return Sides(ours=lambda: run(True), reference=lambda: run(False))
