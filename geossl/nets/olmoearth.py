"""OlmoEarth v1 (https://arxiv.org/abs/2511.13655), a transformer with a token of each place and set of bands.

The network is Ai2's own, from the package olmoearth-pretrain-minimal (the extra ``olmoearth``); here is what lies
between it and an image of any optical bands. It knows Sentinel-2 L2A in three sets: B02 B03 B04 B08;
B05 B06 B07 B8A B11 B12; B01 B09. A set of which an image has no band has no tokens. A band that is missing in
another set is copied from the one nearest in wavelength, as its authors fill it in: v1 never saw any left out.

What it is told beside the pixels is fixed, for an encoder sees images alone: one date, pixels of 10 m, and July, the
month that its authors' evaluations tell it where a set has no dates (``[1, 6, 2020]``, months counted from 0).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.bands import Band
from geossl.errors import SettingsError

MODEL = "OlmoEarthPretrain_v1"
"""What torchgeo calls it."""

MAPS = 4

_MODALITY = "sentinel2_l2a"
_GSD = 10  # metres
_MONTH = 6  # from 0
_STDS = 2  # standard deviations to either side of the mean: what the network's numbers from 0 to 1 span

GAIN, OFFSET = 1 / (2 * _STDS), 0.5
"""Values normalised to mean 0 and standard deviation 1, times this plus that, are in the network's range."""


