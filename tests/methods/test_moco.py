from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from geossl.methods.mocov2 import MocoV2
from geossl.methods.mocov3 import MocoV3

from .views import batch_of, build, outputs, view_of


def unit(x: Tensor) -> np.ndarray:
    x = x.detach().double()
    return (x / x.norm(dim=1, keepdim=True)).numpy()


def apart(method: MocoV2 | MocoV3) -> None:
    """Move the momentum encoder away, as training would."""
    for p in method.momentum.parameters():
        p.data += 0.02 * torch.randn_like(p)


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
def test_the_loss_of_v2_is_the_papers_and_lightlys(encoder: str) -> None:
    method: MocoV2 = build("mocov2", encoder, temperature=0.3, queue=20)
    apart(method)
    queries, keys = outputs(method.head), outputs(method.momentum.head)
    loss = method(batch_of(6)).total.item()
    q, k, queue = unit(queries[0]), unit(keys[0]), method.queue.double().numpy()
    total = 0.0
    for i in range(6):
        logits = np.array([q[i] @ k[i], *(q[i] @ old for old in queue)]) / 0.3
        total -= logits[0] - np.log(np.exp(logits).sum())
    assert abs(loss - total / 6) < 1e-5
    reference = NTXentLoss(0.3, memory_bank_size=(20, 128))
    reference.memory_bank.bank.copy_(method.queue)
    assert abs(loss - reference(queries[0], keys[0]).item()) < 1e-5


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
def test_the_loss_of_v3_is_algorithm_1(encoder: str) -> None:
    method: MocoV3 = build("mocov3", encoder, temperature=0.3, hidden=32)
    apart(method)
    queries, keys = outputs(method.predictor), outputs(method.momentum.head)
    loss = method(batch_of(6)).total.item()
    q1, q2 = np.split(unit(queries[0]), 2)
    k1, k2 = np.split(unit(keys[0]), 2)

    def ctr(q: np.ndarray, k: np.ndarray) -> float:
        total = 0.0
        for i in range(6):
            logits = np.array([q[i] @ k[j] for j in range(6)]) / 0.3
            total -= logits[i] - np.log(np.exp(logits).sum())
        return 2 * 0.3 * total / 6

    assert abs(loss - (ctr(q1, k2) + ctr(q2, k1))) < 1e-5


def test_v3_leaves_out_what_was_not_seen_and_what_is_the_same_place() -> None:
    method: MocoV3 = build("mocov3", temperature=0.3, hidden=32, crop=1.0)
    queries, keys = outputs(method.predictor), outputs(method.momentum.head)
    batch = batch_of(5)
    batch["valid"][1] = False
    xy = 1000 * torch.arange(5.0).unsqueeze(1).repeat(1, 2)
    xy[4] = xy[0]
    loss = method(batch | {"xy": xy, "gsd": torch.full((5,), 10.0)}).total.item()
    (q1, q2), (k1, k2) = (np.split(unit(x[0]), 2) for x in (queries, keys))
    negatives = {0: [2, 3], 2: [0, 3, 4], 3: [0, 2, 4], 4: [2, 3]}
    total = 0.0
    for q, k in ((q1, k2), (q2, k1)):
        for i, others in negatives.items():
            logits = np.array([q[i] @ k[j] for j in (i, *others)]) / 0.3
            total -= 2 * 0.3 * (logits[0] - np.log(np.exp(logits).sum())) / 4
    assert abs(loss - total) < 1e-5


def test_the_queue_takes_in_what_was_seen_and_forgets_the_oldest() -> None:
    method: MocoV2 = build("mocov2", queue=7, crop=1.0)
    keys = outputs(method.momentum.head)
    before = method.queue.clone()
    want: list[np.ndarray] = []
    for step in range(1, 5):
        batch = batch_of(4)
        batch["valid"][step % 4] = False
        method(batch)
        assert torch.equal(method.queue, before)  # only with the optimiser's step
        method.after_step(step, 100)
        before = method.queue.clone()
        want += list(np.delete(unit(keys[-1]), step % 4, axis=0))
    rows = [i % 7 for i in range(12)]
    assert method.oldest == 12 % 7
    for row, key in list(zip(rows, want, strict=True))[-7:]:
        np.testing.assert_allclose(method.queue[row].numpy(), key, atol=1e-6)
    method(batch_of(16))  # more than the queue holds: the last ones
    method.after_step(5, 100)
    got = {tuple(row.round(decimals=4).tolist()) for row in method.queue}
    assert got == {tuple(row.round(decimals=4).tolist()) for row in torch.tensor(unit(keys[-1])[-7:]).float()}


