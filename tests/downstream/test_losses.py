"""Losses against segmentation-models-pytorch, torchvision and closed forms; what has no label teaches nothing."""

from __future__ import annotations

import math

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from geossl.downstream.losses import LOSSES, balanced_loss, dice_loss, focal_loss
from geossl.legend import NO_LABEL


def batch(classes: int = 3, missing: int | None = None) -> tuple[Tensor, Tensor]:
    """Logits (2, K, 6, 5) and positions, a third of them without a label; one class may be missing."""
    generator = torch.manual_seed(0)
    logits = 2 * torch.randn(2, classes, 6, 5, generator=generator)
    label = torch.randint(0, classes, (2, 6, 5), generator=generator)
    if missing is not None:
        label[label == missing] = (missing + 1) % classes
    label[torch.rand(2, 6, 5, generator=generator) < 1 / 3] = NO_LABEL
    return logits, label.to(torch.uint8)


def test_balanced_weighs_classes_not_pixels() -> None:
    """Repeating the pixels of one class changes nothing; unlabelled pixels count for nothing."""
    logits = torch.randn(1, 3, 1, 5, generator=torch.manual_seed(0))
    label = torch.tensor([[[0, 1, 1, 2, NO_LABEL]]], dtype=torch.uint8)
    losses = -logits.log_softmax(1)[0, :, 0]
    expected = (losses[0, 0] + (losses[1, 1] + losses[1, 2]) / 2 + losses[2, 3]) / 3
    assert balanced_loss(logits, label) == pytest.approx(expected.item())
    again = torch.cat([logits, logits[..., :1].expand(-1, -1, -1, 5)], dim=-1)
    more = torch.cat([label, torch.zeros_like(label)], dim=-1)
    assert balanced_loss(again, more) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("missing", [None, 1])
def test_balanced_is_cross_entropy_weighted_by_class_size(missing: int | None) -> None:
    logits, label = batch(missing=missing)
    known = label[label != NO_LABEL].long()
    count = torch.bincount(known, minlength=3)
    weight = torch.where(count > 0, 1 / count.clamp(min=1), 0.0)
    target = torch.where(label == NO_LABEL, -100, label.long())
    expected = torch.nn.functional.cross_entropy(logits, target, weight)  # torch divides by the weights' sum
    assert balanced_loss(logits, label).item() == pytest.approx(expected.item(), abs=1e-5)


def test_focal_of_two_classes_is_torchvisions() -> None:
    logits, label = batch(classes=2)
    known = label != NO_LABEL
    one = (logits[:, 1] - logits[:, 0])[known]
    expected = sigmoid_focal_loss(one, label[known].float(), alpha=-1, gamma=2, reduction="mean")
    assert focal_loss(logits, label).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("focus", [0.0, 2.0])
def test_focal_is_its_formula_pixel_by_pixel(focus: float) -> None:
    logits, label = batch()
    values = []
    for b, r, c in (label != NO_LABEL).nonzero().tolist():
        odds = [math.exp(z) for z in logits[b, :, r, c].tolist()]
        p = odds[int(label[b, r, c])] / sum(odds)
        values.append(-((1 - p) ** focus) * math.log(p))
    assert focal_loss(logits, label, focus=focus).item() == pytest.approx(sum(values) / len(values), abs=1e-5)


@pytest.mark.parametrize("missing", [None, 1])
def test_dice_is_that_of_segmentation_models(missing: int | None) -> None:
    """Theirs divides by all classes, ours by those present."""
    logits, label = batch(missing=missing)
    theirs = smp.losses.DiceLoss("multiclass", from_logits=True, ignore_index=NO_LABEL)(logits, label.long())
    share = 1 if missing is None else 2 / 3
    assert dice_loss(logits, label).item() * share == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_no_label_is_no_loss_and_no_gradient(name: str) -> None:
    logits, label = batch()
    logits.requires_grad_()
    loss = LOSSES[name](logits, torch.full_like(label, NO_LABEL))  # type: ignore[index]
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_what_has_no_label_pulls_nowhere(name: str) -> None:
    logits, label = batch()
    logits.requires_grad_()
    LOSSES[name](logits, label).backward()  # type: ignore[index]
    assert logits.grad is not None
    unlabelled = (label == NO_LABEL)[:, None].expand_as(logits)
    assert not logits.grad[unlabelled].any()
    assert logits.grad[~unlabelled].any()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_certainty_is_finite(name: str) -> None:
    """All right, and all wrong, by logits that leave no doubt in float32."""
    _, label = batch()
    sure = 200 * torch.nn.functional.one_hot(label.long().clamp(max=2), 3).movedim(-1, 1).float()
    for logits, known in ((sure, True), (-sure, False)):
        logits = logits.clone().requires_grad_()
        loss = LOSSES[name](logits, label)  # type: ignore[index]
        loss.backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert loss.item() == pytest.approx(0, abs=1e-5) if known else loss.item() > 0.9
