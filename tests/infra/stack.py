"""The local stack as tests use it: by its command, as a person does."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "infra/local"
BIN = ROOT / "infra/bin"


def absent() -> str:
    """Why the stack cannot be started here; empty where it can."""
    missing = [] if list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) else ["postgresql"]
    names = ("moto_server", "mlflow", "prefect")
    missing += [name for name in names if not Path(sys.executable).with_name(name).exists()]
    return f"not installed: {', '.join(missing)}" if missing else ""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new folder that the user postgres can get to, unlike pytest's own; its services end with the block."""
    made = Path(tempfile.mkdtemp(prefix="geossl-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        local("down", made)
        shutil.rmtree(made)


def local(verb: str, folder: Path, *more: str, check: bool = True) -> str:
    """What `infra/local` says."""
    command = [LOCAL, verb, "--folder", folder, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=programs())
    said = done.stdout + done.stderr
    assert not check or done.returncode == 0, said
    return said


def environment(folder: Path) -> dict[str, str]:
    """The variables that the stack's file exports."""
    lines = (folder / "environment").read_text().splitlines()
    pairs = (shlex.split(line)[1].split("=", 1) for line in lines)
    return dict(pairs)


def pids(folder: Path) -> dict[str, int]:
    """The process of each service."""
    return {line.split()[0]: int(line.split()[1]) for line in (folder / "pids").read_text().splitlines()}


def programs() -> dict[str, str]:
    """This process's environment, with this Python's programs and this checkout's code first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


def session(pid: int) -> int:
    """The session of a process; 0 where it has ended."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0
