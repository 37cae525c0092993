"""The services of the compose file without containers: the same scripts, told the same variables.

Only what containers would provide is replaced: folders by ones below a temporary folder, names of hosts by
loopback, and ports by free ones, since those of the file may be taken here.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets as random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.flows.server import free_port

from . import scripts
from .stack import BIN, ROOT, programs, session

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())["services"]
_PATIENCE = 300.0  # seconds


PLANTED = {
    name: f"planted-{random.token_hex(12)}"
    for name in ("CDSE_REFRESH_TOKEN", "EARTHDATA_TOKEN", "PC_SDK_SUBSCRIPTION_KEY", "MILVUS_TOKEN")
}
"""Secrets of who delivers imagery and the like, as a worker's environment may hold them."""
HOOK = f"planted-{random.token_hex(12)}"
"""Password of whom notifications go to."""

_WATCH = """\
import os, socket, sys

def _is_here(host):
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True

def _note(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host or "")
    # Dask asks the system by which address it would reach 8.8.8.8, and sends nothing there
    if host not in ("", "localhost", "8.8.8.8") and not _is_here(host):
        with open({file!r}, "a") as file:
            file.write(f"{{host}} {{sys.argv}}\\n")

sys.addaudithook(_note)
"""
"""What every Python process here notes first: where it wants to get to."""


@dataclass
class Composed:
    """The services as they run, and what there is to know of them."""

    folder: Path
    secrets: dict[str, str]
    extra: Mapping[str, str]
    """Further variables of whoever composes."""
    ports: dict[str, int] = field(default_factory=dict)
    """Of this machine, by those of the file."""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, name: str) -> dict[str, str]:
        """What a service is told."""
        given = {**self.secrets, **self.extra, "GEOSSL_PROJECTS": str(self.folder / "projects")}
        said = SERVICES[name].get("environment", {})
        return {variable: self._here(name, variable, _filled(str(value), given)) for variable, value in said.items()}

    def programs(self) -> dict[str, str]:
        """Where programs and code are: nothing else of this machine's environment is handed on."""
        here = programs()
        return {"PATH": here["PATH"], "PYTHONPATH": os.pathsep.join([str(self.folder / "watch"), here["PYTHONPATH"]])}

    @property
    def reached(self) -> list[str]:
        """Where else than on this machine a process wanted to get to, a line each."""
        file = self.folder / "watch/reached"
        return file.read_text().splitlines() if file.exists() else []

    def _here(self, service: str, variable: str, value: str) -> str:
        if variable.endswith("PORT"):
            return str(self.port(value, service if "DASHBOARD" in variable or "WEBSERVER" in variable else ""))
        if value.startswith("/"):
            return str(self.place(service, value))
        hosts = "|".join([*map(re.escape, SERVICES), "127\\.0\\.0\\.1", "localhost"])
        return re.sub(rf"\b({hosts}):(\d+)\b", lambda m: f"127.0.0.1:{self.port(m[2])}", value)

    def place(self, service: str, path: str) -> Path:
        """Where a folder of a container is here: volumes are shared by name, the rest is the container's own."""
        for volume in SERVICES[service].get("volumes", ()):
            source, target = re.sub(r"\$\{.*\}", "projects", volume).split(":")[:2]
            if path == target or path.startswith(f"{target}/"):
                return self.folder / source / path.removeprefix(target).strip("/")
        return self.folder / f"{service}-own" / path.strip("/")

    def port(self, of_file: str, service: str = "") -> int:
        return self.ports.setdefault(f"{service}{of_file}", free_port())

    def start(self, name: str) -> None:
        """Start one service, after those that it depends on."""
        if name in self.running:
            return
        service = SERVICES[name]
        for other, wanted in service.get("depends_on", {}).items():
            self.start(other)
            if wanted["condition"] == "service_completed_successfully":
                assert self.running[other].wait(timeout=60) == 0, self.log(other)
            else:
                self.wait(other)
        script, *arguments = service["command"]
        environment = {"HOME": str(self.place(name, "/tmp")), **self.environment(name)}
        for volume in service.get("volumes", ()):
            self.place(name, volume.rpartition("}")[2].split(":")[1]).mkdir(parents=True, exist_ok=True)
        for path in (value for value in environment.values() if value.startswith(str(self.folder))):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(environment["HOME"]).mkdir(parents=True, exist_ok=True)
        told = self.programs() | environment
        command = [BIN / Path(script).name, *(str(self.place(name, argument)) for argument in arguments)]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=told, cwd=environment["HOME"], stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, name: str) -> None:
        """Until a service's own check of its health says that it is well."""
        told = self.programs() | self.environment(name)
        _, script, argument = SERVICES[name]["healthcheck"]["test"]
        deadline = time.monotonic() + _PATIENCE
        while subprocess.run(
            [BIN / Path(script).name, argument], env=told, capture_output=True, check=False
        ).returncode:
            assert self.running[name].poll() is None, self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.5)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End all, those first that others do not depend on."""
        for name, process in reversed(self.running.items()):
            whole = [p for p in psutil.process_iter() if session(p.pid) == process.pid]
            # as the image says
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            for one in whole:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait(10)


@contextlib.contextmanager
def composed(folder: Path, extra: Mapping[str, str]) -> Iterator[Composed]:
    """All services of the compose file, well; ``folder`` has a short path, and the user postgres can get to it."""
    made = subprocess.run([BIN / "make-secrets"], check=True, capture_output=True, text=True).stdout
    whole = Composed(folder, scripts.secrets(made), extra)
    (folder / "watch").mkdir()
    (folder / "watch/sitecustomize.py").write_text(_WATCH.format(file=str(folder / "watch/reached")))
    try:
        # a further worker differs by its pool alone
        wanted = [name for name, service in SERVICES.items() if "profiles" not in service]
        for name in wanted:
            whole.start(name)
        for name in wanted:
            if "healthcheck" in SERVICES[name]:
                whole.wait(name)
        yield whole
    finally:
        whole.stop()


def _filled(value: str, given: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?(?::\?[^}]*)?\}", lambda m: given.get(m[1]) or m[2] or "", value)
