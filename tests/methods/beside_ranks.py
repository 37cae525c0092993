"""One of two ranks: losses and gradients of pairs of two sensors, each rank with its half of given views.

Run as ``python -m tests.methods.beside_ranks FOLDER RANK``; :func:`whole` is the same on one rank with all views.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from geossl.bands import sensor
from geossl.methods.pairs import View
from geossl.nets.embedding import Spectrum

from .ranks import PLACES, Core, Result, learn, part
from .test_spectrum import S2, build
from .views import SIDE, batch_of, view_of

METHODS = ("simclr", "dense", "mocov2", "mocov3", "lejepa", "dino")


def inputs() -> tuple[View, View, dict[str, Tensor]]:
    """Eight places by two sensors: one of them was not seen by the second, and two are the same ground."""
    torch.manual_seed(1)
    optical, radar = batch_of(PLACES, bands=4), batch_of(PLACES, bands=2)
    radar["valid"][1] = False
    xy = 1000 * torch.arange(float(PLACES)).unsqueeze(1).repeat(1, 2)
    xy[6] = xy[0]
    rest = {"xy": xy, "gsd": torch.full((PLACES,), 10.0), "noise": torch.rand(PLACES, SIDE, SIDE)}
    first = dataclasses.replace(view_of(optical), spectrum=Spectrum.of(S2.bands), kind=0)
    second = dataclasses.replace(view_of(radar), spectrum=Spectrum.of(sensor("sentinel-1-rtc").bands), kind=1)
    return first, second, rest


def whole(name: str) -> Result:
    method = build(name)
    return learn(Core(method), method, *inputs())


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    first, second, rest = inputs()
    mine = slice(rank * PLACES // 2, (rank + 1) * PLACES // 2)
    views = [part(view, mine) for view in (first, second)]
    results = {}
    for name in METHODS:
        method = build(name)
        core = DistributedDataParallel(Core(method))
        results[name] = learn(core, method, *views, {key: values[mine] for key, values in rest.items()})
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
