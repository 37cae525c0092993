"""A stage is done when it would be given the same again."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from geossl.files import read_json, write_json
from geossl.project.state import State, fingerprint


class _Settings(BaseModel):
    epochs: int = 1
    path: Path = Path("a")


def test_fingerprint_depends_on_values_not_on_order() -> None:
    assert fingerprint(a=1, b=_Settings()) == fingerprint(b=_Settings(), a=1)
    assert fingerprint(a=_Settings(epochs=2)) != fingerprint(a=_Settings())


def test_fingerprint_refuses_what_has_no_stable_form() -> None:
    with pytest.raises(TypeError, match="object"):
        fingerprint(a=object())


def test_stage_is_fresh_only_for_the_same_key(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.recording("stats", "k1") as result:
        result["n"] = 3
    fresh = state.fresh("stats", "k1")
    assert fresh is not None
    assert fresh.result == {"n": 3}
    assert state.fresh("stats", "k2") is None
    assert state.fresh("pretrain", "k1") is None


def test_interrupted_stage_leaves_the_last_record(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.recording("stats", "k1"):
        pass
    with pytest.raises(KeyboardInterrupt), state.recording("stats", "k2"):
        raise KeyboardInterrupt
    assert state.fresh("stats", "k1") is not None


def test_records_are_in_order_of_time(tmp_path: Path) -> None:
    state = State(tmp_path)
    for name in ("b", "a", "c"):
        with state.recording(name, "k"):
            pass
    assert [record.stage for record in state.records()] == ["b", "a", "c"]


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_what_a_killed_writer_left_is_no_record(tmp_path: Path) -> None:
    state = State(tmp_path)
    with state.recording("stats", "k"):
        pass
    (state.folder / ".partial-1-map.json").write_text('{"stage": "map", "ke')
    assert [record.stage for record in state.records()] == ["stats"]
