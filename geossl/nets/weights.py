"""The encoder file: ``encoder.safetensors`` beside ``card.json`` in one folder. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from geossl.errors import StoreError
from geossl.files import write_bytes
from geossl.nets.card import Card
from geossl.nets.encoder import Encoder, build_encoder
from geossl.nets.lora import merged

WEIGHTS = "encoder.safetensors"
CARD = "card.json"


def save_encoder(folder: Path, encoder: Encoder, card: Card) -> Card:
    """Write the encoder's weights and its card, and return the card with its id.

    The card is removed first and written last, each file aside and then renamed: whoever finds a
    card finds the weights that belong to it, whenever the writing was cut off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in merged(encoder).items()}
    weights = save(tensors, metadata={"format": "pt"})
    digest = hashlib.blake2b(weights, digest_size=16).hexdigest()
    card = dataclasses.replace(card, weights=digest)
    content = json.dumps(card.to_dict() | {"id": "", "created": ""}, sort_keys=True)
    short = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    card = dataclasses.replace(card, id=f"{card.method}-{card.architecture.name}-{short}")
    (folder / CARD).unlink(missing_ok=True)
    write_bytes(folder / WEIGHTS, weights)
    write_bytes(folder / CARD, (json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
    return card


def load_card(folder: Path) -> Card:
    """The card alone.

    Raises
    ------
    StoreError
        There is no finished encoder in ``folder``, or its card cannot be read.
    """
    path = folder / CARD
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"no encoder at {folder}", "pretrain one, or name another folder") from None
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}", "train or copy the encoder again") from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} is no card", "train or copy the encoder again")
    return Card.from_dict(data, where=str(path))


def load_encoder(folder: Path) -> tuple[Encoder, Card]:
    """The encoder, on the CPU and in evaluation mode, and its card.

    Raises
    ------
    StoreError
        There is none, it is damaged, or a newer geossl wrote it.
    """
    card = load_card(folder)
    path = folder / WEIGHTS
    again = "train or copy the encoder again"
    try:
        weights = path.read_bytes()
        if hashlib.blake2b(weights, digest_size=16).hexdigest() != card.weights:
            raise StoreError(f"{path} is damaged: it is not the file that {CARD} describes", again)
        encoder = build_encoder(card.architecture, card.sensor.bands)
        encoder.load_state_dict(load(weights))
    except (FileNotFoundError, SafetensorError, RuntimeError) as error:
        raise StoreError(f"{path} cannot be loaded: {error}", again) from error
    return encoder.eval(), card
