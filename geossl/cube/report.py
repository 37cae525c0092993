"""What an ingest says when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field

from geossl.imagery.scene import Rejected


@dataclass
class IngestReport:
    """What an ingest, or one wave of it, did."""

    snapshot: str = ""
    """Id of the newest snapshot afterwards."""
    ingested: list[str] = field(default_factory=list)
    """Ids of the scenes that were read, for the first time or again."""
    already: list[str] = field(default_factory=list)
    """Ids of the scenes that were there, from the same files."""
    set_aside: list[Rejected] = field(default_factory=list)
    """What could not be ingested, and why."""
    tiles: int = 0
    """Number of tile steps written."""
    bytes: int = 0
    """Uncompressed size of what was written."""
    saturated: int = 0
    """How many numbers did not fit the sensor's dtype, were clipped and flagged."""

    def add(self, later: IngestReport) -> None:
        """Count a later wave in."""
        self.snapshot = later.snapshot
        self.ingested += later.ingested
        self.already += later.already
        self.set_aside += later.set_aside
        self.tiles += later.tiles
        self.bytes += later.bytes
        self.saturated += later.saturated
