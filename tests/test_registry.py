"""The gate's verdicts, and a registry that its JSON files alone can bring back."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geossl.errors import StoreError
from geossl.files import write_json
from geossl.mirror import Mirror
from geossl.registry import Decision, Registry, gate
from geossl.scores import Interval, paired_bootstrap, score_row
from geossl.scores import macro_f1 as metric_macro_f1


def blocks(accuracy, n=40, seed=0, pixels=2000):
    """(n, 2, 2) confusions of a model that is right with some probability, varying from block to block."""
    rng = np.random.default_rng(seed)
    right = rng.binomial(pixels, np.clip(accuracy + rng.normal(0, 0.02, (n, 2)), 0, 1))
    counts = np.zeros((n, 2, 2), np.int64)
    counts[:, [0, 1], [0, 1]] = right
    counts[:, [0, 1], [1, 0]] = pixels - right
    return counts


def test_a_better_challenger_passes_with_all_figures():
    champion, challenger = blocks(0.80), blocks(0.85)
    decision = gate(challenger, champion, champion, healthy=True)
    assert decision.passed
    assert decision.reasons == ()
    assert decision.blocks == 40
    expected = paired_bootstrap(challenger, champion, metric_macro_f1)
    assert decision.champion == decision.anchor == expected
    assert 0.03 < expected.low < expected.mean < expected.high < 0.07


def test_an_equal_challenger_is_not_worse():
    assert gate(blocks(0.8), blocks(0.8), blocks(0.8), healthy=True).passed


def test_a_worse_challenger_fails_and_the_margin_decides():
    champion, challenger = blocks(0.80), blocks(0.77)
    decision = gate(challenger, champion, blocks(0.7), healthy=True)
    assert not decision.passed
    assert len(decision.reasons) == 1
    assert "worse than the champion by 0.03" in decision.reasons[0]
    assert gate(challenger, champion, blocks(0.7), healthy=True, margin=0.05).passed


def test_an_uncertain_challenger_fails_although_its_mean_is_higher():
    champion, challenger = blocks(0.80), blocks(0.80)
    challenger[:5], champion[:5] = blocks(0.2, 5), blocks(0.9, 5)
    challenger[5:] = blocks(0.92, 35)
    decision = gate(challenger, champion, blocks(0.1), healthy=True)
    assert decision.champion.mean > 0
    assert not decision.passed


def test_many_small_losses_do_not_add_up():
    """Each step is within the margin of the champion; the anchor stops the walk downhill."""
    anchor = champion = blocks(0.8)
    steps = 0
    while (decision := gate(challenger := blocks(0.8 - 0.004 * (steps + 1)), champion, anchor, healthy=True)).passed:
        champion, steps = challenger, steps + 1
    assert 1 <= steps <= 3
    assert decision.champion.low > -0.01
    assert "worse than the anchor" in decision.reasons[0]


def test_health_must_hold():
    decision = gate(blocks(0.9), blocks(0.8), blocks(0.8), healthy=False)
    assert not decision.passed
    assert decision.reasons == ("its training was not healthy",)


def test_few_blocks_allow_no_claim():
    champion, challenger = blocks(0.5), blocks(0.9)
    champion[11:] = challenger[11:] = 0  # blocks without labels do not count
    decision = gate(challenger, champion, champion, healthy=True)
    assert not decision.passed
    assert decision.blocks == 11
    assert decision.champion.low is None
    assert "11 gate blocks" in decision.reasons[0]


@settings(max_examples=25, deadline=None)
@given(st.floats(0.55, 0.95), st.floats(0.55, 0.95), st.integers(12, 30), st.sampled_from([0.0, 0.01, 0.1]))
def test_passing_means_that_both_lower_bounds_are_above_the_margin(a, b, n, margin):
    decision = gate(blocks(a, n, 1), blocks(b, n, 2), blocks(0.7, n, 3), healthy=True, margin=margin)
    assert decision.passed == (min(decision.champion.low, decision.anchor.low) > -margin)


def test_change_is_judged_by_average_precision():
    def histograms(separation):
        rng = np.random.default_rng(0)
        counts = np.zeros((20, 2, 64), np.int64)
        for block in range(20):
            for side, centre in enumerate((20, 20 + separation)):
                scores = np.clip(rng.normal(centre, 6, 100 * (10 - 9 * side)), 0, 63).astype(int)
                counts[block, side] = np.bincount(scores, minlength=64)
        return counts

    good, bad = histograms(25), histograms(8)
    assert gate(good, bad, bad, healthy=True, metric="average_precision").passed
    assert not gate(bad, good, bad, healthy=True, metric="average_precision").passed


PASSED = Decision(True, (), "macro_f1", 0.01, 40, True, Interval(0.02, 0.01, 0.03), Interval(0.02, 0.01, 0.03))
FAILED = replace(PASSED, passed=False, reasons=("it may be worse",), champion=Interval(float("nan")))
ROW = score_row(task="cover", split="test", labels=100, model="LDA (+ 3×3)", metric="macro_f1", interval=Interval(0.3))


def without_mirror(monkeypatch):
    monkeypatch.setattr(Mirror, "update", lambda *_: None)


@pytest.fixture
def no_mirror(monkeypatch):
    """MLflow takes seconds to make its database; what it shows is tested on its own."""
    without_mirror(monkeypatch)


@pytest.fixture
def store(tmp_path):
    for name in "abc":
        (tmp_path / "tasks" / "cover" / name).mkdir(parents=True)
    return tmp_path


def register(store, name, **options):
    return Registry(store).register("cover", store / "tasks" / "cover" / name, **options)


@pytest.mark.usefixtures("no_mirror")
def test_the_first_model_is_champion_and_anchor_the_next_challenger(store):
    first = register(store, "a", scores=[ROW], card={"encoder": "e1"})
    assert (first.number, first.folder) == (1, "tasks/cover/a")
    registry = Registry(store)
    assert registry.aliases("cover") == {"champion": 1, "anchor": 1}
    second = register(store, "b")
    assert registry.aliases("cover") == {"champion": 1, "anchor": 1, "challenger": 2}
    assert registry.versions("cover") == [first, second]
    assert registry.find("cover", "champion") == first
    assert registry.find("cover", "previous") is None
    assert registry.tasks() == ["cover"]
    assert register(store, "a") == first, "registering again changes nothing"
    assert len(registry.history("cover")) == 2
    registry.promote("cover", 2, why="by hand")
    assert register(store, "a") == first
    assert registry.aliases("cover") == {"champion": 2, "previous": 1, "anchor": 1, "challenger": 1}
    assert len(registry.versions("cover")) == 2


@pytest.mark.usefixtures("no_mirror")
def test_a_passed_gate_promotes_and_a_failed_one_does_not(store):
    registry = Registry(store)
    register(store, "a")
    register(store, "b")
    path = registry.decide("cover", 2, FAILED)
    assert registry.aliases("cover")["champion"] == 1
    content = json.loads(path.read_text(), parse_constant=pytest.fail)  # no NaN, which is not JSON
    assert content["compared_with"] == {"champion": 1, "anchor": 1}
    assert content["decision"]["champion"] == {"mean": None, "low": None, "high": None}
    assert content["decision"]["reasons"] == ["it may be worse"]

    path = registry.decide("cover", 2, PASSED)
    assert registry.aliases("cover") == {"champion": 2, "previous": 1, "anchor": 1}
    assert [entry["challenger"] for entry in registry.decisions("cover")] == [2, 2]
    assert [entry["decision"]["passed"] for entry in registry.decisions("cover")] == [False, True]
    assert path.name in registry.history("cover")[-1]["why"]
    assert registry.decisions("cover")[1]["compared_with"]["champion"] == 1


@pytest.mark.usefixtures("no_mirror")
@pytest.mark.parametrize("write", range(6))
def test_whatever_is_cut_off_the_same_calls_bring_to_its_end(store, monkeypatch, write):
    """Killed at its first, second … write, with what a kill leaves of a file, and called again."""

    def story():
        registry = Registry(store)
        registry.abide("cover")
        if registry.find("cover", "champion") is None:
            registry.register("cover", store / "tasks" / "cover" / "a")
        registry.register("cover", store / "tasks" / "cover" / "b")
        if 2 not in {entry["challenger"] for entry in registry.decisions("cover")}:
            registry.decide("cover", 2, PASSED)

    left, real = write, write_json

    def killed(path, content):
        nonlocal left
        if left == 0:
            partial = path.with_name(f".partial-1-{path.name}")
            real(partial, content)
            partial.write_bytes(partial.read_bytes()[:-20])
            raise KeyboardInterrupt
        left -= 1
        real(path, content)

    monkeypatch.setattr("geossl.registry.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        story()
    monkeypatch.setattr("geossl.registry.write_json", real)
    story()
    registry = Registry(store)
    assert registry.tasks() == ["cover"]
    assert [version.number for version in registry.versions("cover")] == [1, 2]
    assert registry.aliases("cover") == {"champion": 2, "previous": 1, "anchor": 1}
    assert len(registry.decisions("cover")) == 1
    registry.rollback("cover", why="a person")
    registry.abide("cover")
    assert registry.aliases("cover")["champion"] == 1, "what a person undid stays undone"


@pytest.mark.usefixtures("no_mirror")
def test_rollback_returns_to_the_previous_champion_once(store):
    registry = Registry(store)
    register(store, "a")
    register(store, "b")
    with pytest.raises(StoreError, match="no previous champion"):
        registry.rollback("cover", why="maps look wrong")
    registry.promote("cover", 2, why="by hand")
    assert registry.rollback("cover", why="maps look wrong").number == 1
    assert registry.aliases("cover") == {"champion": 1, "anchor": 1}
    assert [entry["why"] for entry in registry.history("cover")][-2:] == ["by hand", "maps look wrong"]
    with pytest.raises(StoreError, match="no previous champion"):
        registry.rollback("cover", why="again")
    registry.pin_anchor("cover", 2, why="new reference")
    assert registry.aliases("cover") == {"champion": 1, "anchor": 2}


@pytest.mark.usefixtures("no_mirror")
def test_promoting_another_version_leaves_the_challenger(store):
    registry = Registry(store)
    for name in "abc":
        register(store, name)
    registry.promote("cover", 2, why="by hand")
    assert registry.aliases("cover") == {"champion": 2, "previous": 1, "anchor": 1, "challenger": 3}
    registry.promote("cover", 2, why="twice")
    assert registry.aliases("cover")["previous"] == 1
    with pytest.raises(StoreError, match=r"no version 9\n.*1, 2, 3"):
        registry.promote("cover", 9, why="no such thing")


@pytest.mark.usefixtures("no_mirror")
def test_concurrent_registrations_get_numbers_of_their_own(store):
    folders = [store / "tasks" / "cover" / str(i) for i in range(8)]
    threads = [threading.Thread(target=Registry(store).register, args=("cover", folder)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = Registry(store).versions("cover")
    assert [version.number for version in versions] == list(range(1, 9))
    assert len({version.folder for version in versions}) == 8


def test_mlflow_is_brought_back_from_the_json_files_and_then_follows(store, tmp_path_factory, monkeypatch):
    from mlflow import MlflowClient

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    with monkeypatch.context() as patch:
        without_mirror(patch)
        register(store, "a", scores=[ROW, {**ROW, "metric": "accuracy", "mean": float("nan")}])
        register(store, "b", scores=[{**ROW, "mean": 0.4}])
        Registry(store).promote("cover", 2, why="by hand")

    moved = tmp_path_factory.mktemp("moved") / "store"
    shutil.copytree(store, moved)
    registry = Registry(moved)
    assert registry.versions("cover") == Registry(store).versions("cover")
    registry.mirror()
    registry.mirror()
    client = MlflowClient(*[f"sqlite:///{moved}/registry/mlflow.db"] * 2)

    def mirrored():
        return {alias: int(number) for alias, number in client.get_registered_model("cover").aliases.items()}

    assert mirrored() == {"champion": 2, "previous": 1, "anchor": 1}
    assert len(client.search_model_versions("name = 'cover'")) == 2
    metrics = {}
    for alias in ("anchor", "champion"):
        version = client.get_model_version_by_alias("cover", alias)
        metrics[alias] = list(client.get_run(version.run_id).data.metrics.values())
    assert metrics == {"anchor": [0.3], "champion": [0.4]}
    assert version.source.removeprefix("file:").lstrip("/") == str(moved / "tasks/cover/b").lstrip("/")

    registry.register("cover", moved / "tasks" / "cover" / "c")
    assert mirrored() == {"champion": 2, "previous": 1, "anchor": 1, "challenger": 3}
    registry.promote("cover", 3, why="by hand")
    registry.rollback("cover", why="maps look wrong")
    assert mirrored() == registry.aliases("cover") == {"champion": 2, "anchor": 1}
    assert not list(elsewhere.iterdir()), "nothing is left in the working folder"


def test_a_broken_mirror_does_not_stop_the_registry(store, monkeypatch, caplog):
    def broken(*_):
        raise OSError("database is locked")

    monkeypatch.setattr(Mirror, "update", broken)
    register(store, "a")
    assert Registry(store).aliases("cover") == {"champion": 1, "anchor": 1}
    assert "could not be updated" in caplog.text
