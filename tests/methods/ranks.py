"""One of two ranks: the losses and gradients of several methods, each for its half of given views.

Run as ``python -m tests.methods.ranks FOLDER RANK [DEVICE]``; :func:`whole` is the same on one rank with all views.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from geossl.augment import Placement
from geossl.methods.dense import Dense
from geossl.methods.dino import Dino
from geossl.methods.method import Method
from geossl.methods.pairs import View

from .views import SIDE, batch_of, build, view_of

PLACES = 8
Case = dict[str, Any]
Result = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]
CASES: dict[str, Case] = {
    "simclr-unet": {"name": "simclr", "encoder": "unet-tiny", "temperature": 0.3},
    "simclr-vit": {"name": "simclr", "encoder": "vit-tiny", "temperature": 0.3},
    "dense-unet": {"name": "dense", "encoder": "unet-tiny", "temperature": 0.3},
    "dense-vit": {"name": "dense", "encoder": "vit-tiny", "temperature": 0.3},
    "mocov2-unet": {"name": "mocov2", "encoder": "unet-tiny", "temperature": 0.3, "queue": 16},
    "mocov3-unet": {"name": "mocov3", "encoder": "unet-tiny", "temperature": 0.3, "hidden": 32},
    "mocov3-vit": {"name": "mocov3", "encoder": "vit-tiny", "temperature": 0.3, "hidden": 32},
    "lejepa-unet": {"name": "lejepa", "encoder": "unet-tiny", "hidden": 32},
    "lejepa-vit": {"name": "lejepa", "encoder": "vit-tiny", "hidden": 32},
    "dino-unet": {"name": "dino", "encoder": "unet-tiny", "temperature": 0.3, "prototypes": 24},
    "dino-vit": {"name": "dino", "encoder": "vit-tiny", "temperature": 0.3, "prototypes": 24},
}


class Core(nn.Module):
    """A method's loss of given views, as DDP wants it; batch norm by its running statistics."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method.eval()

    def forward(self, first: View, second: View, rest: dict[str, Tensor]) -> Tensor:
        method: Any = self.method
        torch.manual_seed(2)  # of what is drawn within the loss
        noise, batch = rest["noise"], rest | {"valid": first.valid}
        if isinstance(method, Dense):
            return method.losses(first, second, batch, noise).total
        if isinstance(method, Dino):
            of_cells = torch.cat([noise[:, i :: method.stride, i :: method.stride] for i in (1, 2)])
            local = [_corner(first), _corner(second)]
            return method.losses(first, second, local, of_cells, noise[:, 0, :2].T.flatten() / 2).total
        total: Tensor = method.losses(first, second, batch).total
        return total


def inputs() -> tuple[View, View, dict[str, Tensor]]:
    """Two views of eight places, of which one was not seen and two are the same, on different ranks."""
    torch.manual_seed(1)
    batch = batch_of(PLACES)
    batch["valid"][1] = False
    xy = 1000 * torch.arange(float(PLACES)).unsqueeze(1).repeat(1, 2)
    xy[6] = xy[0]
    rest = {"xy": xy, "gsd": torch.full((PLACES,), 10.0), "noise": torch.rand(PLACES, SIDE, SIDE)}
    return view_of(batch), view_of(batch), rest


def whole(case: str, device: str = "cpu") -> Result:
    """The loss and gradients of one rank with all places."""
    method = build(**CASES[case]).to(device)
    first, second, rest = inputs()
    every = slice(PLACES)
    return learn(Core(method), method, part(first, every, device), part(second, every, device), to(rest, device))


def to(tensors: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    """All of them there."""
    return {name: each.to(device) for name, each in tensors.items()}


def learn(core: nn.Module, method: Method, first: View, second: View, rest: dict[str, Tensor]) -> Result:
    """Loss, gradients, and what the method holds after the step but for weights."""
    loss = core(first, second, rest)
    loss.backward()
    method.after_step(1, 100)
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return loss.detach().cpu(), to(gradients, "cpu"), to(dict(method.named_buffers()), "cpu")


def part(view: View, rows: slice, device: str = "cpu") -> View:
    """The view of some of its places, there."""
    image, valid, affine = (each[rows].to(device) for each in (view.image, view.valid, view.placement.affine))
    return dataclasses.replace(view, image=image, valid=valid, placement=Placement(affine))


def _corner(view: View) -> View:
    side = SIDE // 2
    return dataclasses.replace(view, image=view.image[..., :side, :side], valid=view.valid[..., :side, :side])


def require_as_one(whole: Result, ranks: Sequence[Result]) -> None:
    """Two ranks with half of the places each have the loss of one with all, and its gradients and state."""
    loss, gradients, buffers = whole
    torch.testing.assert_close(torch.stack([rank[0] for rank in ranks]).mean(), loss, atol=1e-5, rtol=0)
    assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-3
    for _, theirs, kept in ranks:
        torch.testing.assert_close(theirs, gradients, atol=1e-5, rtol=0)
        torch.testing.assert_close(kept, buffers, atol=1e-5, rtol=0, equal_nan=True)  # radar has no wavelength


def main(folder: Path, rank: int, device: str = "cpu") -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    first, second, rest = inputs()
    mine = slice(rank * PLACES // 2, (rank + 1) * PLACES // 2)
    results = {}
    for case, settings in CASES.items():
        method = build(**settings).to(device)
        core = DistributedDataParallel(Core(method))
        own = to({name: each[mine] for name, each in rest.items()}, device)
        parts = part(first, mine, device), part(second, mine, device), own
        results[case] = learn(core, method, *parts)
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
