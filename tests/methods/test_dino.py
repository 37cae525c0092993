from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss
from lightly.loss.swav_loss import sinkhorn as lightlys_sinkhorn
from lightly.models.modules import DINOProjectionHead
from torch import Tensor, nn

from geossl.methods.dino import Dino, Head, between_views, blobs, ground, hide, sinkhorn, standardise, within_views
from geossl.methods.pairs import View
from geossl.methods.settings import DinoSettings

from .views import SIDE, batch_of, build, outputs, view_of

SMALL: dict[str, Any] = {"hidden": 32, "projection": 16, "prototypes": 24}
Floats = np.ndarray[Any, np.dtype[np.float64]]


def built(encoder: str = "unet-tiny", **settings: Any) -> Dino:
    """A method whose teacher is not its student, with an encoder that normalises by running statistics."""
    method: Dino = build("dino", encoder, **SMALL | settings)
    for p in method.momentum.parameters():
        p.data += 0.02 * torch.randn_like(p)
    return method.eval()


def inputs(method: Dino, batch: dict[str, Any]) -> tuple[View, View, list[View], Tensor, Tensor]:
    """Two views, two local ones, noise, and shares of which one is nothing."""
    views = view_of(batch), view_of(batch)
    side = SIDE // method.stride
    share = torch.linspace(0, 0.5, 2 * len(batch["image"]))
    return *views, method.local_views(batch), blobs(len(share), side, side, torch.device("cpu")), share


def log_softmax(x: Floats) -> Floats:
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def shared_out(similarity: Floats, counted: Floats, rounds: int = 3) -> Floats:
    """Sinkhorn-Knopp as SwAV and DINOv2 compute it, over the rows that count."""
    out = np.zeros_like(similarity)
    q = np.exp(similarity[counted] / 0.05).T
    q /= q.sum()
    prototypes, rows = q.shape
    for _ in range(rounds):
        q /= q.sum(axis=1, keepdims=True) * prototypes
        q /= q.sum(axis=0, keepdims=True) * rows
    out[counted] = (q * rows).T
    return out


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
def test_the_loss_is_that_of_the_papers_written_out(encoder: str) -> None:
    method = built(encoder)
    batch = batch_of(5)
    batch["valid"][1] = False
    batch["valid"][2, :, : SIDE // 2] = False
    first, second, local, noise, share = inputs(method, batch)
    images, cells = outputs(method.heads.images), outputs(method.heads.cells)
    aims, aims_of_cells = (outputs(head) for head in method.momentum.head.children())
    loss = method.losses(first, second, local, noise, share).total.item()

    shows = [view.shows.numpy() for view in (first, second, *local)]
    target = shared_out(aims[0].double().numpy(), np.concatenate(shows[:2])).reshape(2, 5, -1)
    said = log_softmax(images[0].double().numpy().reshape(4, 5, -1) / 0.1)
    terms = [
        -target[t, i] @ said[v, i]
        for t in range(2)
        for v in range(4)
        for i in range(5)
        if t != v and shows[t][i] and shows[v][i]
    ]
    of_images = float(np.mean(terms))

    usable = ground(torch.cat([first.valid, second.valid]), method.stride)
    hidden = hide(usable, noise, share).flatten(1).numpy()
    target = shared_out(aims_of_cells[0].double().numpy(), usable.flatten().numpy()).reshape(10, hidden.shape[1], -1)
    said = log_softmax(cells[0].double().numpy().reshape(10, hidden.shape[1] // 2, -1) / 0.1)  # hidden ones come first
    assert hidden.sum(axis=1).max() > 0.3 * hidden.shape[1]
    of_view = [
        -(target[v][hidden[v]] * said[v, : hidden[v].sum()]).sum(axis=-1).mean() if hidden[v].any() else 0.0
        for v in range(10)
    ]
    of_cells = np.mean([value for value, seen in zip(of_view, np.concatenate(shows[:2]), strict=True) if seen])
    assert of_cells > 0.5
    assert abs(loss - (of_images + of_cells)) < 1e-5


def test_the_losses_are_lightlys_where_everything_was_seen() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 6, 24), torch.randn(4, 6, 24)
    shows = torch.ones(4, 6, dtype=torch.bool)
    want = DINOLoss(24, teacher_temp=0.05, student_temp=0.1)(list(teacher), list(student))
    got = between_views((teacher / 0.05).softmax(dim=-1), student / 0.1, shows)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)

    teacher, student = torch.randn(6 * 16, 24), torch.randn(6 * 16, 24)
    hidden = torch.rand(6, 4, 4) < 0.3
    hidden[2] = False
    chosen = hidden.flatten()
    want = IBOTPatchLoss(24, teacher_temp=0.05, student_temp=0.1)(teacher[chosen], student[chosen], hidden)
    got = within_views((teacher / 0.05).softmax(dim=-1), student / 0.1, hidden.flatten(1), shows[0])
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_head_is_lightlys_behind_a_batch_norm_of_what_counts() -> None:
    torch.manual_seed(0)
    ours, theirs = Head(12, DinoSettings(**SMALL)), DINOProjectionHead(12, 32, 16, 24)
    theirs.layers.load_state_dict(ours.project.layers.state_dict())
    theirs.last_layer.weight_v.data.copy_(ours.prototypes.weight)
    x, counted = 3 + 2 * torch.randn(20, 1, 12), torch.rand(20, 1) < 0.7
    normalise = nn.BatchNorm1d(12, affine=False)
    seen = counted.flatten()
    torch.testing.assert_close(ours(x, counted)[seen], theirs(normalise(x[counted])), atol=1e-5, rtol=0)
    assert ours(x, torch.zeros_like(counted)).isfinite().all()


def test_cells_are_normalised_position_by_position() -> None:
    torch.manual_seed(0)
    x, counted = torch.randn(30, 9, 5, dtype=torch.float64), torch.rand(30, 9) < 0.7
    counted[:, 4] = False
    of_position = 3 * torch.randn(9, 5, dtype=torch.float64)
    got = standardise(x + of_position, counted)
    want = x.numpy().copy()
    for position in range(9):
        seen = counted[:, position].numpy()
        want[:, position] -= want[seen, position].mean(axis=0) if seen.any() else -of_position[position].numpy()
    want /= np.sqrt(want[counted.numpy()].var(axis=0) + 1e-5)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 3, 20])
