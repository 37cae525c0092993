"""A real Prefect server and its workers, as processes that tests start, kill and start again.

::

    with server(folder) as prefect, prefect.reached():         # on SQLite
        with prefect.worker("my-pool") as worker:
            …                                                  # flows and clients of this process use it
            worker.kill()                                      # -9, the worker alone
            prefect.kill(); prefect.start()                    # its database is kept

    with postgres(folder) as database, server(folder, database.url) as prefect: …

Ports are free ones of loopback, everything lies below ``folder``, nothing is reported anywhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

POSTGRES = Path("/usr/lib/postgresql/15/bin")
CHECKOUT = Path(__file__).parents[2]

QUICK = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
}
"""What every process here is told."""


class Process:
    """A process with its log, which can be killed and started again."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self.log = log
        self.environment = dict(environment)
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._running is not None, f"{self.command} is not running"
        return self._running.pid

    def start(self) -> None:
        """Start it, in a session of its own; its output is appended to the log."""
        # it dies with this process too, however that ends
        tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with self.log.open("ab") as output:
            self._running = subprocess.Popen(
                [*tied, *self.command], env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

    def kill(self) -> None:
        """Kill -9: this process alone, so that what it started is orphaned as it would be elsewhere."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._running is not None
        self._running.wait(10)

    def stop(self) -> None:
        """Ask it to end, then end whatever is left of it and of what it started."""
        if self._running is None:
            return
        left = _family(self._running.pid)
        self._running.terminate()
        try:
            self._running.wait(15)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait(10)
        for process in left + _of_session(self._running.pid):
            if process.is_running():
                process.kill()
        self._running = None

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class PrefectServer(Process):
    """A Prefect server on a port of its own."""

    def __init__(self, folder: Path, database: str | None, auth: str | None, more: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.auth = auth
        self.api = f"http://127.0.0.1:{self.port}/api"
        home = folder / "prefect-home"
        home.mkdir(parents=True, exist_ok=True)
        environment = os.environ | QUICK | {
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_UI_API_URL": self.api,
            "PREFECT_API_DATABASE_CONNECTION_URL": database or f"sqlite+aiosqlite:///{home}/prefect.db",
        }  # fmt: skip
        if auth is not None:
            environment["PREFECT_SERVER_API_AUTH_STRING"] = auth
        for name in ("PREFECT_API_URL", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        super().__init__(
            [sys.executable, "-m", "prefect", "server", "start"], folder / "server.log", environment | more
        )

    def client_environment(self) -> dict[str, str]:
        """What a process has to know to work with this server and this checkout; complete, for ``env=``."""
        path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
        told = os.environ | QUICK | {"PYTHONPATH": path} | self._address()
        if self.auth is None:
            told.pop("PREFECT_API_AUTH_STRING", None)
        told.pop("PYTHONDONTWRITEBYTECODE", None)  # each run would compile all that it imports
        return told

    def start(self) -> None:
        """Start it and wait until it answers."""
        super().start()
        assert self._running is not None
        end = time.monotonic() + 240
        while not answers(f"{self.api}/health"):
            if self._running.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the Prefect server does not serve {self.api}:\n{self.said()}")
            time.sleep(0.1)

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Let this process (clients, flows) and those that it starts use this server."""
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings

        before = {name: os.environ.get(name) for name in self._address()}
        os.environ.update(self._address())
        here = {PREFECT_API_URL: self.api, PREFECT_HOME: self.folder / "home", PREFECT_API_AUTH_STRING: self.auth}
        try:
            with temporary_settings(here):
                try:
                    yield
                finally:
                    for sending in (EventsWorker, APILogWorker):  # the next server is not sent what was meant for this
                        sending.drain_all(timeout=10)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    @contextmanager
    def worker(self, pool: str, **environment: str) -> Iterator[Process]:
        """A worker of a pool that exists, from the moment that the server knows it.

        Flow runs are its children; they see ``environment`` too.
        """
        name = f"worker-{free_port()}"
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", name]
        command += ["--install-policy", "never", "--no-create-pool-if-not-found"]
        worker = Process(command, self.folder / f"{name}.log", self.client_environment() | environment)
        worker.start()
        try:
            wait_for(lambda: "started!" in worker.said(), f"the worker of {pool}", seconds=90, log=worker.said)
            yield worker
        finally:
            worker.stop()

    def _address(self) -> dict[str, str]:
        told = {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.folder / "home")}
        return told if self.auth is None else told | {"PREFECT_API_AUTH_STRING": self.auth}


@contextmanager
def server(
    folder: Path, database: str | None = None, *, auth: str | None = None, **more: str
) -> Iterator[PrefectServer]:
    """A Prefect server that answers.

    Parameters
    ----------
    folder:
        Its home, its log and those of its workers go here.
    database:
        A database such as :func:`postgres` gives; None: SQLite in ``folder``.
    auth:
        ``user:password`` that it asks of clients.
    more:
        Further environment variables of the server.
    """
    prefect = PrefectServer(folder, database, auth, more)
    try:
        prefect.start()
        yield prefect
    finally:
        prefect.stop()


class Postgres:
    """A PostgreSQL cluster of one's own, which trusts this machine; PostgreSQL refuses to run as root."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to other users
        self.port = free_port()
        self.url = f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/prefect"
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._user:
            shutil.chown(self.folder, "postgres", "postgres")
        self._run("initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def create(self, database: str = "prefect") -> None:
        """An empty database with the extension that Prefect asks for."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", database)
        self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database,
                  "-c", "create extension if not exists pg_trgm")  # fmt: skip

    def kill(self) -> None:
        """Kill -9 all of it."""
        postmaster = psutil.Process(int((Path(self._data) / "postmaster.pid").read_text().split()[0]))
        everything = [postmaster, *postmaster.children(recursive=True)]
        for process in everything:
            process.kill()
        psutil.wait_procs(everything, timeout=10)

    def stop(self) -> None:
        running = (Path(self._data) / "postmaster.pid").exists()
        if running and self._call("pg_ctl", "-D", self._data, "status").returncode == 0:
            self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        done = self._call(program, *arguments)
        assert done.returncode == 0, f"{program} {arguments}: {done.stderr.decode()}"

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [*self._user, str(POSTGRES / program), *arguments]
        with tempfile.TemporaryFile() as said:  # a pipe would be kept open by the server that pg_ctl starts
            done = subprocess.run(command, check=False, cwd=self.folder, stdout=said, stderr=said)
            said.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, b"", said.read())


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL with an empty database for Prefect."""
    cluster = Postgres()
    try:
        cluster.start()
        cluster.create()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder)


def has_postgres() -> bool:
    """Whether :func:`postgres` can run here."""
    return (POSTGRES / "initdb").exists()


def wait_for[T](
    ask: Callable[[], T | None], what: str, *, seconds: float = 120, log: Callable[[], str] | None = None
) -> T:
    """The first true answer to a question that is asked again and again."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {seconds:g} s" + (f":\n{log()}" if log else ""))
        time.sleep(0.2)
    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: str) -> bool:
    """Whether a server answers there, whatever it says."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _of_session(session: int) -> list[psutil.Process]:
    """What a killed process has left behind in its session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                found.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return found
