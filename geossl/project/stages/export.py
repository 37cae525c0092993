"""`geossl export encoder`: an encoder for other libraries."""

from __future__ import annotations

from pathlib import Path

from geossl.errors import StoreError
from geossl.nets.export import Export, Library, export_encoder
from geossl.nets.weights import load_encoder
from geossl.project.project import Project


def run(project: Project, library: Library, folder: Path, encoder: str | None = None) -> Export:
    """Write an encoder (by default the newest) into ``folder``, for a library to load.

    Raises
    ------
    SettingsError
        The library has no such network.
    StoreError
        There is no such encoder; or the folder holds something else.
    """
    home = project.encoder_folder() if encoder is None else project.encoders / encoder
    if encoder is not None and not (home / "card.json").is_file():
        known = ", ".join(sorted(path.parent.name for path in project.encoders.glob("*/card.json"))) or "none"
        raise StoreError(f"no encoder {encoder!r} in {project.encoders}", f"there are: {known}")
    net, card = load_encoder(home)
    return export_encoder(net, card, library, folder)
