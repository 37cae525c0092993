from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from geossl.augment import Normalize
from geossl.features import embed, hypercolumns
from geossl.nets.encoder import build_encoder
from geossl.nets.settings import EncoderSettings


def test_hypercolumns_are_every_map_at_full_size() -> None:
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), 3).eval()
    image = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        got = hypercolumns(encoder, image)
        maps = encoder(image).maps
        want = torch.cat([F.interpolate(each, (32, 48), mode="bilinear") for each in maps], dim=1)
        half = hypercolumns(encoder, image, size=(16, 24))
    torch.testing.assert_close(got, want)
    assert half.shape == (2, sum(encoder.dims), 16, 24)


def test_hypercolumns_let_gradients_through() -> None:
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), 1)
    hypercolumns(encoder, torch.randn(2, 1, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_embed_keeps_order_and_leaves_the_encoder_as_it_was() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), 2).train()
    running = encoder.state_dict()["backbone.stages.0.1.running_mean"].clone()
    image = torch.randint(0, 2000, (7, 2, 16, 16)).to(torch.int16)
    valid = torch.rand(7, 16, 16) > 0.1
    normalize = Normalize([1000.0, 900.0], [500.0, 400.0])
    batches = [{"image": image[i : i + 3], "valid": valid[i : i + 3]} for i in (0, 3, 6)]
    got = embed(encoder, batches, normalize)
    assert encoder.training
    assert torch.equal(encoder.state_dict()["backbone.stages.0.1.running_mean"], running)
    encoder.eval()
    with torch.inference_mode():
        want = torch.cat([encoder(normalize(image[i : i + 1], valid[i : i + 1])).pooled for i in range(7)])
    np.testing.assert_allclose(got, want.numpy(), atol=1e-5)


def test_embed_of_nothing_is_empty() -> None:
    encoder = build_encoder(EncoderSettings(name="unet-tiny"), 2)
    assert embed(encoder, [], Normalize([0.0, 0.0], [1.0, 1.0])).shape == (0, encoder.dims[-1])
