"""Weights to start from: torchgeo's public ones by their name, or an encoder that geossl wrote."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from geossl.bands import Band, Radiometry, sensor
from geossl.errors import SettingsError, StoreError
from geossl.nets import olmoearth
from geossl.nets.settings import EncoderSettings, InitSettings
from geossl.nets.weights import load_encoder

_ARCHITECTURES = {
    "resnet18": EncoderSettings(name="resnet18"),
    "resnet50": EncoderSettings(name="resnet50"),
    "vit_small_patch16_224": EncoderSettings(name="vit-small", patch=16, image=224),
    "vit_base_patch16_224": EncoderSettings(name="vit-base", patch=16, image=224),
    "vit_large_patch16_224": EncoderSettings(name="vit-large", patch=16, image=224),
    "dofa_base_patch16_224": EncoderSettings(name="vit-base", patch=16, image=224, embedding="dofa"),
    "dofa_large_patch16_224": EncoderSettings(name="vit-large", patch=16, image=224, embedding="dofa"),
}
"""torchgeo's models that are one of our encoders by their name alone."""

_MODELS = (*_ARCHITECTURES, "olmoearth_v1")

_SENSORS = {
    "SENTINEL2": "sentinel-2-l1c",
    "SENTINEL1": "sentinel-1-rtc",
    "LANDSAT_OLI_TIRS_TOA": "landsat-8-l1",
    "LANDSAT_OLI_SR": "landsat-8-l2",
    "LANDSAT_ETM_TOA": "landsat-7-l1",
    "LANDSAT_ETM_SR": "landsat-7-l2",
    "LANDSAT_TM_TOA": "landsat-5-l1",
}
"""How the names of weights begin, and the sensor that their bands' names are of."""

_UNITS = {
    ("SENTINEL2", "SSL4EO-S12"): 1e-4,
    ("SENTINEL2", "CrisisLandMark"): 1e-4,
    ("SENTINEL2", "SSL4Eco Dataset"): 1e-4,
    ("SENTINEL1", "SSL4EO-S12"): 1.0,
}
"""Reflectance, or dB, of one unit of the numbers that were normalised; the others were stretched to eight bits."""

_HEADS = ("fc.", "head.", "fc_norm.", "projector.")
"""Parameters after the features: of no use to an encoder."""


@dataclass(frozen=True)
class Normalization:
    """How the images were normalised that weights were trained on: ``(value - mean) / std``, in physical units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    radiometry: Radiometry
    """Of the numbers that it is from; ``unit`` is that of mean and standard deviation."""


@dataclass(frozen=True)
class Source:
    """An encoder's weights, with what one must know to go on from them."""

    name: str
    """torchgeo's name, or the encoder's id."""
    architecture: EncoderSettings
    bands: tuple[Band, ...]
    """In order; empty where kernels follow from wavelengths."""
    normalization: Normalization | None
    """None where it is not published."""
    state: dict[str, Tensor]
    """Named as in an :class:`~geossl.nets.encoder.Encoder`."""
    left_out: tuple[str, ...] = ()
    """Parameters that no encoder has."""
    license: str | None = None
    """Of the weights, and of those that they started from; None where none is named."""


def load_source(settings: InitSettings) -> Source:
    """The weights that settings name.

    Raises
    ------
    SettingsError
        There are none of that name, or they are of another kind of network.
    StoreError
        They cannot be read or downloaded.
    """
    if settings.weights is not None:
        return _torchgeo(settings.weights)
    if settings.encoder is None:
        raise SettingsError("init.champion is known to a project alone", "name the encoder's folder in init.encoder")
    return _own(settings.encoder)


def _own(folder: Path) -> Source:
    encoder, card = load_encoder(folder)
    stored, radiometry = card.statistics, card.sensor.radiometry
    normalization = Normalization(*to_physical(stored.mean, stored.std, radiometry), radiometry)
    state, license = dict(encoder.state_dict()), card.origin.get("license")
    return Source(card.id, card.architecture, card.sensor.bands, normalization, state, license=license)


