"""The services of the compose file, started once for all tests of a session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cube.s3_servers import has_ceph

from . import stack
from .composed import HOOK, Composed, composed


@pytest.fixture(scope="session")
def whole() -> Iterator[Composed]:
    """All services of the compose file, without containers."""
    if stack.absent() or not has_ceph():
        pytest.skip(stack.absent() or "Ceph is not installed (Debian: radosgw ceph-mon ceph-osd)")
    folder = Path(tempfile.mkdtemp(prefix="geossl-"))
    folder.chmod(0o711)  # for the user postgres
    try:
        with composed(folder, {"GEOSSL_NOTIFY": f"json://somebody:{HOOK}@127.0.0.1:9/hook", "S3_GIB": "4"}) as services:
            yield services
    finally:
        shutil.rmtree(folder)
