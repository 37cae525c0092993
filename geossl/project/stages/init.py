"""`geossl init`: a project file that explains itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from geossl.errors import SettingsError
from geossl.files import write_text
from geossl.project.load import FILE_NAME
from geossl.project.settings import ProjectSettings

_TEMPLATE = """\
# A geossl project. `geossl init --show` explains every field; what is not written here has its default.
name: {name}

# west, south, east, north in degrees, or a vector file. null: wherever there is imagery.
area: null

# Where the cube, the encoders and the maps go.
store: store

# One grid for all pixels. auto: the first scene decides, and the cube remembers.
grid:
  crs: auto           # or EPSG:32622
  resolution: auto    # metres
  tile: 1024          # pixels, a multiple of 256
  bands: one          # or native: bands of 20 m are stored at 20 m beside those of 10 m

# A shipped sensor and which of its bands, in this order (null: all of them).
# Shipped: {sensors}
sensor:
  name: sentinel-2-l2a
  bands: [B02, B03, B04, B05, B06, B07, B08, B8A, B11, B12]

# Scenes: a folder with SAFE products, STAC Items or GeoTIFFs. For files of your own naming, give a pattern:
#   pattern: "{{scene}}_{{date:%Y%m%d}}_{{band}}.tif"
sources:
  - kind: folder
    path: {imagery}

# Cloud-free medians that the tasks look at.
composite:
  months: 12

# Train, validation and test are blocks on the ground.
split:
  block: 128          # pixels
  buffer: 16          # pixels between blocks of different parts
  seed: 0

# Self-supervised learning on all of the imagery, labelled or not.
pretrain:
  method: {{name: dense}}
  encoder: {{name: unet-small}}
  epochs: 20

# Maps you want. Remove the comment signs of what you have labels for.
tasks: {{}}
#  landcover:
#    kind: landcover
#    labels:
#      path: labels.gpkg          # polygons, or a raster of classes on any grid
#      column: class
#      classes:
#        - {{name: forest, code: 1, color: "#1b7837"}}
#        - {{name: cropland, code: 2, color: "#e6ab02"}}
#        - {{name: water, code: 3, color: "#2166ac"}}
#  clearing:
#    kind: change
#    before: 2023-07-01
#    after: 2024-07-01
#    labels:
#      path: clearings.gpkg       # polygons with the date of clearing
#      date_column: date
"""


def init_project(folder: Path, imagery: Path, *, overwrite: bool = False) -> Path:
    """Write ``geossl.yaml`` into a folder.

    Raises
    ------
    SettingsError
        There is one already and ``overwrite`` is false.
    """
    from geossl.bands import sensors

    path = folder / FILE_NAME
    if path.exists() and not overwrite:
        raise SettingsError(f"{path} exists already", "edit it, or give --force to start over")
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "my-region"
    write_text(path, _TEMPLATE.format(name=name, imagery=imagery, sensors=", ".join(sensors())))
    return path


def explain_settings() -> str:
    """Every field of the project file with its meaning and default."""
    return "\n".join(_explain(ProjectSettings, ""))


def _explain(model: type[BaseModel], indent: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        nested = _models(field.annotation)
        comment = f"  # {field.description}" if field.description else ""
        if nested:
            yield f"{indent}{name}:{comment}"
            for choice in nested:
                if len(nested) > 1:
                    yield f"{indent}  # one of: {choice.__name__} — {(choice.__doc__ or '').splitlines()[0]}"
                yield from _explain(choice, indent + "  ")
        elif default is PydanticUndefined:
            yield f"{indent}{name}: (required){comment}"
        else:
            yield f"{indent}{name}: {_plain(default)}{comment}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings models that a field may hold (itself, or inside a union, list, dict, Annotated)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)
