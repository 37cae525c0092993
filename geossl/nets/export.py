"""An encoder for other libraries: files that timm, torchgeo and TerraTorch load by their own call.

All build their networks by timm's names. A convolutional backbone and a transformer are the same
network there; kernels that follow from wavelengths are evaluated once, at the encoder's own bands. What
has no counterpart is refused, and what a library leaves out or adds is said beside the weights.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from geossl.errors import SettingsError, StoreError
from geossl.files import aside
from geossl.nets.card import Card
from geossl.nets.embedding import WavelengthEmbedding
from geossl.nets.encoder import Encoder, VitEncoder

Library = Literal["timm", "torchgeo", "terratorch"]

NOTE = "export.json"
_TORCHGEO_IMAGE = 224  # pixels; what timm's names of transformers stand for, and torchgeo asks for nothing else
_HEAD_NORM = {"head.norm.weight", "head.norm.bias"}  # of timm's ConvNeXt, after pooling; ours has none


@dataclass(frozen=True)
class Export:
    """How to use what was written."""

    encoder: str
    """Its id."""
    library: Library
    load: str
    """Python that loads it."""
    maps: str
    """Python expression: the encoder's maps of a normalised ``image`` (B, C, H, W), fine to coarse."""
    pooled: str
    """Python expression: its pooled features (B, D)."""
    lost: tuple[str, ...]
    """What is otherwise than in geossl, in plain words."""


@dataclass(frozen=True)
class _Network:
    """An encoder as timm knows it."""

    name: str
    arguments: Mapping[str, Any]
    """Of ``timm.create_model``."""
    state: dict[str, Tensor]
    lost: tuple[str, ...]
    maps: str
    pooled: str
    taken: tuple[int, ...] = ()
    """Of a transformer, the blocks after which maps are taken, from 0; of others every stage gives one."""

    @property
    def is_vit(self) -> bool:
        return "vit" in self.name