def test_sinkhorn_is_lightlys_and_the_papers(rounds: int) -> None:
    similarity = torch.randn(40, 24, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    got = sinkhorn(similarity / 0.05, torch.ones(40, dtype=torch.bool), rounds)
    want = shared_out(similarity.double().numpy(), np.ones(40, dtype=bool), rounds)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)
    torch.testing.assert_close(got, lightlys_sinkhorn(similarity, rounds, 0.05), atol=1e-5, rtol=0)


def test_sinkhorn_shares_rows_out_evenly() -> None:
    torch.manual_seed(0)
    # all rows are much alike: without it they would all be sorted by the same few prototypes
    similarity = torch.randn(24).clamp(-1, 1) + 0.05 * torch.randn(60, 24)
    counted = torch.rand(60) < 0.7
    got = sinkhorn(similarity / 0.05, counted, 100)
    torch.testing.assert_close(got.sum(dim=1), torch.ones(60))
    torch.testing.assert_close(got[counted].sum(dim=0), torch.full((24,), counted.sum() / 24), atol=1e-4, rtol=0)
    entropy = -torch.xlogy(got, got).sum(dim=1)
    assert entropy.max() < 0.95 * math.log(24)  # it is not the uniform answer
    torch.testing.assert_close(sinkhorn(similarity[counted] / 0.05, counted[counted], 100), got[counted])
    assert sinkhorn(similarity, torch.zeros(60, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
def test_the_teacher_tells_places_apart_from_the_first_step_on_and_not_by_position(encoder: str) -> None:
    method: Dino = build("dino", encoder)
    aims, aims_of_cells = (outputs(head) for head in method.momentum.head.children())
    batch = batch_of(16)
    batch["image"] = 3 + 0.1 * batch["image"]  # places that are much alike
    method(batch)
    of_images, of_cells = aims[0], aims_of_cells[0].unflatten(0, (32, -1))
    assert (of_images - of_images.mean(dim=0)).std() > 0.06  # of vectors of 128 numbers at most 1 / √128
    of_cells = of_cells - of_cells.mean(dim=(0, 1))
    assert of_cells.std() > 0.06
    assert of_cells.mean(dim=0).var() < 0.1 * of_cells.var()  # positions tell hardly more than chance's 1 / 32


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny"])
def test_ground_that_was_not_seen_does_not_enter(encoder: str) -> None:
    method = built(encoder)
    batch = batch_of(6)
    batch["valid"][1] = False
    batch["valid"][4] = False
    batch["image"] = batch["image"].masked_fill(~batch["valid"].unsqueeze(1), 0.0)
    first, second, local, noise, share = inputs(method, batch)
    method.losses(first, second, local, noise, share).total.backward()
    kept = torch.tensor([0, 2, 3, 5])

    def part(view: View) -> View:
        return View(view.image[kept], view.valid[kept], view.placement)

    twice = torch.cat([kept, kept + 6])
    want = {name: p.grad for name, p in method.named_parameters()}
    method.zero_grad()
    method.losses(
        part(first), part(second), [part(view) for view in local], noise[twice], share[twice]
    ).total.backward()
    got = {name: p.grad for name, p in method.named_parameters()}
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_nothing_was_seen() -> None:
    method = built()
    batch = batch_of(4)
    batch["valid"][:] = False
    loss = method(batch).total
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in method.parameters() if p.requires_grad)


def test_only_ground_is_hidden_and_as_much_as_was_asked_for() -> None:
    torch.manual_seed(0)
    usable = torch.rand(50, 8, 8) < 0.6
    usable[0] = False
    share = torch.rand(50)
    share[1] = 0
    hidden = hide(usable, blobs(50, 8, 8, usable.device), share)
    assert not (hidden & ~usable).any()
    assert torch.equal(hidden.sum(dim=(1, 2)), (share * usable.sum(dim=(1, 2))).floor().long())
    assert ground(torch.ones(1, 8, 8, dtype=torch.bool), 4).all()
    half = torch.zeros(1, 8, 8, dtype=torch.bool)
    half[0, :2, :4] = half[0, 4, :] = True
    assert ground(half, 4).tolist() == [[[True, False], [False, False]]]


def test_what_is_hidden_lies_together() -> None:
    torch.manual_seed(0)
    usable = torch.ones(200, 12, 12, dtype=torch.bool)
    hidden = hide(usable, blobs(200, 12, 12, usable.device), torch.full((200,), 0.3)).float()
    beside = (hidden[:, 1:] * hidden[:, :-1]).sum() / hidden[:, 1:].sum()
    assert beside > 0.6  # 0.3 by chance
    assert (hidden.mean(dim=0) - 0.3).abs().max() < 0.15  # and anywhere


@pytest.mark.parametrize("encoder", ["unet-tiny", "vit-tiny", "resnet18"])
def test_the_student_does_not_see_what_is_hidden_and_the_teacher_does(encoder: str) -> None:
    method = built(encoder)
    batch = batch_of(4)
    first, second, _, noise, share = inputs(method, batch)
    seen: list[Tensor] = []
    for net in (method.encoder, method.momentum.encoder):
        net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method.losses(first, second, [], noise, share)
    student, teacher = seen
    assert torch.equal(teacher, torch.cat([first.image, second.image]))
    hidden = hide(ground(torch.ones(8, SIDE, SIDE, dtype=torch.bool), method.stride), noise, share)
    covers = hidden.repeat_interleave(method.stride, 1).repeat_interleave(method.stride, 2).unsqueeze(1)
    assert hidden.any() == (encoder != "resnet18")  # whose one cell is never hidden
    assert torch.equal(student, teacher.masked_fill(covers, 0.0))


@pytest.mark.parametrize(("encoder", "side"), [("unet-tiny", 16), ("vit-tiny", 16), ("resnet18", 32)])
def test_local_views_are_small_and_take_turns_between_dates(encoder: str, side: int) -> None:
    quiet = {"gain": 0.0, "bias": 0.0, "noise": 0.0}
    method = built(encoder, pairs="season", local_views=3, **quiet)
    batch = batch_of(5, dates=2)
    batch["image"] = batch["image"] * 0 + torch.tensor([1.0, 2.0]).view(1, 2, 1, 1, 1)
    local = method.local_views(batch)
    assert [view.image.shape for view in local] == [(5, 3, side, side)] * 3
    assert [round(view.image.mean().item(), 4) for view in local] == [1, 2, 1]
    assert all(((v.placement.scale**2 > 0.099) & (v.placement.scale**2 < 0.401)).all() for v in local)
    assert method(batch).total.isfinite()
    assert built(encoder, local_views=0)(batch_of(4)).total.isfinite()


def test_the_teacher_follows_as_another_network() -> None:
    method = build("dino", momentum=0.9, **SMALL)
    fast = [*method.encoder.parameters(), *method.heads.parameters()]
    slow = [*method.momentum.parameters()]
    assert not {p.data_ptr() for p in fast} & {p.data_ptr() for p in slow}
    assert not any(p.requires_grad for p in slow)
    assert all(torch.equal(p, q) for p, q in zip(fast, slow, strict=True))
    for step in (1, 50, 100):
        before = [p.clone() for p in slow]
        for p in fast:
            p.data.normal_()
        method.after_step(step, 101)
        share = 1 - 0.1 * (math.cos(math.pi * step / 100) + 1) / 2
        for old, new, now in zip(before, fast, slow, strict=True):
            torch.testing.assert_close(now, share * old + (1 - share) * new, atol=1e-6, rtol=0)


def test_its_state_goes_on_from_a_dictionary() -> None:
    method, again = build("dino", **SMALL), build("dino", **SMALL)
    batch = batch_of(6)

    def steps(which: Dino, first: int, last: int) -> list[float]:
        said = []
        for step in range(first, last):
            torch.manual_seed(step)
            loss = which(batch).total
            grads = torch.autograd.grad(loss, [p for p in which.parameters() if p.requires_grad])
            with torch.no_grad():
                for p, g in zip((p for p in which.parameters() if p.requires_grad), grads, strict=True):
                    p -= 0.05 * g
            which.after_step(step, 100)
            said.append(loss.item())
        return said

    steps(method, 1, 4)
    again.load_state_dict(method.state_dict())
    assert steps(method, 4, 7) == steps(again, 4, 7)
