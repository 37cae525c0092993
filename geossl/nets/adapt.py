"""Going on from known weights with other bands, units or statistics: explicit, and written down.

The first layer alone knows of bands. Its kernel is put together band by band, and the normalisation
that it grew up with is folded into it: images are normalised by their own statistics, as everywhere
in geossl, and yet the network sees the numbers that it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from geossl.bands import Band, Sensor, Statistics
from geossl.errors import SettingsError
from geossl.nets.embedding import Spectrum
from geossl.nets.encoder import Encoder
from geossl.nets.lora import add_adapters
from geossl.nets.olmoearth import OlmoEarth, fill, find_places, network_bands
from geossl.nets.pretrained import Normalization, Source, canonical, to_physical
from geossl.nets.settings import EncoderSettings, InitSettings

_NEAR = 0.02  # µm: bands of one name and so near are the same

_MAY_BE_NEW = ("backbone.norm.weight", "backbone.norm.bias", "polarisation", "orbit", "num_batches_tracked")
"""Parameters that public weights may lack: final norm, radar, a counter."""


def architecture_of(settings: EncoderSettings, source: Source | None, *, chip: int) -> EncoderSettings:
    """The encoder to build: positions are laid out as in the source, or else for the chips.

    Raises
    ------
    SettingsError
        The source is another network, or one of them has groups of bands.
    """
    if source is None:
        return settings.model_copy(update={"image": settings.image or chip})
    theirs = source.architecture
    if settings.groups or theirs.groups:
        raise SettingsError(
            f"an encoder with groups of bands starts from chance alone: {source.name} cannot be gone on from with them",
            "leave init or encoder.groups out, or start from an encoder without groups",
        )
    ours = settings.model_copy(update={"image": settings.image or theirs.image})
    vit = ours.name.startswith("vit-")
    differences = [
        f"{field}: {getattr(ours, field)} ≠ {getattr(theirs, field)}"
        for field in EncoderSettings.model_fields
        if getattr(ours, field) != getattr(theirs, field) and (vit or field == "name")
    ]
    if differences:
        wanted = ", ".join(
            f"{field}: {value}" for field, value in theirs if vit or field == "name" if value is not None
        )
        raise SettingsError(
            f"the encoder of the settings and that of {source.name} are not the same: {'; '.join(differences)}",
            f"set pretrain.encoder to {{{wanted}}}",
        )
    return ours


def start(
    encoder: Encoder, source: Source, settings: InitSettings, sensor: Sensor, statistics: Statistics
) -> dict[str, Any]:
    """Give a fresh encoder the source's weights, fitted to our bands and normalisation.

    Parameters
    ----------
    sensor, statistics:
        Of the images that the encoder will see.

    Returns
    -------
    What came from where, JSON-ready, for the card.

    Raises
    ------
    SettingsError
        Bands of ours have no counterpart and no rule; or the weights do not fit the network.
    """
    state = dict(source.state)
    new: dict[str, tuple[int, list[int]]] = {}
    if isinstance(encoder.backbone, OlmoEarth):
        bands, left_out = _by_place(encoder.backbone, source, settings, sensor)
        normalization = _places(encoder.backbone, state, source, sensor, statistics)
    elif encoder.settings.embedding == "bands":
        plan = band_plan(source, settings, sensor)
        used = {theirs for theirs, _ in plan.values()}
        bands = {name: how for name, (_, how) in plan.items()}
        left_out = [band.name for i, band in enumerate(source.bands) if i not in used]
        normalization = _first_layer(
            encoder, state, source, [theirs for theirs, _ in plan.values()], sensor, statistics
        )
        new = _new_kernels(encoder, source, [theirs for theirs, _ in plan.values()], sensor)
    else:
        bands, left_out, normalization = _by_wavelength(source, settings, sensor), [], "own statistics"
        new = _new_radar(source, sensor)
    try:
        missing, unexpected = encoder.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise SettingsError(f"{source.name} do not fit the encoder {encoder.settings.name}: {error}") from error
    lacking = [name for name in missing if not name.endswith(_MAY_BE_NEW)]
    if lacking or unexpected:
        raise SettingsError(
            f"{source.name} do not fit the encoder {encoder.settings.name}: it has no {', '.join(unexpected) or 'more'}, "
            f"and they have no {', '.join(lacking) or 'less'}",
            "choose weights of this network",
        )
    if settings.lora is not None:
        parts = {name: slices for name, slices in new.items() if name not in missing}
        add_adapters(encoder, settings.lora, new=parts, whole=missing)
    return ({"license": source.license} if source.license else {}) | {
        "source": source.name,
        "bands": bands,
        "bands_left_out": left_out,
        "normalization": normalization,
        "parameters_new": list(missing),
        "parameters_left_out": list(source.left_out),
    }


def band_plan(source: Source, settings: InitSettings, sensor: Sensor) -> dict[str, tuple[int | None, str]]:
    """For each of our bands the index of the source's band that it starts from (None: zero), and that in words."""
    chosen = {sensor.band(ours).name: theirs for ours, theirs in settings.bands.items()}
    plan: dict[str, tuple[int | None, str]] = {}
    unmapped = []
    for band in sensor.bands:
        if band.name in chosen:
            theirs = chosen[band.name]
            plan[band.name] = (None, "zero") if theirs is None else _named(source, band.name, theirs)
        elif (same := _same(source, band)) is not None:
            plan[band.name] = same, band.name
        elif settings.unmapped == "zero":
            plan[band.name] = None, "zero"
        elif settings.unmapped == "nearest":
            plan[band.name] = _nearest(source, band)
        else:
            unmapped.append(band.name)
    if unmapped:
        raise SettingsError(
            f"bands {', '.join(unmapped)} of the sensor {sensor.name} are none of {source.name}, "
            f"whose bands are {_listed(source.bands)}",
            "say in init.bands which of its bands each starts from (null: zero), or set init.unmapped: nearest or zero",
        )
    return plan


