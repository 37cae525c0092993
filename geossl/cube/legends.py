"""Legends of public land-cover maps, as data in ``legends.toml``."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources

from geossl.cube.settings import ClassSettings, KnownLegend


def known_legend(name: KnownLegend) -> tuple[ClassSettings, ...]:
    """All classes of a public legend, with the values that stand for them."""
    return tuple(
        ClassSettings(name=title, code=code, color=color, values=(code, *others))
        for code, title, color, *others in _tables()[name]
    )


@functools.cache
def _tables() -> dict[str, list[list[int | str]]]:
    return tomllib.loads(resources.files("geossl.cube").joinpath("legends.toml").read_text(encoding="utf-8"))
