from __future__ import annotations

import csv
import math
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.nn import functional as F

from geossl.augment import Normalize
from geossl.errors import TrainingError
from geossl.methods.method import Method
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings
from geossl.nets.weights import load_encoder
from geossl.train.launch import determinism, memory_kept, placement, threads, unfuse_attention
from geossl.train.module import learning_rate

from .synthetic import SENSOR, STATISTICS, Places, run


def test_the_encoder_file_says_how_it_came_about(undisturbed: Path) -> None:
    encoder, card = load_encoder(undisturbed)
    assert card.sensor == SENSOR
    assert card.statistics == STATISTICS
    assert card.snapshot == "SNAPSHOT"
    assert card.settings["epochs"] == 3
    assert card.architecture.image == 16  # the chips' side
    assert card.id.startswith("simclr-unet-tiny-")
    assert not encoder.training


def test_training_changes_the_encoder_and_the_seed_decides(tmp_path: Path, undisturbed: Path) -> None:
    content = (undisturbed / "encoder.safetensors").read_bytes()
    run(tmp_path / "again")
    assert (tmp_path / "again" / "encoder.safetensors").read_bytes() == content
    run(tmp_path / "other", seed=1)
    assert (tmp_path / "other" / "encoder.safetensors").read_bytes() != content


def test_a_running_mean_of_the_weights_is_saved(tmp_path: Path, undisturbed: Path) -> None:
    each: list[dict[str, torch.Tensor]] = []
    after_step = Method.after_step

    def remember(self: Method, step: int, max_steps: int) -> None:
        each.append({name: value.clone() for name, value in self.encoder.state_dict().items()})
        after_step(self, step, max_steps)

    with mock.patch.object(Method, "after_step", remember):
        run(tmp_path, ema=0.8)
    weights = {n: (1 if n < 5 else 0.2) for n in range(15)}  # the first five steps count alike, then each of them less
    shares = [
        weight * math.prod([0.8] * sum(later >= 5 for later in range(n + 1, 15))) for n, weight in weights.items()
    ]
    shares[:5] = [share / 5 for share in shares[:5]]
    assert sum(shares) == pytest.approx(1)
    saved = load_encoder(tmp_path)[0].state_dict()
    last = load_encoder(undisturbed)[0].state_dict()
    for name, value in saved.items():
        torch.testing.assert_close(each[-1][name], last[name])  # the training itself is the same
        if value.is_floating_point():
            mean = sum(share * state[name] for share, state in zip(shares, each, strict=True))
            torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(value, last[name]) for name, value in saved.items())