def _named(source: Source, ours: str, theirs: str) -> tuple[int, str]:
    for index, band in enumerate(source.bands):
        if theirs in (band.name, band.common_name) or canonical(theirs) == canonical(band.name):
            return index, band.name
    raise SettingsError(
        f"init.bands: {ours} is to start from {theirs}, which {source.name} has not", f"it has {_listed(source.bands)}"
    )


def _same(source: Source, ours: Band) -> int | None:
    """The source's band of the same name, unless that name means another wavelength there."""
    for index, band in enumerate(source.bands):
        if band.name == ours.name:
            return index if _alike(ours, band) else None
    return None


def _alike(ours: Band, theirs: Band | None) -> bool:
    """Whether two bands measure the same: light of one wavelength, or what has none and goes by one name."""
    if theirs is None:
        return False
    if ours.wavelength is None or theirs.wavelength is None:
        return ours.wavelength is theirs.wavelength and canonical(ours.name) == canonical(theirs.name)
    return abs(ours.wavelength - theirs.wavelength) <= _NEAR


def _nearest(source: Source, ours: Band) -> tuple[int, str]:
    distances = {
        index: abs(band.wavelength - ours.wavelength)
        for index, band in enumerate(source.bands)
        if band.wavelength is not None and ours.wavelength is not None
    }
    if not distances:
        raise SettingsError(
            f"band {ours.name} has no wavelength to which one of {source.name} ({_listed(source.bands)}) is nearest",
            f"say in init.bands what it starts from; {ours.name}: null starts from zero",
        )
    index = min(distances, key=distances.__getitem__)
    return index, f"{source.bands[index].name}, the nearest"


def _by_wavelength(source: Source, settings: InitSettings, sensor: Sensor) -> dict[str, str]:
    if settings.bands or settings.unmapped:
        raise SettingsError(
            f"{source.name} makes its kernels from wavelengths, so that no band is mapped to another",
            "leave init.bands and init.unmapped out",
        )
    known = {band.name for band in source.bands}
    return {
        band.name: "by wavelength" if not radar else "by polarisation" if band.name in known else "new, by polarisation"
        for band, radar in zip(sensor.bands, (Spectrum.of(sensor.bands).polarisation >= 0).tolist(), strict=True)
    }


def _by_place(
    net: OlmoEarth, source: Source, settings: InitSettings, sensor: Sensor
) -> tuple[dict[str, str], list[str]]:
    """Which of OlmoEarth's bands each of ours is, in words, and those of its that none is."""
    known = network_bands()
    if settings.bands or settings.unmapped == "zero":
        raise SettingsError(
            "each band has the place in OlmoEarth that is nearest in wavelength, so that none is mapped to another "
            "or starts from zero",
            "leave init.bands out, and set init.unmapped: nearest where bands are not Sentinel-2's",
        )
    same = [_same(source, band) is not None for band in sensor.bands]
    others = [band.name for band, is_same in zip(sensor.bands, same, strict=True) if not is_same]
    if others and settings.unmapped is None:
        raise SettingsError(
            f"bands {', '.join(others)} of the sensor {sensor.name} are none of {source.name}, "
            f"whose bands are {_listed(source.bands)}",
            "set init.unmapped: nearest, or choose other bands in the sensor",
        )
    bands = {
        band.name: band.name if is_same else f"{known[place].name}, the nearest"
        for band, place, is_same in zip(sensor.bands, net.places, same, strict=True)
    }
    return bands, [band.name for place, band in enumerate(known) if place not in net.places]


