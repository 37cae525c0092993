"""The full local stack, and what kills its parts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.infra import stack as local
from tests.soak.loop import ENVIRONMENT, ROOT

MARK = "GEOSSL_STACK"
"""Environment variable of every process that the stack has started, or that these have."""
KINDS = ("postgres", "dask-scheduler", "dask-worker", "prefect-server", "mlflow-server", "worker")
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE = 900.0
"""Seconds in which the loop has to come to rest."""


class Stack:
    """PostgreSQL, Prefect server and worker, Dask, MLflow: processes of this machine, kept in one folder."""

    def __init__(self, folder: Path, say: Callable[..., None]) -> None:
        self.folder = folder
        self.say = say
        self._changing = threading.Lock()

    def up(self) -> None:
        """Start what does not run, and wait until all is well."""
        only = [word for kind in KINDS for word in ("--only", kind)]
        self._local("up", "--pool", "soak", "--dask-workers", "1", *only)

    def down(self) -> None:
        self._local("down")

    def kill(self, name: str) -> None:
        self._local("kill", name)

    def lose_databases(self) -> None:
        """Everything that Prefect and MLflow know is gone; the project's store is not."""
        self.down()
        for name in ("postgres", "prefect", "mlflow"):
            shutil.rmtree(self.folder / name)
        self.up()

    def _local(self, verb: str, *words: str) -> None:
        with self._changing:
            local.local(verb, self.folder, *words)

    @property
    def environment(self) -> dict[str, str]:
        """What whoever uses the services has to know."""
        return ENVIRONMENT | local.environment(self.folder)

    def geossl(self, *words: str) -> str:
        """A command of geossl, as an operator gives it."""
        command = [sys.executable, "-c", "from geossl.cli.app import main; main()", *words]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"geossl {' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def processes(self, *words: str) -> list[int]:
        """Processes of the stack, and of what it has started, whose command has one of the words; all without any."""
        wanted, found = f"{MARK}={self.folder.resolve()}".encode(), []
        for path in Path("/proc").iterdir():
            if not path.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if wanted in (path / "environ").read_bytes().split(b"\0"):
                    command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if not words or any(word in command for word in words):
                        found.append(int(path.name))
        return found

    def await_rest(self, project: str) -> None:
        """Until all flows have had a turn, one after the other: then there is nothing left to do."""
        deadline = time.monotonic() + PATIENCE
        for flow in ("watch", "retrain", "publish"):
            while not self._had_its_turn(flow, f"{project}-{flow}", deadline):
                assert time.monotonic() < deadline, f"no {flow} came to its end within {PATIENCE:.0f} s"
                time.sleep(2)
            self.say(f"    {flow} has had its turn")

    def _had_its_turn(self, flow: str, deployment: str, deadline: float) -> bool:
        """Start a run and wait for its end; False where it failed, or where its server was killed."""
        try:
            there = self._ask(f"deployments/name/geossl-{flow}/{deployment}")
            run = self._ask(f"deployments/{there['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
            while (state := self._ask(f"flow_runs/{run['id']}")["state_type"]) not in FINAL:
                if time.monotonic() > deadline:
                    return False
                time.sleep(1)
        except (OSError, http.client.HTTPException):  # an error of the server is one, too
            return False
        return bool(state == "COMPLETED")

    def _ask(self, path: str, content: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.environment['PREFECT_API_URL']}/{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return json.load(answer)


SERVICES = ("prefect-server", "worker-1", "postgres", "dask-worker-1", "dask-scheduler", "mlflow-server")
RUNS = {
    "flow": ("flow-run execute", "prefect.engine", "prefect.flow_engine"),
    "trainer": ("geossl.project.rank", "torchrun"),
}
"""What a command of theirs holds."""


class Chaos(threading.Thread):
    """Kills services, flows and trainers by SIGKILL, in a random order in which all have their turn; services are
    started again a moment later."""

    def __init__(self, stack: Stack, seed: int, pause: tuple[float, float]) -> None:
        super().__init__(daemon=True)
        self.stack = stack
        self.pause = pause
        self.killed: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._rng = random.Random(seed)
        self._deck: list[str] = []
        self._calm = threading.RLock()
        self._over = threading.Event()

    def run(self) -> None:
        try:
            while not self._over.wait(self._rng.uniform(*self.pause)):
                with self._calm:
                    self._strike()
        except BaseException as error:
            self.error = error

    def _strike(self) -> None:
        """Kill the next of the deck that is there to be killed."""
        if not self._deck:
            self._deck = [*SERVICES, *RUNS, *RUNS]
            self._rng.shuffle(self._deck)
        for victim in self._deck:
            if victim in SERVICES:
                self.stack.kill(victim)
                self.stack.say(f"    chaos: {victim}")
                time.sleep(self._rng.uniform(0, 8))
                self.stack.up()
            elif running := self.stack.processes(*RUNS[victim]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._rng.choice(running), signal.SIGKILL)
                self.stack.say(f"    chaos: {victim}")
            else:
                continue
            self._deck.remove(victim)
            self.killed[victim] += 1
            return

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Nothing is killed within the block."""
        with self._calm:
            yield

    def end(self) -> None:
        self._over.set()
        if self.is_alive():
            self.join()
        if self.error is not None:
            raise self.error
