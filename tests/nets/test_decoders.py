from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from geossl.features import hypercolumns
from geossl.nets.decoders import ChangeHead, DenseHead, LinearHead
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings


@pytest.mark.parametrize("name", ["unet-tiny", "vit-tiny", "resnet18"])
def test_logits_cover_the_image(name: str) -> None:
    encoder = build_encoder(EncoderSettings(name=name, image=32), 2).eval()
    image = torch.randn(2, 2, 32, 64)
    dense, change = DenseHead(encoder.dims, 5, width=16).eval(), ChangeHead(encoder.dims, 3, width=16).eval()
    with torch.inference_mode():
        features = encoder(image)
        assert dense(features, (32, 64)).shape == (2, 5, 32, 64)
        assert change(features, features, (32, 64)).shape == (2, 3, 32, 64)


def test_the_dense_head_draws_sharp_borders() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), 1)
    head = DenseHead(encoder.dims, 2, width=16)
    image = (torch.rand(4, 1, 8, 8) > 0.5).float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    labels = image[:, 0].long()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        F.cross_entropy(head(encoder(image), (32, 32)), labels).backward()
        optimizer.step()
    with torch.no_grad():
        assert (head(encoder(image), (32, 32)).argmax(1) == labels).float().mean() > 0.99


def test_the_linear_head_is_linear_on_hypercolumns() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), 2).eval()
    head = LinearHead(encoder.dims, 3).eval()
    for norm in head.norms:
        norm.running_mean.normal_()  # type: ignore[union-attr,operator]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
    image = torch.randn(1, 2, 32, 32)
    with torch.inference_mode():
        logits = head(encoder(image), (32, 32))
        mean, variance = (
            torch.cat([getattr(norm, name) for norm in head.norms]) for name in ("running_mean", "running_var")
        )
        columns = (hypercolumns(encoder, image) - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        weight = torch.cat([each.weight for each in head.weights], dim=1)  # type: ignore[misc]
        expected = F.conv2d(columns, weight, head.bias)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_change_has_a_direction() -> None:
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), 2).eval()
    head = ChangeHead(encoder.dims, 2, width=8).eval()
    with torch.inference_mode():
        before, after = encoder(torch.randn(1, 2, 32, 32)), encoder(torch.randn(1, 2, 32, 32))
        assert not torch.allclose(head(before, after, (32, 32)), head(after, before, (32, 32)))
