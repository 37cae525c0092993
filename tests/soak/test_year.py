"""A year of the loop. `make test-soak` prints what happens as it goes."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from geossl.cluster import ClusterSettings, dask_client
from geossl.project.project import Project
from tests.infra import stack as local
from tests.soak import checks, loop
from tests.soak.stack import Chaos, Stack
from tests.soak.world import BETTER, WORSE, Landing, World

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2400)]

SEED = 6
ONE_WORKER = "{ workers: 1 }"


def say(*what: object) -> None:
    """To whoever watches."""
    print(time.strftime("%H:%M:%S"), *what, flush=True)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """In every process that is started, so that the sums of a training are the same sums in each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.write(tmp_path_factory.getbasetemp() / "depot")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The setting that names a cluster which is there, so that no stage has to start one."""
    with dask_client(ClusterSettings(workers=2)) as client:
        yield f"{{ scheduler: '{client.scheduler.address}' }}"


@pytest.fixture(scope="session")
def reference(world: World, cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Where the loop comes to rest when nothing ever goes wrong."""
    return loop.reference(world, tmp_path_factory.mktemp("reference") / "project", cluster)


def test_a_year_that_comes_all_at_once(reference: Project) -> None:
    for check in checks.EVERYTHING:
        if check is not checks.challengers:  # the worse one never was
            check(reference)


def test_a_year_scene_by_scene(world: World, reference: Project, cluster: str, tmp_path: Path) -> None:
    landing = Landing(tmp_path / "project", cluster)
    for arrival in loop.arrive_one_by_one(world, landing):
        say(arrival)
        for result in loop.go_round(landing.folder):
            if not result.skipped:
                say(f"    {result.stage}:", *result.lines[:3])
    project = Project.load(landing.folder)
    checks.at_the_end(project, reference)


def test_a_year_in_which_the_loop_is_killed_at_random(
    world: World, reference: Project, cluster: str, tmp_path: Path
) -> None:
    """The loop is a process; it is killed on its way, again and again, and started anew."""
    landing, rng = Landing(tmp_path / "project", cluster), random.Random(SEED)
    landing.begin(world)
    kills, leaders = 0, set()
    for number, arrival in enumerate(world.year()):
        landing.happen(arrival)
        say(arrival)
        if number % 3 and arrival.edition is None:
            continue  # some come together
        if not kills or rng.random() < 0.8:
            with loop.process(landing.folder) as running:
                running.join(rng.uniform(1, 25))
            leaders.add(running.pid)
            kills += running.exitcode == -signal.SIGKILL
            say("    killed" if running.exitcode == -signal.SIGKILL else f"    ended by itself: {running.exitcode}")
        if not number or arrival.edition is not None:  # the history is learnt; somebody waits for what comes of it
            with loop.process(landing.folder) as running:
                running.join(600)
            assert running.exitcode == 0, (landing.folder / "loop.log").read_text()[-3000:]
    project = Project.load(landing.folder)
    checks.at_the_end(project, reference)
    assert kills >= 5, kills
    assert not loop.left_of(leaders), "an orphan process"


DEPLOY = """\
deploy: { pool: soak, attempts: 10, schedules: { watch: 1m, retrain: 10m, publish: 10m } }
"""


@pytest.fixture
def stack() -> Iterator[Stack]:
    """The local stack, of which nothing may be left."""
    if reason := local.absent():
        pytest.skip(reason)
    with local.folder() as folder:
        stack = Stack(folder, say)
        stack.up()
        yield stack


def test_a_year_of_chaos_on_the_full_stack(world: World, reference: Project, stack: Stack, tmp_path: Path) -> None:
    """Flows of a Prefect server do the work; server, worker, flows, trainers and databases are killed at random."""
    chaos = Chaos(stack, SEED, (15, 45))
    try:
        scheduler = stack.environment["DASK_SCHEDULER_ADDRESS"]
        landing = Landing(
            tmp_path / "project", f"{{ scheduler: '{scheduler}' }}", launch="{ torchrun: { nproc: 1 } }", more=DEPLOY
        )
        landing.begin(world)
        stack.geossl("deploy", "--project", str(landing.folder))
        chaos.start()
        stack.await_rest("soak")  # the history is learnt: now it can be told what is unusual
        arrivals = list(world.year())
        for number, arrival in enumerate(arrivals):
            if number == len(arrivals) // 2:
                with chaos.calm():
                    say("the databases are lost")
                    stack.lose_databases()
                    stack.geossl("deploy", "--project", str(landing.folder))
                    stack.geossl("registry", "rebuild", "--project", str(landing.folder))
            if arrival.edition == BETTER:
                with chaos.calm():
                    stack.await_rest("soak")
            say(arrival)
            landing.happen(arrival)
            if arrival.edition == WORSE:  # somebody waits for what comes of it, whatever is killed meanwhile
                stack.await_rest("soak")
            time.sleep(15)
        chaos.end()
        say(f"killed: {dict(chaos.killed)}")
        stack.await_rest("soak")
    finally:
        chaos.end()
        stack.down()
    assert chaos.killed.keys() >= {"postgres", "prefect-server", "worker-1", "flow", "trainer"}, chaos.killed
    assert not stack.processes(), "an orphan process"
    landing = Landing(landing.folder, ONE_WORKER)  # its scheduler is gone
    landing.edit(BETTER)
    checks.at_the_end(Project.load(landing.folder), reference)
