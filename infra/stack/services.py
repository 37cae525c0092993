"""Everything that geossl needs as processes of this machine, on loopback, by the scripts of ``infra/bin``.

One folder holds what the services keep, so that `up` takes up what is there, whatever happened to it::

    stack.json    ports, pools and the database's password
    environment   what a shell has to know: `. FOLDER/environment`
    pids          a line each: service, number of its process, when it started (clock ticks since boot)
    logs/         a file each
    postgres/ prefect/ mlflow/ dask/
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes
from processes import Process

INFRA = Path(__file__).resolve().parents[1]
KINDS = ("postgres", "s3", "dask-scheduler", "dask-worker", "prefect-server", "mlflow-server", "worker")
FOLDERS = ("logs", "postgres", "prefect", "mlflow", "dask")
BUCKET = "geossl"
PATIENCE = 240.0
"""Seconds until all services have to be well."""
GRACE = 30.0
"""Seconds from SIGTERM, on which a training writes a checkpoint, to SIGKILL."""
MARK = "GEOSSL_STACK"
"""Environment variable by which `down` knows whatever a service has started."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Nobody is told that this runs."""


class StackError(Exception):
    """Something that a person has to know."""


@dataclass(frozen=True)
class Service:
    """One process of the stack."""

    name: str
    script: str
    """Of ``infra/bin``."""
    environment: Mapping[str, str]
    address: str
    after: str = ""
    """Script whose service has to be well before."""