def test_it_leaves_torch_as_it_was(tmp_path: Path) -> None:
    state, count = torch.get_rng_state(), torch.get_num_threads()
    run(tmp_path, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == count


def test_history_and_progress_grow_while_it_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int | None, int]] = []
    notes: list[str] = []

    def progress(what: str, done: int, total: int | None, note: str = "") -> None:
        lines = (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()
        seen.append((done, total, len(lines) - 1))
        notes.append(note)

    run(tmp_path, Places(batches=12), progress=progress, epochs=2)
    assert [done for done, _, _ in seen] == list(range(1, 25))
    assert {total for _, total, _ in seen} == {24}
    assert [rows for done, _, rows in seen if done in (9, 10, 20, 24)] == [0, 1, 2, 3]
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert math.isfinite(float(last["loss"]))
    assert 0 < float(last["learning_rate"]) < 1e-4  # the cosine is nearly down
    assert float(last["chips_per_s"]) > 0
    assert 0 <= float(last["waiting"]) < 1
    assert 50 < float(last["memory_mb"]) < 50_000
    assert notes[8] == ""  # nothing was measured yet
    assert re.fullmatch(r"[\d,]+ chips/s, \d+% of the time without a batch, [\d,]+ MB", notes[-1])
    out = capfd.readouterr()
    assert out.out == out.err == ""


class Slow(Places):
    """Batches that take longer than a step."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in super().__iter__():
            time.sleep(0.3)
            yield batch


def test_waiting_is_the_share_of_the_time_in_which_there_was_no_batch(tmp_path: Path) -> None:
    rows: list[Mapping[str, Any]] = []
    began = time.perf_counter()
    run(tmp_path, Slow(batches=10), epochs=1, log=rows.append)
    seconds = time.perf_counter() - began
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert 2.5 / seconds < float(row["waiting"]) < 1
    assert [{k: str(v) for k, v in told.items()} for told in rows] == [{k: v for k, v in row.items() if k in rows[0]}]


def test_chips_are_normalised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    forward = Normalize.forward

    def watch(self: Normalize, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        assert image.dtype == torch.int16
        seen.append(forward(self, image, valid))
        return seen[-1]

    monkeypatch.setattr(Normalize, "forward", watch)
    run(tmp_path, epochs=1)
    assert len(seen) == 5
    assert abs(torch.cat(seen).mean()) < 0.3
    assert 0.4 < torch.cat(seen).std() < 1.5


def test_pairs_of_dates(tmp_path: Path) -> None:
    season = {"name": "simclr", "pairs": "season"}
    assert run(tmp_path / "a", Places(pairs=True), method=season, epochs=1).method == "simclr"
    with pytest.raises(TrainingError, match=r"simclr wants 2 date\(s\) of 3 bands"):
        run(tmp_path / "b", Places(), method=season, epochs=1)
    with pytest.raises(TrainingError, match=r"wants 1 date\(s\)"):
        run(tmp_path / "c", Places(pairs=True), epochs=1)


def test_a_loader_without_chips_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no chips"):
        run(tmp_path, Places(batches=0))


def test_bf16_trains_too(tmp_path: Path) -> None:
    assert run(tmp_path, precision="bf16", epochs=1).health["std"] > 0.1


def test_the_clock_stops_it_with_an_encoder(tmp_path: Path) -> None:
    loader = Places(batches=1000)
    card = run(tmp_path, loader, minutes=0.01, epochs=50)
    assert card.id
    assert 0 < len(loader.handed_out) < 1000


def test_the_schedule() -> None:
    rates = [learning_rate(done / 100, 2.0, 0.1) for done in range(101)]
    assert rates.index(max(rates)) == 10
    assert max(rates) == pytest.approx(2)
    assert rates[5] == pytest.approx(1)
    assert rates[55] == pytest.approx(1)  # half of the way down
    assert rates[100] == pytest.approx(0, abs=1e-9)
    assert 0 < rates[0] < 0.1
    assert learning_rate(0, 2.0, 0) == pytest.approx(2)
    assert learning_rate(1.2, 2.0, 0.1) == pytest.approx(0, abs=1e-9)


def test_placement_follows_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert placement("32")["strategy"] == "auto"
    assert placement("32")["precision"] == "32-true"
    assert placement("bf16")["precision"] == "bf16-mixed"
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    there = placement("32")
    assert (there["strategy"], there["devices"], there["num_nodes"]) == ("ddp", 4, 2)
    assert there["sync_batchnorm"] == torch.cuda.is_available()


def test_plain_attention_is_the_fused_one() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name="vit-tiny", image=32), 3)
    image = torch.randn(2, 3, 32, 32)
    fused = encoder(image).pooled
    unfuse_attention(encoder)
    with mock.patch.object(F, "scaled_dot_product_attention", side_effect=AssertionError("is fused")):
        plain = encoder(image).pooled
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=0)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_memory_that_is_kept_is_not_cleared_again() -> None:
    with memory_kept():
        torch.ones(2**22)  # 16 MB
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(2**22)
        # 40960 pages if each were cleared again; one or two may still find no place in what was kept
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 20480


def test_determinism_is_wanted_on_a_gpu_alone_and_given_back() -> None:
    with determinism(True):
        assert torch.are_deterministic_algorithms_enabled() == torch.cuda.is_available()
    assert not torch.are_deterministic_algorithms_enabled()


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_model_leg_stays_light() -> None:
    script = """
import sys
import geossl.train.settings
assert "torch" not in sys.modules
import geossl.train.pretrain
print({"rasterio", "dask", "prefect", "torchgeo", "zarr"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.slow
def test_two_ranks_write_one_encoder(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # with a running mean, whose weights have no gradients to exchange
    command = [*torchrun, "-m", "tests.train.synthetic", str(tmp_path), "0.9"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(step) for step in range(1, 16)]  # the first rank alone speaks
    encoder, card = load_encoder(tmp_path)
    assert card.health["std"] > 0.1
    assert sum(p.numel() for p in encoder.parameters()) > 0
