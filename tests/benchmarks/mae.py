"""How fast a masked autoencoder trains on the CPU: a whole step beside torchgeo's task.

Both sides: ViT-Small with patches of 16 px on 224 px, 10 bands, batches of 8, three quarters hidden,
a decoder of the same depth and width, 32-bit floats, AdamW, the same threads, and no augmentation. A step is
forward, loss, backward and optimiser on a batch of normalised floats that is in memory already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .harness import Sides, bench, rate

BANDS, SIDE, PATCH, BATCH = 10, 224, 16, 8
DEPTH, WIDTH = 1, 512
STEPS = 3


@bench("mae-step-vs-torchgeo", unit="steps/s", reference="torchgeo.tasks.MAE, the same step", better="higher")
def mae_step_vs_torchgeo(folder: Path) -> Iterator[Sides]:
    """The same training step through either library."""
    import torch
    from torch import Tensor, nn
    from torchgeo.tasks import MAE

    from geossl.methods.mae import Mae
    from geossl.methods.settings import MaeSettings
    from geossl.nets.encoder import build_encoder
    from geossl.nets.settings import EncoderSettings

    def steps(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> float:
        def work() -> None:
            for _ in range(STEPS):
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()

        return rate(STEPS, work)

    torch.manual_seed(0)
    image = torch.randn(BATCH, BANDS, SIDE, SIDE)
    valid = torch.ones(BATCH, SIDE, SIDE, dtype=torch.bool)

    encoder = build_encoder(EncoderSettings(name="vit-small", patch=PATCH, image=SIDE), BANDS)
    ours = Mae(MaeSettings(decoder_dim=WIDTH, decoder_depth=DEPTH), encoder)
    optimizer = torch.optim.AdamW(ours.parameters(), 1e-4, fused=True)

    task = MAE(
        model="vit_small_patch16_224",
        in_channels=BANDS,
        transform=nn.Identity(),
        decoder_dim=WIDTH,
        decoder_depth=DEPTH,
        decoder_num_heads=WIDTH // 32,
        size=SIDE,
    )
    task.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no Trainer to log to
    theirs = torch.optim.AdamW(task.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def our_loss() -> Tensor:
        return ours.losses(image, valid, torch.rand(BATCH, (SIDE // PATCH) ** 2)).total

    yield Sides(
        ours=lambda: steps(optimizer, our_loss),
        reference=lambda: steps(theirs, lambda: task.training_step({"image": image}, 0)),
    )