def _places(net: OlmoEarth, state: dict[str, Tensor], source: Source, sensor: Sensor, statistics: Statistics) -> str:
    """Let OlmoEarth in ``state`` see of our bands what it saw of the source's; returns which normalisation that is.

    Sets of bands that the source had none of see ours by our own statistics.
    """
    theirs = source.normalization
    if theirs is None or not _comparable(theirs, sensor):
        return _own_statistics(theirs)
    gain, offset = (state[f"backbone.{name}"].double() for name in ("gain", "offset"))
    own = to_physical(statistics.mean, statistics.std, sensor.radiometry)
    for place, (mine, their) in enumerate(zip(net.fed, fill(find_places(source.bands)), strict=True)):
        if mine >= 0 and their >= 0:
            offset[place] += gain[place] * (own[0][mine] - theirs.mean[their]) / theirs.std[their]
            gain[place] *= own[1][mine] / theirs.std[their]
    state["backbone.gain"], state["backbone.offset"] = gain.float(), offset.float()
    return f"that of {source.name}, folded in before the first layer"


def _own_statistics(theirs: Normalization | None) -> str:
    why = "its own is not published" if theirs is None else f"its own is in {theirs.radiometry.unit}"
    return f"own statistics ({why})"


def _new_kernels(
    encoder: Encoder, source: Source, plan: list[int | None], sensor: Sensor
) -> dict[str, tuple[int, list[int]]]:
    """Which slices of the first layer are of bands that the source does not measure; what they start from aside."""
    starts = [None if theirs is None else source.bands[theirs] for theirs in plan]
    index = [i for i, (band, start) in enumerate(zip(sensor.bands, starts, strict=True)) if not _alike(band, start)]
    return {f"{_first(encoder, nn.Conv2d)[0]}.weight": (1, index)} if index else {}


def _new_radar(source: Source, sensor: Sensor) -> dict[str, tuple[int, list[int]]]:
    """Which rows of what is learnt of radar are of no band of the source."""
    ours = Spectrum.of(sensor.bands)
    theirs = Spectrum.of(source.bands) if source.bands else None
    new: dict[str, tuple[int, list[int]]] = {}
    for name in ("polarisation", "orbit"):
        rows = set(getattr(ours, name).tolist()) - {-1}
        rows -= set() if theirs is None else set(getattr(theirs, name).tolist())
        if rows:
            new[f"backbone.patch_embed.{name}"] = 0, sorted(rows)
    return new


def _first_layer(
    encoder: Encoder,
    state: dict[str, Tensor],
    source: Source,
    plan: list[int | None],
    sensor: Sensor,
    statistics: Statistics,
) -> str:
    """Put the first layer of ``state`` together for our bands and statistics; returns which normalisation it sees."""
    name, layer = _first(encoder, nn.Conv2d)
    kernel = state[f"{name}.weight"].double()  # (D, bands of the source, k, k)
    kernel = torch.stack([torch.zeros_like(kernel[:, 0]) if i is None else kernel[:, i] for i in plan], dim=1)
    theirs = source.normalization
    if theirs is None or not _comparable(theirs, sensor):
        state[f"{name}.weight"] = kernel.float()
        return _own_statistics(theirs)
    own = to_physical(statistics.mean, statistics.std, sensor.radiometry)
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in own)
    mine = [0 if i is None else i for i in plan]
    their_mean, their_std = (torch.tensor(v, dtype=torch.float64)[mine] for v in (theirs.mean, theirs.std))
    # what it was trained on is gain · (what it will see) + offset
    gain, offset = std / their_std, (mean - their_mean) / their_std
    state[f"{name}.weight"] = (kernel * gain.view(-1, 1, 1)).float()
    constant = kernel.sum(dim=(2, 3)) @ offset
    if layer.bias is not None:
        state[f"{name}.bias"] = (state[f"{name}.bias"].double() + constant).float()
    else:
        mean_of = f"{_first(encoder, nn.BatchNorm2d)[0]}.running_mean"
        state[mean_of] = (state[mean_of].double() - constant).float()
    return f"that of {source.name}, folded into the first layer"


def _comparable(theirs: Normalization, sensor: Sensor) -> bool:
    ours = sensor.radiometry
    return theirs.radiometry == ours or theirs.radiometry.unit == ours.unit != "none"


def _first[Layer: nn.Module](encoder: Encoder, kind: type[Layer]) -> tuple[str, Layer]:
    """The first layer of a kind, with its name."""
    return next((name, layer) for name, layer in encoder.named_modules() if isinstance(layer, kind))


def _listed(bands: Iterable[Band]) -> str:
    return ", ".join(band.name for band in bands)
