"""A second try for scenes whose files are on another machine, and then the reason why it failed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Concatenate

from geossl.imagery.access import OPEN
from geossl.imagery.raster import RemoteError, remote_error
from geossl.imagery.scene import Scene

PAUSE = 2.0
"""Seconds between the two tries."""


def again[**P, R](function: Callable[Concatenate[Scene, P], R]) -> Callable[Concatenate[Scene, P], R]:
    """Call a function that reads a scene a second time when a remote file fails: a connection was cut, or a
    token has ended before its time. GDAL itself repeats only what fails with an HTTP status."""

    @functools.wraps(function)
    def twice(scene: Scene, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(scene, *args, **kwargs)
        except RemoteError:
            if scene.access is not None:
                scene.access.renew()
            time.sleep(PAUSE)
        try:
            return function(scene, *args, **kwargs)
        except RemoteError as error:
            raise _explained(error, scene) from error

    return twice


def _explained(error: RemoteError, scene: Scene) -> RemoteError:
    """What the file's server answers now says more than what GDAL met while reading."""
    access = scene.access or OPEN
    for name, asset in (*scene.bands.items(), *scene.masks.items()):
        if "://" in asset.href and access.opening(asset.href)[0] == error.name:
            return remote_error(asset.href, f"scene {scene.id}, band {name}", access, error)
    return error
