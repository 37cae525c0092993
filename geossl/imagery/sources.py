"""The sources that a project file can name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from geossl.imagery.folder import FolderSettings, FolderSource
from geossl.imagery.scene import Source
from geossl.imagery.stac import StacSettings, StacSource

SourceSettings = Annotated[FolderSettings | StacSettings, Field(discriminator="kind")]
"""One entry under ``sources:``; ``kind`` says which."""


def open_source(settings: FolderSettings | StacSettings, base: Path) -> Source:
    """The source that the settings describe; relative paths are relative to ``base``.

    Raises
    ------
    SettingsError
        The folder does not exist.
    """
    return FolderSource(settings, base) if isinstance(settings, FolderSettings) else StacSource(settings, base)