def export_encoder(encoder: Encoder, card: Card, library: Library, folder: Path) -> Export:
    """Write an encoder into a new ``folder``: weights, ``export.json`` and a README that says how to load them.

    Raises
    ------
    SettingsError
        The library has no such network.
    StoreError
        The folder holds something else than an earlier export.
    """
    if folder.exists() and not (folder / NOTE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists, and is no export of an encoder", "name another folder")
    network = _as_timm(encoder)
    write: Callable[[_Network, Card, Path, Path], Export] = {
        "timm": _for_timm,
        "torchgeo": _for_torchgeo,
        "terratorch": _for_terratorch,
    }[library]
    with aside(folder) as partial:
        partial.mkdir()
        export = write(network, card, partial, folder.resolve())
        note = dataclasses.asdict(export) | {"normalization": _normalization(card), "card": card.to_dict()}
        (partial / NOTE).write_text(json.dumps(note, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(_readme(export, card), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
    return export


def _as_timm(encoder: Encoder) -> _Network:
    """The same network by timm's name."""
    settings, backbone = encoder.settings, encoder.backbone
    if settings.name.startswith("unet-"):
        raise SettingsError(
            f"the encoder {settings.name} is geossl's own: neither timm nor torchgeo has this network",
            "pretrain resnet*, convnext-* or vit-* to use an encoder there",
        )
    if settings.name.startswith("olmoearth-"):
        raise SettingsError(
            f"the encoder {settings.name} is Ai2's network, which neither timm nor torchgeo's tasks nor TerraTorch build",
            "pretrain resnet*, convnext-* or vit-* to use an encoder there",
        )
    if settings.embedding == "dofa":
        raise SettingsError(
            "an encoder with embedding: dofa cuts patches one pixel off, which no network of timm's does",
            "pretrain with embedding: wavelengths or bands to use an encoder there",
        )
    if settings.groups is not None:
        raise SettingsError(
            "an encoder with groups of bands has a token of each group at every place, which no network of timm's has",
            "pretrain without encoder.groups to use an encoder there",
        )
    state = {re.sub(r"^(stem|stages)_", r"\1.", name): tensor for name, tensor in backbone.state_dict().items()}
    lost: list[str] = []
    name = settings.name.replace("-", "_")
    arguments: dict[str, Any] = {"in_chans": encoder.bands, "num_classes": 0}
    maps, pooled = "model.forward_intermediates(image, intermediates_only=True)", "model(image)"
    taken: tuple[int, ...] = ()
    if isinstance(encoder, VitEncoder):
        name += "_patch16_224"
        # pooling as in geossl: the mean of the normed tokens
        arguments |= {"patch_size": settings.patch, "img_size": encoder.receptive_field, "dynamic_img_size": True}
        arguments |= {"global_pool": "avg", "fc_norm": False}
        taken = _taken(encoder)
        maps = f"model.forward_intermediates(image, indices={[*taken]}, norm=True, intermediates_only=True)"
        embedding = backbone.patch_embed
        if isinstance(embedding, WavelengthEmbedding):
            state = {key: tensor for key, tensor in state.items() if not key.startswith("patch_embed.")}
            with torch.no_grad():
                state["patch_embed.proj.weight"], state["patch_embed.proj.bias"] = embedding.kernels()
            lost.append(
                "Kernels follow from wavelengths in geossl; here they are fixed for the bands above. "
                "Export again for those of another sensor."
            )
    net = timm.create_model(name, **arguments)
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert set(missing) <= _HEAD_NORM, missing
    assert not unexpected, unexpected
    if missing:
        pooled = "model.forward_features(image).mean((2, 3))"
        lost.append("`model(image)` norms the pooled features once more, which geossl does not.")
    state = {key: tensor.detach().clone().contiguous() for key, tensor in net.state_dict().items()}
    return _Network(name, arguments, state, tuple(lost), maps, pooled, taken)


def _taken(encoder: VitEncoder) -> tuple[int, ...]:
    """The blocks after which maps are taken, from 0."""
    depth, maps = len(encoder.backbone.blocks), len(encoder.dims)
    return tuple(depth * (i + 1) // maps - 1 for i in range(maps))


def _for_timm(network: _Network, card: Card, folder: Path, home: Path) -> Export:
    """``local-dir:``, timm's way of a folder with weights and the arguments that they want."""
    side = network.arguments.get("img_size", 224)
    mean, std = _mean_std(card)
    config = {
        "architecture": network.name,
        "num_classes": 0,
        "model_args": dict(network.arguments),
        "pretrained_cfg": {
            "input_size": [network.arguments["in_chans"], side, side],
            "mean": mean,
            "std": std,
            "num_classes": 0,
        },
    }
    save_file(network.state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    load = f'import timm\n\nmodel = timm.create_model("local-dir:{home}", pretrained=True).eval()'
    return Export(card.id, "timm", load, network.maps, network.pooled, network.lost)


def _for_torchgeo(network: _Network, card: Card, folder: Path, home: Path) -> Export:
    """A checkpoint as torchgeo's tasks write it, by which they also start from one another."""
    name, state, lost = network.name, dict(network.state), list(network.lost)
    pooled = "model.forward_features(image).mean((2, 3))"
    if network.is_vit:
        patch, image = network.arguments["patch_size"], network.arguments["img_size"]
        name = re.sub(r"patch\d+", f"patch{patch}", name)
        if not timm.is_model(name):
            raise SettingsError(
                f"torchgeo's tasks build networks by timm's names alone, and none is called {name}",
                "export it to timm, or pretrain with a patch of 16 pixels",
            )
        if image != _TORCHGEO_IMAGE:
            grid = [_TORCHGEO_IMAGE // patch] * 2
            # what dynamic_img_size does at every forward
            state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, [image // patch] * 2)
        lost.append(
            f"Images have {_TORCHGEO_IMAGE} × {_TORCHGEO_IMAGE} pixels there, no other size; "
            "geossl takes any multiple of the patch."
        )
        pooled = "model.forward_features(image)[:, 1:].mean(1)"
    elif not name.startswith("resnet"):
        raise SettingsError(
            f"torchgeo's tasks load no weights into {name}: they look for a head that it has not",
            "export it to timm",
        )
    checkpoint = {
        "hyper_parameters": {"model": name},
        "state_dict": {f"model.{key}": tensor for key, tensor in state.items()},
    }
    torch.save(checkpoint, folder / "encoder.ckpt")
    load = (
        "from torchgeo.tasks import Classification\n\n"
        f'task = Classification(model="{name}", weights="{home / "encoder.ckpt"}", '
        f"in_channels={network.arguments['in_chans']}, num_classes=10)\n"
        "model = task.model.eval()"
    )
    return Export(card.id, "torchgeo", load, network.maps, pooled, tuple(lost))


def _for_terratorch(network: _Network, card: Card, folder: Path, home: Path) -> Export:
    """A file for TerraTorch's registry, which hands timm's networks what timm is to be told of their weights."""
    save_file(network.state, folder / "model.safetensors", metadata={"format": "pt"})
    file = str(home / "model.safetensors")
    bands, side = network.arguments["in_chans"], network.arguments.get("img_size", 224)
    options: dict[str, Any] = {"pretrained": True, "in_chans": bands}
    load, maps, lost = "from terratorch.registry import BACKBONE_REGISTRY\n", "model(image)", list(network.lost)
    if network.is_vit:
        options |= {name: network.arguments[name] for name in ("patch_size", "img_size", "dynamic_img_size")}
        options["out_indices"] = [*network.taken]
        norm = network.state["norm.weight"]
        load = f"import torch\nfrom safetensors.torch import load_file\n{load}"
        maps = "[norm(x.movedim(1, -1)).movedim(-1, 1) for x in model(image)]"
        lost.append(
            "TerraTorch gives the maps of a transformer as they are before its last norm, and its decoders see those; "
            "`norm` makes geossl's of them."
        )
    # without the number of bands, timm would take the kernels for those of an image of three
    options["pretrained_cfg_overlay"] = {"file": file, "input_size": [bands, side, side], "num_classes": 0}
    lines = [f'"timm_{network.name}"', *(f"{name}={value!r}" for name, value in options.items())]
    load += "\nmodel = BACKBONE_REGISTRY.build(\n" + "".join(f"    {line},\n" for line in lines) + ").eval()"
    if network.is_vit:
        load += (
            f"\nnorm = torch.nn.LayerNorm({len(norm)}, eps=1e-6)\n"
            f'weights = load_file("{file}")\n'
            'norm.load_state_dict({name: weights[f"norm.{name}"] for name in ("weight", "bias")})'
        )
    lost = [line for line in lost if not line.startswith("`model(image)` norms")]  # there it gives maps
    lost.append("In a configuration each option is one of `model_args`, with `backbone_` before its name.")
    return Export(card.id, "terratorch", load, maps, "maps[-1].mean((2, 3))", tuple(lost))


def _mean_std(card: Card) -> tuple[list[float], list[float]]:
    """What images are normalised by, in stored units; a constant band has 1, as in `Normalize`."""
    return list(card.statistics.mean), [s if s > 0 else 1.0 for s in card.statistics.std]


def _normalization(card: Card) -> dict[str, Any]:
    mean, std = _mean_std(card)
    return {
        "bands": list(card.sensor.band_names),
        "mean": mean,
        "std": std,
        "radiometry": card.to_dict()["sensor"]["radiometry"],
    }


def _readme(export: Export, card: Card) -> str:
    radiometry, (mean, std) = card.sensor.radiometry, _mean_std(card)
    rows = [
        f"| {i} | {band.name} | {'–' if band.wavelength is None else band.wavelength} | {m:.6g} | {s:.6g} |"
        for i, (band, m, s) in enumerate(zip(card.sensor.bands, mean, std, strict=True))
    ]
    lost = [f"- {line}" for line in export.lost] or ["Nothing."]
    nodata = "" if radiometry.nodata is None else f" Pixels of {radiometry.nodata:g} (no-data) become 0."
    unit = (
        ""
        if radiometry.unit == "none"
        else f"; {radiometry.unit} = stored × {radiometry.scale:g} + {radiometry.offset:g}"
    )
    return "\n".join(
        [
            f"# {export.encoder} for {export.library}",
            "",
            f"Pretrained by geossl with {card.method}"
            + (f" on cube snapshot {card.snapshot}." if card.snapshot else "."),
            "",
            "## Bands, in this order",
            "",
            "| channel | band | wavelength (µm) | mean | standard deviation |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Normalise first: `(stored - mean) / standard deviation`, where stored is {radiometry.dtype}{unit}.{nodata}",
            "Other bands, another order or other units give wrong features without any error.",
            "",
            "## Load",
            "",
            "```python",
            export.load,
            "```",
            "",
            "The path is where this folder was written; change it when the folder moves. Features of a normalised `image`:",
            "",
            "```python",
            f"maps = {export.maps}  # fine to coarse",
            f"pooled = {export.pooled}  # (B, D)",
            "```",
            "",
            "## What is otherwise than in geossl",
            "",
            *lost,
            "",
        ]
    )