def test_a_place_in_the_queue_is_no_negative_of_itself() -> None:
    method: MocoV2 = build("mocov2", temperature=0.3, queue=8)
    queries, keys = outputs(method.head), outputs(method.momentum.head)
    gsd = torch.full((4,), 10.0)
    xy = 1000 * torch.arange(4.0).unsqueeze(1).repeat(1, 2) + 5e6
    method(batch_of(4) | {"xy": xy, "gsd": gsd})
    method.after_step(1, 100)
    # the second of the new places lies a third of a chip from the third old one
    new = torch.tensor([[9e6, 0], [*(xy[2] + torch.tensor([100.0, -90.0])).tolist()]])
    loss = method(batch_of(2) | {"xy": new, "gsd": gsd[:2]}).total.item()
    q, k, queue = unit(queries[-1]), unit(keys[-1]), method.queue.double().numpy()
    total = 0.0
    for i, negatives in ((0, queue), (1, np.delete(queue, 2, axis=0))):
        logits = np.array([q[i] @ k[i], *(q[i] @ old for old in negatives)]) / 0.3
        total -= logits[0] - np.log(np.exp(logits).sum())
    assert abs(loss - total / 2) < 1e-5


@pytest.mark.parametrize("name", ["mocov2", "mocov3"])
def test_the_momentum_encoder_follows_as_another_network(name: str) -> None:
    method = build(name, momentum=0.9)
    fast = [*method.encoder.parameters(), *method.head.parameters()]
    slow = [*method.momentum.encoder.parameters(), *method.momentum.head.parameters()]
    assert not {p.data_ptr() for p in fast} & {p.data_ptr() for p in slow}
    assert not any(p.requires_grad for p in slow)
    assert all(torch.equal(p, q) for p, q in zip(fast, slow, strict=True))
    method.train()
    assert not any(module.training for module in method.momentum.modules())
    for step, want in ((1, 0.9), (50, 0.95), (100, 1.0)):
        assert want == pytest.approx(1 - 0.1 * (math.cos(math.pi * step / 100) + 1) / 2, abs=2e-3)
        before = [p.clone() for p in slow]
        for p in fast:
            p.data.normal_()
        method.after_step(step, 101)
        for old, new, now in zip(before, fast, slow, strict=True):
            share = 1 - 0.1 * (math.cos(math.pi * step / 100) + 1) / 2
            torch.testing.assert_close(now, share * old + (1 - share) * new, atol=1e-6, rtol=0)


def test_keys_do_not_tell_which_batch_they_are_from() -> None:
    method: MocoV2 = build("mocov2")
    batch = batch_of(6)
    for step in range(1, 6):
        method(batch)
        method.after_step(step, 100)
    view = view_of(batch, crop=1.0)
    _, (together,) = method.momentum(view)
    alone = view_of({k: v[:1] for k, v in batch.items()}, crop=1.0)
    alone.image.copy_(view.image[:1])
    _, (key,) = method.momentum(alone)
    torch.testing.assert_close(key[0], together[0], atol=1e-5, rtol=0)


def test_statistics_catch_up_within_tens_of_steps() -> None:
    method: MocoV2 = build("mocov2")
    batch = batch_of(8)
    for step in range(1, 61):
        with torch.no_grad():
            method.encoder(batch["image"])
        method.momentum.follow(method.encoder, method.head, step, 1000)
    fast, slow = (e.state_dict()["backbone.stages.3.4.running_var"] for e in (method.encoder, method.momentum.encoder))
    torch.testing.assert_close(slow, fast, rtol=0.3, atol=0)
