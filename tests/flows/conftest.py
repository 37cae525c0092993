"""One Prefect server for all tests of a process that do not kill it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.server import PrefectServer, server


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server on SQLite, which clients and flows of this process use."""
    with server(tmp_path_factory.mktemp("prefect")) as prefect, prefect.reached():
        yield prefect
