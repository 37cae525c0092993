"""What many verbs can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

ProjectFile = Annotated[Path, Parameter(["--project", "-p"], help="Project file, or the folder it lies in.")]
Overrides = Annotated[
    list[str] | None,
    Parameter(
        ["--set", "-s"], help="Override one setting, as in `--set pretrain.epochs=20`. May be repeated.", negative=""
    ),
]

HERE = Path("geossl.yaml")
"""The project file where none is named."""
