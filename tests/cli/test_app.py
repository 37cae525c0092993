"""The command line as a person meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "dask", "rasterio", "xarray", "zarr", "prefect", "geopandas", "numpy")


def _geossl(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "geossl.cli.app", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from geossl.cli.app import app; app(['--help'], result_action='return_value');"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in result.stdout
    assert "pretrain" in result.stdout


@pytest.mark.parametrize("module", ["flows.watch", "geossl.project.stages.maintain", "geossl.project.stages.status"])
def test_what_runs_many_times_a_day_needs_no_torch(module: str) -> None:
    """It takes seconds and a gigabyte each time."""
    code = f"import sys, {module}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_a_mistake_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    result = _geossl("status", folder=tmp_path)
    assert result.returncode == 1
    assert "geossl init" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_stage_before_its_time_names_the_one_to_run(tmp_path: Path) -> None:
    assert _geossl("init", folder=tmp_path).returncode == 0
    result = _geossl("stats", folder=tmp_path)
    assert result.returncode == 1
    assert "geossl ingest" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_finds_this_environment_fit(tmp_path: Path) -> None:
    result = _geossl("doctor", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "torch build" in result.stdout


def test_doctor_names_inputs_that_are_not_there(tmp_path: Path) -> None:
    assert _geossl("init", ".", "--imagery", "/nowhere/scenes", folder=tmp_path).returncode == 0
    result = _geossl("doctor", "--project", ".", folder=tmp_path)
    assert result.returncode == 1
    assert "sources" in result.stdout  # and what of them, wrapped into a narrow column


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("KeyboardInterrupt()", 130, "stopped. What was committed is kept"),
        ("PermissionError(13, 'Permission denied', 'store/locks')", 1, "ask for the right"),
    ],
)
def test_what_ends_a_verb_from_outside_is_said_in_words(tmp_path: Path, raised: str, code: int, said: str) -> None:
    script = f"""
from unittest import mock
import sys
from geossl.cli import app
def end(*_):
    raise {raised}
sys.argv = ["geossl", "stats"]
with mock.patch.object(app, "run_stage", end):
    app.main()
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
