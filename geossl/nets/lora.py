"""Going on with few parameters (LoRA: Hu et al. 2021, https://arxiv.org/abs/2106.09685).

What a transformer has learnt stays as it is; each linear layer of its blocks learns a low-rank addition,
and bands that are new learn their kernels. The additions are parametrisations of the very weights, so that
methods see an encoder like any other, and the encoder file holds the sums alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from geossl.errors import SettingsError
from geossl.nets.encoder import Encoder


class LowRank(nn.Module):
    """A weight (out, in) plus a product of rank ``rank``, which is nothing at the start."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


class Free(nn.Module):
    """A tensor of which only the slices ``index`` along ``dim`` learn."""

    index: Tensor

    def __init__(self, weight: Tensor, dim: int, index: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("index", torch.tensor(index), persistent=False)
        self.slices = nn.Parameter(weight.detach().index_select(dim, self.index))

    def forward(self, weight: Tensor) -> Tensor:
        return weight.index_copy(self.dim, self.index, self.slices)


def add_adapters(
    encoder: Encoder,
    rank: int,
    *,
    new: Mapping[str, tuple[int, Sequence[int]]] | None = None,
    whole: Iterable[str] = (),
    setting: str = "init.lora",
) -> None:
    """Let an encoder learn by adapters alone, and by what is new in it.

    Parameters
    ----------
    new:
        Tensors that are new in part, by name: the dimension, and which slices along it.
    whole:
        Parameters that are new as a whole.
    setting:
        What asked for it, as the project file calls it.

    Raises
    ------
    SettingsError
        It is no transformer.
    """
    if not encoder.settings.transformer:
        raise SettingsError(
            f"{setting} adapts the blocks of a transformer; the encoder {encoder.settings.name} has none",
            f"leave {setting} out, or choose an encoder vit-* or olmoearth-*",
        )
    encoder.requires_grad_(False)
    for name in whole:
        encoder.get_parameter(name).requires_grad_(True)
    for layer in [
        layer for layer in encoder.backbone.get_submodule("blocks").modules() if isinstance(layer, nn.Linear)
    ]:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    for name, (dim, index) in (new or {}).items():
        path, _, tensor = name.rpartition(".")
        owner = encoder.get_submodule(path)
        parametrize.register_parametrization(owner, tensor, Free(getattr(owner, tensor), dim, index))


def merged(encoder: Encoder) -> dict[str, Tensor]:
    """The state of an encoder, with adapters added into the weights that they are of."""
    state = {name: tensor for name, tensor in encoder.state_dict().items() if ".parametrizations." not in name}
    for path, layer in encoder.named_modules():
        if parametrize.is_parametrized(layer):
            adapted = layer.parametrizations
            assert isinstance(adapted, nn.ModuleDict)
            state |= {f"{path}.{name}": getattr(layer, name).detach() for name in adapted}
    return state


def merge(encoder: Encoder) -> None:
    """Add adapters into the weights that they are of: a plain encoder again, which says the same."""
    for layer in list(encoder.modules()):
        if parametrize.is_parametrized(layer):
            adapted = layer.parametrizations
            assert isinstance(adapted, nn.ModuleDict)
            for name in list(adapted):
                parametrize.remove_parametrizations(layer, name)
