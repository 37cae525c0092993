"""The sources that a project file can name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from geossl.bands import Sensor
from geossl.imagery.access import Access
from geossl.imagery.folder import FolderSettings, FolderSource
from geossl.imagery.scene import Rejected, Scene, Source
from geossl.imagery.seen import Seen
from geossl.imagery.stac import StacSettings, StacSource

SourceSettings = Annotated[FolderSettings | StacSettings, Field(discriminator="kind")]
"""One entry under ``sources:``; ``kind`` says which."""


def open_source(settings: FolderSettings | StacSettings, base: Path) -> Source:
    """The source that the settings describe; relative paths are relative to ``base``.

    Raises
    ------
    SettingsError
        The folder does not exist, or is an address that cannot be listed.
    """
    source = FolderSource(settings, base) if isinstance(settings, FolderSettings) else StacSource(settings, base)
    return _Signed(source, settings.access) if settings.access else source


@dataclass(frozen=True, slots=True)
class _Signed:
    """A source whose files are not open to all: every scene carries how to sign in."""

    source: Source
    access: Access

    def scenes(self, sensor: Sensor, seen: Seen | None = None) -> Iterator[Scene | Rejected]:
        for entry in self.source.scenes(sensor, seen):
            yield replace(entry, access=self.access) if isinstance(entry, Scene) else entry
