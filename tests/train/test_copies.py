"""Checkpoints in a bucket: a run goes on where another machine was taken away."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from geossl.imagery.buckets import open_bucket
from geossl.nets.weights import load_card
from geossl.train.copies import KEPT, Copies
from tests.cube.s3_servers import BUCKET, moto, reached

from .synthetic import Places, run
from .test_resume import at, interrupt


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with moto() as endpoint, reached(endpoint):
        yield


@pytest.fixture
def uri(server: None) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def names(uri: str) -> list[str]:
    store, prefix = open_bucket(uri)
    return sorted(one["path"] for page in store.list(prefix) for one in page)


def test_another_machine_goes_on(tmp_path: Path, undisturbed: Path, uri: str) -> None:
    for machine, step in enumerate((7, 11)):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(machine), progress=at(step, interrupt), checkpoints=uri)
    assert len(names(uri)) == KEPT
    loader = Places()
    run(tmp_path / "last", loader, checkpoints=uri)
    assert loader.handed_out == [divmod(n, 5) for n in range(11, 15)]
    weights = [folder / "encoder.safetensors" for folder in (tmp_path / "last", undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert load_card(tmp_path / "last").id == load_card(undisturbed).id  # wherever its checkpoints were
    assert not names(uri)  # of a finished run there is nothing to go on with


def test_what_lies_on_disk_and_is_newer_stays(tmp_path: Path, uri: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at(4, interrupt), checkpoints=uri)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at(8, interrupt))
    loader = Places()
    run(tmp_path, loader, checkpoints=uri)
    assert loader.handed_out[0] == divmod(8, 5)


def test_other_settings_are_another_run(tmp_path: Path, uri: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "one", progress=at(7, interrupt), checkpoints=uri)
    loader = Places()
    run(tmp_path / "two", loader, checkpoints=uri, seed=1)
    assert loader.handed_out[0] == (0, 0)
    assert names(uri)  # those of the first are left alone


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"\0" + content[1:]])
def test_a_damaged_copy_is_passed_over(tmp_path: Path, uri: str, damage: object) -> None:
    copies = Copies(uri, "run")
    for step in (1, 2):
        (tmp_path / "file").write_bytes(f"step {step}".encode())
        copies.put(tmp_path / "file", step)
        copies.wait()
    store, _ = open_bucket(uri)
    newest = names(uri)[-1]
    store.put(newest, damage(bytes(store.get(newest).bytes())))  # type: ignore[operator]
    assert copies.fetch(tmp_path / "got", 0)
    assert (tmp_path / "got").read_bytes() == b"step 1"
    assert not copies.fetch(tmp_path / "got", 1)


def test_a_bucket_that_cannot_be_written_does_not_end_a_training(
    tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    copies = Copies(uri.replace(BUCKET, "no-such-bucket"), "run")
    (tmp_path / "file").write_bytes(b"step")
    copies.put(tmp_path / "file", 1)
    copies.wait()
    assert "cannot be reached" in caplog.text
