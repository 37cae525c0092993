from __future__ import annotations

from pathlib import Path

import pytest

from .synthetic import run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing cut off."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder
