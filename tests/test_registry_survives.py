"""The gate over many challengers, and a registry whose writer is killed at any moment."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geossl.mirror import Mirror
from geossl.registry import Decision, Registry, gate
from geossl.scores import Interval, macro_f1

MARGIN = 0.01
PASSED = Decision(True, (), "macro_f1", MARGIN, 40, True, Interval(0.02, 0.01, 0.03), Interval(0.02, 0.01, 0.03))
FAILED = replace(PASSED, passed=False, reasons=("it may be worse",))


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow takes seconds to make its database; what it shows is tested on its own."""
    monkeypatch.setattr(Mirror, "update", lambda *_: None)


class World:
    """Gate blocks on which models of any skill make mistakes; what is hard for one is hard for all."""

    def __init__(self, seed: int, blocks: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = (blocks, 2)
        self.hard = self.rng.normal(0, 0.03, self.shape)

    def counts(self, skill: float, pixels: int = 4000) -> NDArray[np.int64]:
        """(B, 2, 2) confusions of a model that is right with this probability, and has a taste of its own."""
        right = np.clip(skill + self.hard + self.rng.normal(0, 0.003, self.shape), 0, 1)
        hits = self.rng.binomial(pixels, right)
        found = np.zeros((*self.shape, 2), np.int64)
        found[:, [0, 1], [0, 1]], found[:, [0, 1], [1, 0]] = hits, pixels - hits
        return found


def score(counts: NDArray[np.int64]) -> float:
    return float(macro_f1(counts.sum(axis=0)[None])[0])


def test_thirty_challengers_that_are_each_a_little_worse_do_not_add_up() -> None:
    thirty_challengers(seed=1, loss=0.009, blocks=40)


@pytest.mark.slow
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), loss=st.floats(0.001, 0.0095), blocks=st.integers(12, 60))
@example(seed=2, loss=0.001, blocks=60)
def test_thirty_challengers_of_any_kind_do_not_add_up(seed: int, loss: float, blocks: int) -> None:
    thirty_challengers(seed, loss, blocks)


def thirty_challengers(seed: int, loss: float, blocks: int) -> None:
    """Each is worse than the one before by less than the margin, thirty of them by far more."""
    world = World(seed, blocks)
    known = {1: world.counts(0.85)}
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        registry.register("cover", registry.store / "1")
        skill, passed = 0.85, 0
        for number in range(2, 32):
            skill -= loss
            known[number] = world.counts(skill)
            registry.register("cover", registry.store / str(number))
            aliases = registry.aliases("cover")
            decision = gate(
                known[number], known[aliases["champion"]], known[aliases["anchor"]], healthy=True, margin=MARGIN
            )
            registry.decide("cover", number, decision)
            passed += decision.passed
            champion = registry.find("cover", "champion")
            assert champion is not None
            # on the gate's own blocks the lower end of the interval, so certainly the score itself, is within a margin
            assert score(known[champion.number]) > score(known[1]) - MARGIN
        assert registry.aliases("cover")["anchor"] == 1
        assert len(registry.decisions("cover")) == 30
        assert passed * loss <= 2 * MARGIN, "true skill: most of thirty steps downhill were refused"


def test_a_worse_challenger_is_refused_and_says_why(tmp_path: Path) -> None:
    world = World(0, 40)
    registry = Registry(tmp_path)
    for number in (1, 2):
        registry.register("cover", tmp_path / str(number))
    good, worse = world.counts(0.85), world.counts(0.80)
    registry.decide("cover", 2, gate(worse, good, good, healthy=True))
    assert registry.aliases("cover") == {"champion": 1, "anchor": 1, "challenger": 2}
    [decision] = registry.decisions("cover")
    assert "worse than the champion by 0.0" in decision["decision"]["reasons"][0]
    assert registry.decided("cover", 2)
    registry.register("cover", tmp_path / "3")
    registry.decide("cover", 3, PASSED)
    registry.register("cover", tmp_path / "2")
    assert not registry.decided("cover", 2), "beside another champion it is another question"


# ------------------------------------------------------------------- killed

WRITER = """
import random, sys
from pathlib import Path
from geossl.mirror import Mirror
from geossl.registry import Registry
sys.path.insert(0, sys.argv[3])
from tests.test_registry_survives import FAILED, PASSED
Mirror.update = lambda *_: None
store, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
registry = Registry(store)
print("ready", flush=True)
while True:
    registry.abide("cover")
    number = registry.register("cover", store / f"model-{rng.random()}").number
    act = rng.random()
    if act < 0.6:
        registry.decide("cover", number, PASSED if act < 0.3 else FAILED)
    elif act < 0.8:
        registry.promote("cover", number, why="by hand")
    elif act < 0.9 and registry.find("cover", "previous"):
        registry.rollback("cover", why="it looks wrong")
"""


@pytest.mark.slow
def test_history_is_whole_after_kills_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(0)
    root = str(Path(__file__).parents[1])
    for kill in range(8):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(kill), root]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.15))
            assert writer.poll() is None, "it went on until it was killed"
            writer.kill()
        check(Registry(tmp_path))
    assert Registry(tmp_path).decisions("cover"), "there was something to damage"


def check(registry: Registry) -> None:
    registry.abide("cover")
    for path in registry.folder.rglob("*.json"):
        if not path.name.startswith("."):
            json.loads(path.read_text())
    versions = registry.versions("cover")
    assert [version.number for version in versions] == list(range(1, len(versions) + 1))
    if not (history := registry.history("cover")):
        return
    assert history[-1]["aliases"] == registry.aliases("cover")
    assert {n for entry in history for n in entry["aliases"].values()} <= {v.number for v in versions}
    assert history == sorted(history, key=lambda entry: entry["time"])
    assert registry.find("cover", "champion") is not None
    # every decision that passed made its challenger champion, and nothing else did so in the gate's name
    passed = [
        d
        for d in registry.decisions("cover")
        if d["decision"]["passed"] and d["challenger"] != d["compared_with"]["champion"]
    ]
    promoted = [entry for entry in history if entry["why"].startswith("gate passed")]
    assert [d["challenger"] for d in passed] == [entry["aliases"]["champion"] for entry in promoted]
    for before, after in itertools.pairwise(history):
        old, new = before["aliases"]["champion"], after["aliases"]["champion"]
        assert new == old or after["aliases"].get("previous") in (old, None)


def test_what_was_cut_off_between_two_files_is_done_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)

    def killed_at(method: str, act: Callable[[], object]) -> None:
        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Registry, method, killed)
            with pytest.raises(KeyboardInterrupt):
                act()

    killed_at("_set", lambda: registry.register("cover", tmp_path / "a"))
    assert registry.find("cover", "champion") is None
    registry.register("cover", tmp_path / "a")
    assert registry.aliases("cover") == {"champion": 1, "anchor": 1}

    registry.register("cover", tmp_path / "b")
    killed_at("_promote", lambda: registry.decide("cover", 2, PASSED))
    assert registry.aliases("cover")["champion"] == 1
    registry.abide("cover")
    assert registry.aliases("cover") == {"champion": 2, "previous": 1, "anchor": 1}
    assert registry.history("cover")[-1]["why"].startswith("gate passed: cover-v2-")

    # what a person did since wins
    registry.register("cover", tmp_path / "c")
    killed_at("_promote", lambda: registry.decide("cover", 3, PASSED))
    state = registry.folder / "aliases" / "cover.json"
    content = json.loads(state.read_text())
    content["aliases"] = {"champion": 1, "anchor": 1, "challenger": 3}
    state.write_text(json.dumps(content))
    registry.abide("cover")
    assert registry.aliases("cover")["champion"] == 1
