"""Run in an interpreter that has TerraTorch: the features of exports, by the code in each README alone.

``terratorch_features.py FOLDER NAME…``: of ``image.pt`` into ``features.pt``; and whether a segmentation
network that TerraTorch's factory builds from the same options begins with the same weights.
"""

import re
import sys
import warnings
from pathlib import Path

import torch
from terratorch.models import EncoderDecoderFactory
from terratorch.registry import BACKBONE_REGISTRY

warnings.simplefilter("ignore")
folder, names = Path(sys.argv[1]), sys.argv[2:]
image = torch.load(folder / "image.pt")
build, given = BACKBONE_REGISTRY.build, {}


def noted(name, **options):
    """TerraTorch's own call, whose options are remembered."""
    given.clear()
    given.update({f"backbone_{key}": value for key, value in options.items()}, backbone=name)
    return build(name, **options)


features = {}
for name in names:
    load, use = re.findall(r"```python\n(.*?)```", (folder / name / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    found = {"image": image}
    BACKBONE_REGISTRY.build = noted
    exec(load, found)
    BACKBONE_REGISTRY.build = build
    with torch.inference_mode():
        exec(use, found)
    features[name] = [*found["maps"], found["pooled"]]

    ours = found["model"].state_dict()
    network = EncoderDecoderFactory().build_model("segmentation", decoder="FCNDecoder", num_classes=3, **given)
    theirs = network.encoder.state_dict()
    assert ours.keys() == theirs.keys(), name
    assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
torch.save(features, folder / "features.pt")