def to_physical(
    mean: tuple[float, ...], std: tuple[float, ...], radiometry: Radiometry
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of stored numbers in physical units; a constant band has 1, as in `Normalize`."""
    scale, offset = radiometry.scale, radiometry.offset
    return tuple(m * scale + offset for m in mean), tuple((s if s > 0 else 1.0) * scale for s in std)


def _torchgeo(name: str) -> Source:
    weights = _weights(name)
    model = weights.meta["model"]
    if model == olmoearth.MODEL:
        return _olmoearth(weights, name)
    if model not in _ARCHITECTURES:
        raise SettingsError(
            f"init.weights {name} are of {model}, a network that is none of geossl's encoders",
            f"choose weights of {', '.join(_MODELS)}",
        )
    architecture = _ARCHITECTURES[model]
    bands, normalization = ((), None) if architecture.embedding == "dofa" else _bands(weights)
    state, left_out = {}, []
    for key, tensor in _download(weights, name).items():
        if key.startswith(_HEADS):
            left_out.append(key)
        else:
            state[f"backbone.{key}"] = tensor
    return Source(name, architecture, bands, normalization, state, tuple(left_out))


def _olmoearth(weights: Any, name: str) -> Source:
    mean, std = olmoearth.published_statistics()  # says what is not installed before anything is downloaded
    state, left_out = olmoearth.published_state(_download(weights, name).items())
    return Source(
        name,
        EncoderSettings.model_validate({"name": f"olmoearth-{weights.meta['model_size']}"}),
        olmoearth.network_bands(),
        Normalization(mean, std, sensor("sentinel-2-l2a").radiometry),
        {f"backbone.{key}": tensor for key, tensor in state.items()},
        tuple(left_out),
        weights.meta["license"],
    )


def _weights(name: str) -> Any:
    """The torchgeo weight enum of that name."""
    from torchgeo.models import get_model_weights, get_weight  # brings rasterio: only for those who start from it

    try:
        return get_weight(name)
    except ValueError:
        known = [str(weights) for model in _MODELS for weights in get_model_weights(model)]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
        raise SettingsError(f"torchgeo has no weights {name!r}", f"it has {', '.join(near)}, …") from None


def _download(weights: Any, name: str) -> dict[str, Tensor]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise StoreError(
            f"init.weights {name} cannot be downloaded: {error}",
            f"where there is a network, download {weights.url} and copy it to {file} on this machine",
        ) from error
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise StoreError(f"init.weights {name} are damaged: {error}", f"remove {file} and try again") from error


def _bands(weights: Any) -> tuple[tuple[Band, ...], Normalization | None]:
    """The bands that public weights take, as our sensor knows them, and how their images were normalised."""
    member, meta = str(weights).partition(".")[2], weights.meta
    family = next((family for family in _SENSORS if member.startswith(family)), None)
    if family is None or meta.get("bands") is None:
        raise SettingsError(
            f"init.weights {weights} do not say which bands they take", "choose weights of a named sensor"
        )
    known = sensor(_SENSORS[family])
    ours = {canonical(band.name): band for band in known.bands}
    # what our sensors lack (thermal, panchromatic, an index) can only be mapped by its name
    bands = tuple(ours.get(canonical(name), Band(name, None, known.bands[0].gsd)) for name in meta["bands"])
    unit = _UNITS.get((family, meta.get("dataset", "")))
    steps = [step for step in weights.transforms.modules() if type(step).__name__ == "Normalize"]
    if unit is None or len(steps) != 1:
        return bands, None
    mean, std = ([unit * float(v) for v in values] for values in (steps[0].mean, steps[0].std))
    widen = len(bands) if len(mean) == 1 else 1
    return bands, Normalization(tuple(mean * widen), tuple(std * widen), known.radiometry)


def canonical(band: str) -> str:
    """One spelling of a band's name: ``B4``, ``B04`` and ``SR_B4`` are ``B4``, ``B8a`` is ``B8A``."""
    return re.sub(r"^(SR_)?B0*(?=\d)", "B", band, flags=re.IGNORECASE).upper()
