"""Nothing that lies in a store can run code, and nobody is told that geossl runs."""

from __future__ import annotations

import ast
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geossl.downstream.task import load_task
from geossl.drift.table import Descriptions
from geossl.errors import StoreError
from geossl.nets.weights import load_encoder
from geossl.train import checkpoint

ROOT = Path(__file__).parents[1]

BETWEEN_PROCESSES = {
    "geossl/cube/composite.py", "geossl/cube/steps.py", "geossl/cube/wave.py", "geossl/maps/work.py",
}  # fmt: skip
"""These hand objects to the processes of a Dask cluster, as Dask itself does; they read none from a file."""

NEVER = {
    ("pickle", "load"), ("pickle", "Unpickler"), ("shelve", "open"), ("marshal", "loads"), ("marshal", "load"),
    ("pd", "read_pickle"), ("pandas", "read_pickle"), ("gpd", "read_pickle"), ("joblib", "load"), ("hub", "load"),
    ("yaml", "unsafe_load"), ("yaml", "full_load"),
}  # fmt: skip
NEVER_IMPORTED = {"cloudpickle", "dill", "joblib", "shelve", "marshal"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in ("geossl", "flows", "infra"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def unsafe(name: str, tree: ast.Module) -> Iterator[str]:
    """What in a module could unpickle something from a file."""
    for node in ast.walk(tree):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else {module}
            if names & NEVER_IMPORTED or (
                module == "pickle" and {alias.name for alias in node.names} & {"load", "loads"}
            ):
                yield f"{where} imports {names}"
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        of = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        called = (of, node.func.attr)
        if called in NEVER:
            yield f"{where} {'.'.join(called)}"
        elif called == ("pickle", "loads") and name not in BETWEEN_PROCESSES:
            yield f"{where} pickle.loads"
        elif called == ("torch", "load") and said.get("weights_only") != "True":
            yield f"{where} torch.load without weights_only=True"
        elif called in {("np", "load"), ("numpy", "load")} and said.get("allow_pickle") != "False":
            yield f"{where} np.load without allow_pickle=False"
        elif said.get("weights_only") == "False" or said.get("allow_pickle") == "True":
            yield f"{where} {ast.unparse(node)}"


def test_nothing_in_the_source_unpickles_a_file() -> None:
    assert [problem for name, tree in sources() for problem in unsafe(name, tree)] == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(file)", "pickle.loads(data)", "torch.load(path)", "torch.load(path, weights_only=False)",
        "np.load(path)", "np.load(path, allow_pickle=True)", "import joblib", "from pickle import loads",
        "pd.read_pickle(path)", "module.load_state(path, weights_only=False)", "torch.hub.load('x', 'y')",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(line: str) -> None:
    assert list(unsafe("geossl/somewhere.py", ast.parse(line)))


class Evil:
    """Whoever unpickles this makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.mark,))


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[Evil]:
    """Its file must not be there at the end; that it would be, is tried first."""
    probe = tmp_path / "probe"
    pickle.loads(pickle.dumps(Evil(probe)))
    assert probe.exists()
    yield Evil(tmp_path / "ran")
    assert not (tmp_path / "ran").exists()


def saved(content: Any) -> bytes:
    """As `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def arrays(**named: Any) -> bytes:
    """As NumPy writes arrays, of objects too."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.array([value], dtype=object) for name, value in named.items()})
    return buffer.getvalue()


def test_a_planted_checkpoint_does_not_run(evil: Evil, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    assert checkpoint.load(path, {"run": 1}) is None
    for content in (saved({"step": evil}), pickle.dumps(evil, protocol=2)):
        path.write_bytes(content)
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            checkpoint.load(path, {"run": 1})


@pytest.mark.parametrize("name", ["encoder.safetensors", "card.json"])
def test_a_planted_encoder_does_not_run(evil: Evil, tmp_path: Path, name: str) -> None:
    for content in (saved({"a": evil}), pickle.dumps(evil)):
        (tmp_path / "card.json").write_text("{}")
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StoreError):
            load_encoder(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "card.json"])
def test_a_planted_task_does_not_run(evil: Evil, tmp_path: Path, name: str) -> None:
    for content in (saved({"a": evil}), pickle.dumps(evil)):
        (tmp_path / "card.json").write_text("{}")
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StoreError):
            load_task(tmp_path)


def test_planted_descriptions_are_described_again(evil: Evil, tmp_path: Path) -> None:
    kept = Descriptions(tmp_path)
    path = kept._path("scene", "sum")
    for content in (arrays(time=evil, embedding=evil), pickle.dumps(evil)):
        path.write_bytes(content)
        assert kept.get("scene", "sum") is None


def test_weights_from_the_network_do_not_run(evil: Evil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geossl.nets.pretrained import load_source
    from geossl.nets.settings import InitSettings

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    there = tmp_path / "hub" / "checkpoints"
    there.mkdir(parents=True)
    from torchgeo.models import ResNet18_Weights

    weights = ResNet18_Weights.SENTINEL2_ALL_MOCO
    (there / weights.url.rpartition("/")[2]).write_bytes(saved({"a": evil}))
    with pytest.raises(StoreError, match="are damaged"):
        load_source(InitSettings(weights="ResNet18_Weights.SENTINEL2_ALL_MOCO"))


def test_a_zip_of_pickles_is_what_torch_writes(evil: Evil) -> None:
    # or the tests above would plant something that nobody would unpickle anyway
    names = zipfile.ZipFile(io.BytesIO(saved({"a": evil}))).namelist()
    assert any(name.endswith("data.pkl") for name in names)


LOUD = ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "CI", "PYTEST_CURRENT_TEST")


def test_who_imports_geossl_is_not_tracked_unless_he_wants() -> None:
    told = {name: value for name, value in os.environ.items() if name not in LOUD}
    for wanted, said in ((told, "true"), (told | {"DO_NOT_TRACK": "false"}, "false")):
        code = "import geossl, os; print(os.environ['DO_NOT_TRACK'])"
        assert (
            subprocess.run([sys.executable, "-c", code], env=wanted, capture_output=True, text=True).stdout.strip()
            == said
        )


@pytest.mark.slow
def test_nobody_is_told_that_geossl_runs() -> None:
    code = """
import flows.main, mlflow.telemetry.utils, huggingface_hub.constants
from prefect._internal.analytics.enabled import is_telemetry_enabled
from prefect.settings import get_current_settings
from mlflow.telemetry.utils import is_telemetry_disabled
print(is_telemetry_enabled(), get_current_settings().server.analytics_enabled,
      not is_telemetry_disabled(), not huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY)
"""
    told = {name: value for name, value in os.environ.items() if name not in LOUD}
    done = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False"] * 4, done.stdout + done.stderr
