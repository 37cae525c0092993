"""Errors that are meant for people.

Everything that a user can cause (a wrong file, a wrong setting, a store that is full) is
raised as a :class:`GeosslError`: what is wrong, where, and what to do. The command line prints
its message without a traceback; anything else is a defect of geossl.
"""

from __future__ import annotations


class GeosslError(Exception):
    """A mistake that the reader of the message can mend.

    Parameters
    ----------
    what:
        What is wrong and where (file, band, tile, setting), in one line.
    remedy:
        What to do about it, in one line; empty where ``what`` already says it.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}\n  → {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[GeosslError], tuple[str, str]]:
        # Errors cross process borders (Dask workers); Exception pickles its formatted message.
        return type(self), (self.what, self.remedy)


class SettingsError(GeosslError):
    """The project file or an override says something that is not allowed."""


class NothingFoundError(SettingsError):
    """A source of scenes holds nothing that could be one, perhaps not yet."""


class SceneError(GeosslError):
    """A scene cannot be ingested correctly; it is set aside with this reason."""


class RadiometryError(GeosslError):
    """Two sides disagree on bands, units or statistics."""


class StoreError(GeosslError):
    """A cube, encoder or map store is missing, damaged, locked or of another format."""


class ClusterError(GeosslError):
    """A Dask cluster does not start, is lost, or loses its workers again and again."""


class LabelError(GeosslError):
    """Labels cannot be used as they are."""


class TrainingError(GeosslError):
    """A training cannot start, or must not go on (for example, it collapsed)."""
