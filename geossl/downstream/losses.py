"""Losses on labelled pixels, for classes of very different size; pixels without a label teach nothing.

Every loss takes logits (B, K, H, W) and positions (B, H, W), in which :data:`~geossl.legend.NO_LABEL` is no label,
and is 0 where a batch has no label at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geossl.downstream.settings import LossName
from geossl.legend import NO_LABEL

FOCUS = 2.0
"""γ of the focal loss; best in the paper."""


def balanced_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy averaged first over the pixels of each class, then over the classes present.

    A plain mean over pixels lets one common class rule a batch of clustered labels.
    """
    logits, target = _labelled(logits, label)
    loss = nn.functional.cross_entropy(logits, target, reduction="none")
    count = torch.bincount(target, minlength=logits.shape[1])
    return (loss / count[target]).sum() / (count > 0).sum().clamp(min=1)


def focal_loss(logits: Tensor, label: Tensor, *, focus: float = FOCUS) -> Tensor:
    """Cross-entropy of which pixels already told well count little: the mean of −(1 − p)^γ log p of the true class.

    Lin et al. 2017, "Focal loss for dense object detection" (https://arxiv.org/abs/1708.02002), equation 4, with
    the softmax in place of the sigmoid for several classes; for two classes it is torchvision's ``sigmoid_focal_loss``.
    """
    logits, target = _labelled(logits, label)
    log_p = logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]
    # 1 − p from the logarithm: near p = 1 the difference would be rounding
    rest = -torch.expm1(log_p)
    return -(rest.clamp(min=1e-12) ** focus * log_p).sum() / max(1, len(target))


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """One minus the soft Dice coefficient of each class over the batch, averaged over the classes present.

    Milletari et al. 2016, "V-Net" (https://arxiv.org/abs/1606.04797), equation 3, with probabilities instead of
    their squares in the denominator, as segmentation libraries have it: 2 Σ p g / (Σ p + Σ g).
    """
    logits, target = _labelled(logits, label)
    p = logits.softmax(dim=1)
    truth = nn.functional.one_hot(target, p.shape[1]).to(p.dtype)
    present = truth.sum(dim=0) > 0
    overlap = 2 * (p * truth).sum(dim=0) / (p.sum(dim=0) + truth.sum(dim=0)).clamp(min=1e-7)
    return ((1 - overlap) * present).sum() / present.sum().clamp(min=1)


def _labelled(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) float32 logits and (N,) positions of the pixels with a label."""
    known = label != NO_LABEL
    return logits.float().movedim(1, -1)[known], label[known].long()


LOSSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "balanced": balanced_loss,
    "focal": focal_loss,
    "dice": dice_loss,
}
"""What ``finetune.loss`` names."""
