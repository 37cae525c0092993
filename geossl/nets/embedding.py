"""Patch embedding by wavelength: one encoder for Sentinel-2, Landsat, or any choice of their bands.

A small transformer turns each band's wavelength into that band's kernel (DOFA: Xiong et al. 2024,
https://arxiv.org/abs/2403.15356), so that a band which was never seen starts where its neighbours in
the spectrum are. Parameters have the names and shapes of torchgeo's module, whose weights therefore
load as they are; importing that one would bring rasterio and GeoPandas to nodes that train.

Radar has no place on that axis. A band such as ``VV`` enters by a learned vector for its polarisation,
plus one for the orbit's direction where its name says it (``VV_ascending``). Radar bands look at
optical ones, never the other way: adding them changes no kernel of an optical band.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geossl.bands import Band
from geossl.errors import SettingsError

POLARISATIONS = ("VV", "VH", "HH", "HV")
ORBITS = ("ascending", "descending")

_RADAR = re.compile(rf"({'|'.join(POLARISATIONS)})(?:[_-](asc|desc)(?:ending)?)?", re.IGNORECASE)
_WIDTH = 128  # of the generator
_TOKENS = 128  # learned, beside the bands' own
_DOFA_SCALE = 0.01  # of kernels; it leaves tokens far weaker than their positions at the start
_SCALE = 0.007  # times √D: tokens of nine bands start as strong as from a convolution of timm


class Spectrum(NamedTuple):
    """What the bands of a batch are; tensors, so that they travel with it."""

    wavelengths: Tensor
    """(C,) float32, µm; NaN where a band is radar."""
    polarisation: Tensor
    """(C,) int64, an index into :data:`POLARISATIONS`; −1 where a band is optical."""
    orbit: Tensor
    """(C,) int64, an index into :data:`ORBITS`; −1 where the band does not say, or is optical."""

    @classmethod
    def of(cls, bands: Sequence[Band]) -> Self:
        """The spectrum of a sensor's bands.

        Raises
        ------
        SettingsError
            A band has no wavelength and is no radar polarisation.
        """
        rows = []
        for band in bands:
            match = _RADAR.fullmatch(band.name)
            if match:
                polarisation, direction = match[1].upper(), (match[2] or "").lower()
                named = [name[: len(direction)] for name in ORBITS].index(direction) if direction else -1
                rows.append((math.nan, POLARISATIONS.index(polarisation), named))
            elif band.wavelength is not None:
                rows.append((band.wavelength, -1, -1))
            else:
                raise SettingsError(
                    f"band {band.name!r} has no wavelength, so it cannot be embedded by its wavelength",
                    f"give it one in the sensor, name a radar band {', '.join(POLARISATIONS)} (with _ascending or"
                    " _descending where it holds one orbit alone), or set embedding: bands",
                )
        return cls(*(torch.tensor(column) for column in zip(*rows, strict=True)))

    @classmethod
    def optical(cls, wavelengths: Tensor) -> Self:
        """The spectrum of optical bands by their wavelengths (C,) in µm.

        Raises
        ------
        SettingsError
            Some have none.
        """
        if not wavelengths.isfinite().all():
            raise SettingsError(
                f"the batch's wavelengths are {wavelengths.tolist()}: which bands the others are is not said",
                "give the encoder Spectrum.of(sensor.bands), or no wavelengths where the bands are its own",
            )
        none = torch.full_like(wavelengths, -1, dtype=torch.int64)
        return cls(wavelengths, none, none)


class WavelengthEmbedding(nn.Module):
    """Image (B, C, H, W) → patch tokens (B, H / patch, W / patch, D), for the bands of any :class:`Spectrum`.

    Parameters
    ----------
    spectrum:
        The bands that an image has where nothing else is said.
    patch, image:
        Sides in pixels: of a patch, and of the image that positions are laid out for.
    dim:
        D.
    dofa:
        Whether its weights are DOFA's. There patches lie one pixel up and to the left, so that the last
        row and column are never seen, and kernels have another scale.
    """

    def __init__(self, spectrum: Spectrum, patch: int, image: int, dim: int, *, dofa: bool = False) -> None:
        super().__init__()
        self.patch, self.dim, self.dofa = patch, dim, dofa
        self.grid_size = (image // patch, image // patch)
        self.fclayer = _Residual()
        self.weight_generator = _Generator(patch * patch * dim, dim)
        self.polarisation = nn.Parameter(torch.randn(len(POLARISATIONS), _WIDTH))
        self.orbit = nn.Parameter(torch.randn(len(ORBITS), _WIDTH))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.constant_(layer.bias, 0.01)
        for name, tensor in spectrum._asdict().items():
            self.register_buffer(f"own_{name}", tensor, persistent=False)

    def forward(self, image: Tensor, wavelengths: Tensor | Spectrum | None = None) -> Tensor:
        """Embed a normalised image; ``wavelengths`` (C,) in µm, or a spectrum, where the bands are not its own."""
        image, kernel, bias = self.convolution(image, wavelengths)
        return F.conv2d(image, kernel, bias, stride=self.patch).permute(0, 2, 3, 1)

    def convolution(self, image: Tensor, wavelengths: Tensor | Spectrum | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The image whose patches are embedded, and the kernels and bias that embed them."""
        return F.pad(image, (1, -1, 1, -1)) if self.dofa else image, *self.kernels(wavelengths)

    def kernels(self, wavelengths: Tensor | Spectrum | None = None) -> tuple[Tensor, Tensor]:
        """The kernels (D, C, patch, patch) and the bias (D,) of a convolution over these bands."""
        if isinstance(wavelengths, Tensor):
            wavelengths = Spectrum.optical(wavelengths)
        own = (getattr(self, f"own_{name}") for name in Spectrum._fields)
        spectrum = Spectrum(*(tensor.to(self.orbit.device) for tensor in wavelengths or own))
        # thousands of nanometres are angles here: half precision would blur one band into the next
        with torch.autocast(self.orbit.device.type, enabled=False):
            weights, bias = self.weight_generator(self.fclayer(self._enter(spectrum)), spectrum.polarisation >= 0)
            kernel = weights.view(-1, self.patch, self.patch, self.dim).permute(3, 0, 1, 2)
            scale = _DOFA_SCALE if self.dofa else _SCALE * math.sqrt(self.dim)
            return kernel * scale, bias * scale

    def _enter(self, spectrum: Spectrum) -> Tensor:
        """One vector a band, (C, 128): sines and cosines of its wavelength in nm, or what was learnt of its radar."""
        rate = 1.0 / 10000 ** (torch.arange(_WIDTH // 2, device=self.orbit.device) / (_WIDTH / 2))
        angle = (spectrum.wavelengths.float().nan_to_num(0.0) * 1000).unsqueeze(1) * rate
        wave = torch.cat([angle.sin(), angle.cos()], dim=1)
        orbit = self.orbit[spectrum.orbit.clamp(min=0)] * (spectrum.orbit >= 0).unsqueeze(1)
        radar = self.polarisation[spectrum.polarisation.clamp(min=0)] + orbit
        return torch.where((spectrum.polarisation >= 0).unsqueeze(1), radar, wave)


class _Residual(nn.Module):
    """Two layers around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Linear(_WIDTH, _WIDTH)
        self.w2 = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.w2(F.relu(self.w1(x))))


class _Generator(nn.Module):
    """Band vectors (C, 128) → their kernels (C, ``size``) and one bias (``dim``,)."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(_WIDTH, nhead=4, dropout=0.0, activation="gelu")
        self.transformer_encoder = nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)
        self.fc_weight = nn.Linear(_WIDTH, size)
        self.fc_bias = nn.Linear(_WIDTH, dim)
        self.weight_tokens = nn.Parameter(0.02 * torch.randn(_TOKENS, _WIDTH))
        self.bias_token = nn.Parameter(0.02 * torch.randn(1, _WIDTH))

    def forward(self, bands: Tensor, radar: Tensor) -> tuple[Tensor, Tensor]:
        """``radar`` (C,) bool: bands that the optical ones and the bias do not look at."""
        hidden = F.pad(radar, (_TOKENS, 1))  # of the sequence's tokens
        mask = hidden.unsqueeze(0) & ~hidden.unsqueeze(1)  # (looks, is looked at)
        sequence = torch.cat([self.weight_tokens, bands, self.bias_token])
        # not said, torch would ask the device whether the mask is causal, and wait for the answer
        out = self.transformer_encoder(sequence, mask=mask, is_causal=False)
        return self.fc_weight(out[_TOKENS:-1] + bands), self.fc_bias(out[-1])