class OlmoEarth(nn.Module):
    """Image (B, C, H, W) → maps (B, D, H / patch, W / patch) after evenly spaced blocks, all through the last norm.

    A map shows the mean over the sets of bands, as the network pools its tokens at a place.

    Parameters
    ----------
    size:
        ``nano``, ``tiny``, ``base`` or ``large``.
    bands:
        The image's.
    patch:
        Side of a patch in pixels, at most 8; patches of fewer pixels are enlarged to 8, as the network does.

    Attributes
    ----------
    places:
        Which of the network's bands each of the image's is.
    fed:
        Which of the image's bands each of the network's is fed; −1 where its set has no tokens.
    dim:
        D.
    """

    gain: Tensor
    offset: Tensor
    take: Tensor

    def __init__(self, size: str, bands: Sequence[Band], patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.places = find_places(bands)
        self.fed = fill(self.places)
        self.sets = [number for number, each in enumerate(band_sets()) if self.fed[each[0]] >= 0]
        # as in our other encoders nothing is dropped in training
        network = _package().OlmoEarthPretrain_v1(
            model_size=size, model_version="v1", supported_modality_names=[_MODALITY], drop_path=0.0
        )
        encoder: Any = network.model.encoder
        self.dim = int(encoder.embedding_size)
        embeddings = encoder.patch_embeddings.per_modality_embeddings[_MODALITY]
        for number in range(len(band_sets())):
            if number not in self.sets:  # kept as they are, for whoever goes on with more bands
                embeddings[f"{_MODALITY}__{number}"].requires_grad_(False)
        self.patch_embeddings = encoder.patch_embeddings
        self.composite_encodings = encoder.composite_encodings
        self.blocks = encoder.blocks
        self.norm = encoder.norm
        self.register_buffer("take", torch.tensor([max(0, each) for each in self.fed]), persistent=False)
        # of each of the network's bands: from what an encoder is given to what the network was trained on
        self.register_buffer("gain", torch.full((len(self.fed),), GAIN))
        self.register_buffer("offset", torch.full((len(self.fed),), OFFSET))

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps of a normalised image."""
        tokens = self.embed(image)  # (B, h, w, S, D)
        grid = tokens.shape[1:4]
        x = tokens.flatten(1, 3)
        depth = len(self.blocks)
        taken = {depth * (i + 1) // MAPS for i in range(MAPS)}
        maps = []
        for done, block in enumerate(self.blocks, start=1):
            x = block(x=x)
            if done in taken:
                places = self.norm(x).unflatten(1, grid).mean(dim=3)
                maps.append(places.permute(0, 3, 1, 2).contiguous())
        return maps

    def embed(self, image: Tensor) -> Tensor:
        """Tokens with what tells places and sets apart, (B, h, w, S, D) of S sets."""
        pixels = image.index_select(1, self.take) * self.gain.view(-1, 1, 1) + self.offset.view(-1, 1, 1)
        embeddings: Any = self.patch_embeddings.per_modality_embeddings[_MODALITY]
        sets = band_sets()
        tokens = torch.stack(
            [
                embeddings[f"{_MODALITY}__{each}"](pixels[:, sets[each]].permute(0, 2, 3, 1), patch_size=self.patch)
                for each in self.sets
            ],
            dim=3,
        )
        return tokens + self.encode(*tokens.shape[1:3])[:, :, self.sets]

    def encode(self, height: int, width: int) -> Tensor:
        """What is said of a token beside its pixels, (h, w, S, D): a quarter each of its set, time, month and place.

        The network's own function says the same, but of squares alone, and torch 2.15 writes no valid ONNX of it.
        """
        told: Any = self.composite_encodings
        quarter = self.dim // 4
        of_set = told.per_modality_channel_embeddings[_MODALITY]  # (S, D / 4), learned
        first = F.pad(of_set.new_ones(quarter // 2), (quarter // 2, 0))  # sines and cosines of the first date
        month = told.month_embed.weight[_MONTH]
        # a pixel of 10 m is one, and columns come before rows
        rate = 1.0 / 10000 ** (torch.arange(quarter // 4, device=of_set.device) / quarter)
        row, column = (
            torch.arange(n, device=of_set.device).mul(self.patch).unsqueeze(1) * rate for n in (height, width)
        )
        place = torch.cat(
            [
                torch.cat([column.sin(), column.cos()], dim=1).expand(height, -1, -1),
                torch.cat([row.sin(), row.cos()], dim=1).unsqueeze(1).expand(-1, width, -1),
            ],
            dim=2,
        )
        sets = len(of_set)
        return torch.cat(
            [
                of_set.expand(height, width, -1, -1),
                torch.cat([first, month]).expand(height, width, sets, -1),
                place.unsqueeze(2).expand(-1, -1, sets, -1),
            ],
            dim=3,
        )


def find_places(bands: Sequence[Band]) -> list[int]:
    """Which of the network's bands each band is: the nearest in wavelength.

    Raises
    ------
    SettingsError
        A band has no wavelength, or two are the same.
    """
    known = network_bands()
    places: list[int] = []
    for band in bands:
        if band.wavelength is None:
            raise SettingsError(
                f"OlmoEarth takes optical bands, and band {band.name} has no wavelength",
                "leave it out of the sensor, or choose another encoder",
            )
        place = _nearest(known, band.wavelength)
        if place in places:
            raise SettingsError(
                f"bands {bands[places.index(place)].name} and {band.name} are both nearest to OlmoEarth's "
                f"{known[place].name}",
                "leave one of them out of the sensor, or choose another encoder",
            )
        places.append(place)
    return places


def fill(places: Sequence[int]) -> list[int]:
    """For each of the network's bands the index in ``places`` of the one that it is fed; −1 in a set without any."""
    known = network_bands()
    fed = [-1] * len(known)
    for each in band_sets():
        if not set(places).isdisjoint(each):
            for target in each:
                fed[target] = _nearest([known[place] for place in places], _wavelength(known[target]))
    return fed


def network_bands() -> tuple[Band, ...]:
    """The network's bands, in its order, with its wavelengths.

    Raises
    ------
    SettingsError
        The package is not installed.
    """
    (nanometres,) = _package("data.missing_bands").SPECTRAL_GROUPS[_MODALITY]
    return tuple(Band(name, nanometres[name] / 1000, _GSD) for name in _modality().band_order)


def band_sets() -> list[list[int]]:
    """The indices of each set's bands."""
    return _modality().bandsets_as_indices()


def published_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each of the network's bands in its training, in reflectance.

    They are of Sentinel-2's digital numbers without the offset of baseline 04.00 (``harmonize`` in its recipe).
    """
    rows = _package().Normalizer(std_multiplier=_STDS).norm_config[_MODALITY]
    mean, std = (tuple(rows[band.name][key] * 1e-4 for band in network_bands()) for key in ("mean", "std"))
    return mean, std


def published_state(state: Iterable[tuple[str, Tensor]]) -> tuple[dict[str, Tensor], list[str]]:
    """Of all of a published network what is in :class:`OlmoEarth`, and the names of what is not.

    That is its decoder, the network that its training followed, other modalities and the head.
    """
    taken: dict[str, Tensor] = {}
    left: list[str] = []
    for name, tensor in state:
        part, _, rest = name.partition(".")
        other = "per_modality_" in rest and _MODALITY not in rest
        # positions in time were stored once; now they are computed
        if part == "encoder" and not other and not rest.startswith(("project_and_", "composite_encodings.pos_embed")):
            taken[rest] = tensor
        else:
            left.append(name if part == "encoder" else f"{part}.*")
    count = len(network_bands())
    taken |= {"gain": torch.full((count,), GAIN), "offset": torch.full((count,), OFFSET)}
    return taken, list(dict.fromkeys(left))


def _wavelength(band: Band) -> float:
    assert band.wavelength is not None
    return band.wavelength


def _nearest(bands: Sequence[Band], wavelength: float) -> int:
    """The index of the band that is nearest; no two of the network's are as far from a third."""
    distances = [abs(_wavelength(band) - wavelength) for band in bands]
    return distances.index(min(distances))


def _modality() -> Any:
    return _package("utils.constants").Modality.SENTINEL2_L2A


def _package(module: str = "") -> Any:
    """The package, or a module of its network."""
    name = "olmoearth_pretrain_minimal"
    try:
        return importlib.import_module(f"{name}.olmoearth_pretrain_v1.{module}" if module else name)
    except ImportError as error:
        raise SettingsError(
            f"OlmoEarth's network is in the package olmoearth-pretrain-minimal, which cannot be loaded: {error}",
            "install geossl with its extra: `pip install geossl[olmoearth]`",
        ) from error
