"""The layers of an encoder in order, for learning rates that fall towards the image.

What an encoder's first layers know serves every task; its last ones are shaped most by the method that taught
them. So fine-tuning lets each layer learn a little less than the one after it, as ELECTRA, BEiT
(https://arxiv.org/abs/2106.08254) and MAE (https://arxiv.org/abs/2111.06377, A.1) do.
"""

from __future__ import annotations

import re

from geossl.nets.encoder import Encoder

# timm counts a ResNet's stages from 1, all else is counted from 0
_NUMBERED = re.compile(r"backbone\.(?:layer(?P<one>\d+)|(?:stages[._]|blocks\.)(?P<zero>\d+))\.")
_LAST = "backbone.norm."


def layers(encoder: Encoder) -> dict[str, int]:
    """The layer of each parameter by its name: 0 is the stem (embedding, first convolution), the last one's is highest.

    A layer is a transformer's block or a convolutional network's stage; a transformer's final norm belongs to its last.
    """
    numbers = {}
    for name, _ in encoder.named_parameters():
        match = _NUMBERED.match(name)
        numbers[name] = (int(match["one"]) if match["one"] else int(match["zero"]) + 1) if match else 0
    top = max(numbers.values(), default=0)
    return {name: top if name.startswith(_LAST) else number for name, number in numbers.items()}


def rates(encoder: Encoder, decay: float) -> dict[str, float]:
    """Each parameter's learning rate as a share of the last layer's: ``decay`` to the power of the layers above it."""
    numbers = layers(encoder)
    last = max(numbers.values(), default=0)
    return {name: decay ** (last - number) for name, number in numbers.items()}