class Stack:
    """The services of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.settings: dict[str, Any] = {}
        if (file := self.folder / "stack.json").is_file():
            self.settings = json.loads(file.read_text())

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """One command at a time."""
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def configure(
        self,
        *,
        only: Sequence[str] = (),
        without: Sequence[str] = (),
        pools: Sequence[str] = (),
        dask_workers: int | None = None,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        """Settle what was asked for; what was not, as it was before."""
        old = self.settings
        wanted = set(only or old.get("only") or KINDS) - set(without)
        taken = dict(old.get("ports", {})) | dict(ports or {})
        self.settings = {
            "only": [kind for kind in KINDS if kind in wanted],
            "pools": list(pools) or old.get("pools") or ["geossl"],
            "dask_workers": dask_workers or old.get("dask_workers") or 2,
            "password": old.get("password") or secrets.token_urlsafe(24),
            "ports": taken,
        }
        names = ["postgres", "s3", "dask-scheduler", "dask-scheduler-pages", "prefect-server", "mlflow-server"]
        names += [f"dask-worker-{number}" for number in range(1, self.settings["dask_workers"] + 1)]
        names += [f"worker-{number}" for number in range(1, len(self.settings["pools"]) + 1)]
        if unknown := set(ports or ()) - set(names):
            raise StackError(f"nothing is called {', '.join(sorted(unknown))}; ports are of {', '.join(names)}")
        for name in names:
            taken.setdefault(name, _free_port(set(taken.values())))
        _write(self.folder / "stack.json", json.dumps(self.settings, indent=1) + "\n")
        exports = (f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items())
        _write(self.folder / "environment", "".join(exports))

    def environment(self) -> dict[str, str]:
        """What whoever uses the services has to know."""
        port, only = self.settings["ports"], self.settings["only"]
        said = {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port['prefect-server']}/api",
            "GEOSSL_POOL": self.settings["pools"][0],
        }
        if "dask-scheduler" in only:
            said["DASK_SCHEDULER_ADDRESS"] = f"tcp://127.0.0.1:{port['dask-scheduler']}"
        if "mlflow-server" in only:
            said["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port['mlflow-server']}"
        if "s3" in only:
            said["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port['s3']}"
            said |= {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "anything", "AWS_REGION": "us-east-1"}
        if "postgres" in only:
            said |= {"PGHOST": "127.0.0.1", "PGPORT": str(port["postgres"])}
            said |= {"PGUSER": "geossl", "PGPASSWORD": self.settings["password"]}
        return said | QUIET

    def services(self) -> list[Service]:
        """Those that were asked for, in the order in which they start."""
        if not self.settings:
            return []
        port = {name: str(number) for name, number in self.settings["ports"].items()}
        here, password = "127.0.0.1", self.settings["password"]
        database = f"geossl:{password}@{here}:{port['postgres']}"
        found = [
            Service(
                "postgres", "postgres",
                {"PGDATA": str(self.folder / "postgres/data"), "POSTGRES_PASSWORD": password,
                 "PGPORT": port["postgres"]},
                f"{here}:{port['postgres']}",
            ),
            Service("s3", "s3", {"S3_PORT": port["s3"]}, f"http://{here}:{port['s3']}"),
            Service(
                "dask-scheduler", "dask-scheduler",
                {"DASK_SCHEDULER_PORT": port["dask-scheduler"], "DASK_DASHBOARD_PORT": port["dask-scheduler-pages"]},
                f"tcp://{here}:{port['dask-scheduler']}",
            ),
            Service(
                "prefect-server", "prefect-server",
                {"PREFECT_SERVER_API_PORT": port["prefect-server"],
                 "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect"},
                f"http://{here}:{port['prefect-server']}", "postgres",
            ),
            Service(
                "mlflow-server", "mlflow-server",
                {"MLFLOW_PORT": port["mlflow-server"], "MLFLOW_ARTIFACTS_DESTINATION": str(self.folder / "mlflow"),
                 "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://{database}/mlflow"},
                f"http://{here}:{port['mlflow-server']}", "postgres",
            ),
        ]  # fmt: skip
        for number in range(1, self.settings["dask_workers"] + 1):
            name = f"dask-worker-{number}"
            told = {"DASK_DASHBOARD_PORT": port[name], "DASK_WORKER_FOLDER": str(self.folder / "dask")}
            found.append(Service(name, "dask-worker", told, "one thread", "dask-scheduler"))
        for number, pool in enumerate(self.settings["pools"], start=1):
            name = f"worker-{number}"
            told = {"GEOSSL_POOL": pool, "PREFECT_WORKER_WEBSERVER_PORT": port[name]}
            found.append(Service(name, "worker", told, f"pool {pool}", "prefect-server"))
        return [service for service in found if service.script in self.settings["only"]]

    def service(self, name: str) -> Service:
        """The service of that name."""
        known = {service.name: service for service in self.services()}
        if name not in known:
            raise StackError(f"no service is called {name!r} in {self.folder}; there are: {', '.join(known) or 'none'}")
        return known[name]

    def running(self) -> dict[str, Process]:
        """The services that are alive."""
        file = self.folder / "pids"
        lines = [line.split() for line in file.read_text().splitlines()] if file.is_file() else []
        known = {name: Process(int(pid), started) for name, pid, started in lines}
        return {name: process for name, process in known.items() if process.alive}

    def bring_up(self, services: Sequence[Service], say: Callable[[str], None]) -> None:
        """Start what does not run, each as soon as what it needs is well, until all are.

        Raises
        ------
        StackError
            A service ends, or is not well in time; the end of its log is said.
        """
        for name in FOLDERS:
            (self.folder / name).mkdir(exist_ok=True, mode=0o700)
        begun, before = time.monotonic(), self.running()
        started: dict[str, list[subprocess.Popen[bytes]]] = {}
        ill = {service.name: service for service in services}
        while ill:
            for name, service in list(ill.items()):
                if any(other.script == service.after for other in ill.values()):
                    continue
                tries = started.setdefault(name, [])
                # what ran at first may have been about to end, as a Dask worker is that has lost its scheduler
                ended = tries[-1].poll() is not None if tries else name not in before or not before[name].alive
                if ended:
                    # another try or two: the last processes of a database that was killed may be about to end
                    if len(tries) == 3 or time.monotonic() > begun + PATIENCE:
                        raise StackError(f"{name} does not start\n{self._end_of_log(name)}")
                    tries.append(self._start(service))
                elif self.healthy(service):
                    if service.script == "s3":
                        _answers(f"{service.address}/{BUCKET}", "PUT")  # moto has none at first
                    del ill[name]
                    how = f"well after {time.monotonic() - begun:.1f} s" if tries else "runs already"
                    say(f"{name:<16} {how:<18} {service.address}")
                elif time.monotonic() > begun + PATIENCE:
                    raise StackError(f"{name} is not well after {PATIENCE:.0f} s\n{self._end_of_log(name)}")
            time.sleep(0.2)

    def healthy(self, service: Service) -> bool:
        command = [str(INFRA / "bin/healthy"), service.script]
        environment = self._environment_of(service)
        answers = subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
        # a worker answers a moment before its pool is there
        pool = f"{environment['PREFECT_API_URL']}/work_pools/{environment['GEOSSL_POOL']}"
        return answers and (service.script != "worker" or _answers(pool))

    def stop(self, names: Sequence[str]) -> None:
        """End services; runs of flows that a worker has started go on, or end as it wishes."""
        asked = {name: process for name, process in self.running().items() if name in names}
        whole = [one for process in asked.values() for one in processes.in_session(process.pid)]
        for name, process in asked.items():
            # by which the database ends all connections, then itself
            process.send(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        processes.wait(asked.values(), GRACE)
        processes.end(whole, grace=5)
        self._note(dict.fromkeys(names))

    def stop_unwanted(self) -> None:
        """End what was asked for once, and no longer is."""
        wanted = {service.name for service in self.services()}
        self.stop([name for name in self.running() if name not in wanted])

    def kill(self, name: str) -> None:
        """End one service by SIGKILL, as the system does when memory runs out."""
        process = self.running().get(self.service(name).name)
        whole = [] if process is None else processes.in_session(process.pid)
        for one in whole:
            one.send(signal.SIGKILL)
        processes.wait(whole, 10)
        self._note({name: None})

    def take_down(self) -> int:
        """End all services and whatever they have started; how many services there were."""
        count = len(self.running())
        self.stop_unwanted()
        # who uses before who is used, so that nothing tries again in vain
        for scripts in (("worker",), ("dask-worker",), KINDS[1:], KINDS):
            self.stop([service.name for service in self.services() if service.script in scripts])
            if "postgres" not in scripts:
                self._end_strays()
        self._end_strays()
        return count

    def _end_strays(self) -> None:
        """End what services have started and that is in no service's session, such as runs of flows."""
        sessions = {process.pid for process in self.running().values()}
        marked = processes.with_variable(MARK, str(self.folder))
        processes.end([process for process in marked if process.session not in sessions], GRACE)

    def _environment_of(self, service: Service) -> dict[str, str]:
        environment = os.environ | self.environment() | dict(service.environment) | {MARK: str(self.folder)}
        programs = [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
        code = [str(INFRA.parent), *filter(None, [environment.get("PYTHONPATH")])]
        return environment | {"PATH": os.pathsep.join(programs), "PYTHONPATH": os.pathsep.join(code)}

    def _start(self, service: Service) -> subprocess.Popen[bytes]:
        with (self.folder / "logs" / f"{service.name}.log").open("ab") as log:
            started = subprocess.Popen(
                [INFRA / "bin" / service.script], env=self._environment_of(service), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._note({service.name: Process.of(started.pid)})
        return started

    def _note(self, changes: Mapping[str, Process | None]) -> None:
        known = {name: process for name, process in (self.running() | dict(changes)).items() if process is not None}
        _write(self.folder / "pids", "".join(f"{name} {one.pid} {one.started}\n" for name, one in known.items()))

    def _end_of_log(self, name: str) -> str:
        log = self.folder / "logs" / f"{name}.log"
        return "\n".join([f"{log} ends:", *log.read_text(errors="replace").splitlines()[-20:]])


def _write(path: Path, text: str) -> None:
    """In one move, and for nobody else to read."""
    part = path.with_name(f"{path.name}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def _free_port(taken: set[int]) -> int:
    """A port that nobody listens on, below those that the system gives to whoever connects to somewhere."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in taken:
                return port


def _answers(address: str, method: str = "GET") -> bool:
    request = urllib.request.Request(address, method=method)
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()
    except OSError:
        return False
    return True
