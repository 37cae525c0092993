"""How fast the contrastive methods train on the CPU: a whole step beside torchgeo's tasks, or lightly's parts of one.

Both sides: ResNet-18 on 128 px, 13 bands, batches of 32, 32-bit floats, heads of the same widths, queues of the same
length, AdamW, the same threads, and no augmentation: the two views are in memory already. Ours also leaves invalid
pixels out of the pooling and knows which places overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .harness import Sides, bench, rate
from .mae_sides import Step, whole_step

BANDS, SIDE, BATCH = 13, 128, 32
STEPS = 3
PROJECTION, HIDDEN, QUEUE = 128, 512, 4096


@bench(
    "simclr-step-vs-reference",
    unit="images/s",
    reference="torchgeo.tasks.SimCLR, the same step",
    better="higher",
    goal=1,
)
def simclr_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """SimCLR v1."""
    from torch import nn
    from torchgeo.tasks import SimCLR

    task = SimCLR(
        model="resnet18",
        in_channels=BANDS,
        version=1,
        layers=2,
        output_dim=PROJECTION,
        memory_bank_size=0,
        augmentations=nn.Identity(),
    )
    yield sides(our_step({"name": "simclr", "projection": PROJECTION}), their_step(task))


@bench(
    "mocov2-step-vs-reference",
    unit="images/s",
    reference="torchgeo.tasks.MoCo, version 2, the same step",
    better="higher",
    goal=1,
)
def mocov2_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """MoCo v2."""
    ours = our_step({"name": "mocov2", "projection": PROJECTION, "queue": QUEUE})
    yield sides(ours, their_step(moco(version=2, layers=2, output_dim=PROJECTION, memory_bank_size=QUEUE)))


@bench(
    "mocov3-step-vs-reference",
    unit="images/s",
    reference="torchgeo.tasks.MoCo, version 3, the same step",
    better="higher",
    goal=1,
)
def mocov3_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """MoCo v3."""
    ours = our_step({"name": "mocov3", "projection": PROJECTION, "hidden": HIDDEN})
    yield sides(ours, their_step(moco(version=3, layers=3, output_dim=PROJECTION, memory_bank_size=0)))


@bench(
    "lejepa-step-vs-reference",
    unit="images/s",
    reference="the same step of lightly's parts, view by view as in its example",
    better="higher",
    goal=1,
)
def lejepa_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """LeJEPA of two views; torchgeo has no task for it."""
    yield sides(our_step({"name": "lejepa", "hidden": HIDDEN}), lightly_lejepa())


def sides(ours: Step, reference: Step) -> Sides:
    """Images a second on either side."""

    def images(step: Step) -> float:
        def work() -> None:
            for _ in range(STEPS):
                step()

        return rate(STEPS * BATCH, work)

    return Sides(lambda: images(ours), lambda: images(reference))


def moco(**options: Any) -> Any:
    """torchgeo's task without augmentation."""
    from torch import nn
    from torchgeo.tasks import MoCo

    return MoCo(
        model="resnet18",
        in_channels=BANDS,
        hidden_dim=HIDDEN,
        augmentation1=nn.Identity(),
        augmentation2=nn.Identity(),
        **options,
    )


def our_step(method_settings: dict[str, Any]) -> Step:
    """A method over given views, with the optimiser that `pretrain` gives it and what it does after a step."""
    import torch

    from geossl.methods.pairs import View
    from geossl.methods.registry import build_method
    from geossl.nets.encoder import build_encoder
    from geossl.nets.settings import EncoderSettings
    from geossl.train.settings import PretrainSettings

    torch.manual_seed(0)
    settings = PretrainSettings.model_validate({"method": method_settings})
    method: Any = build_method(settings.method, build_encoder(EncoderSettings(name="resnet18"), BANDS))
    method = method.to(memory_format=torch.channels_last)
    image, valid = torch.randn(BATCH, BANDS, SIDE, SIDE), torch.ones(BATCH, SIDE, SIDE, dtype=torch.bool)
    view = View(image, valid, method.views.place(BATCH, image.device))
    batch = {"image": image, "valid": valid}
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    step = whole_step(
        lambda: method.losses(view, view, batch).total, torch.optim.AdamW(weights, 1e-4, fused=True), "cpu", bf16=False
    )
    done = iter(range(1, 1000))

    def with_momentum() -> None:
        step()
        method.after_step(next(done), 1000)

    return with_momentum


def lightly_lejepa() -> Step:
    """lightly's projector and losses on timm's ResNet-18."""
    import timm
    import torch
    from lightly.loss.lejepa_loss import SIGReg, lejepa_invariance_loss
    from lightly.models.modules import LeJEPAProjectionHead

    backbone = timm.create_model("resnet18", in_chans=BANDS, num_classes=0)
    model = torch.nn.Sequential(backbone, LeJEPAProjectionHead(backbone.num_features, HIDDEN, 64))
    image, sigreg = torch.randn(BATCH, BANDS, SIDE, SIDE), SIGReg()

    def loss() -> torch.Tensor:
        views = torch.stack([model(image) for _ in range(2)])
        return 0.95 * lejepa_invariance_loss(all_proj=views, global_proj=views) + 0.05 * sigreg(views)

    return whole_step(loss, torch.optim.AdamW(model.parameters(), 1e-4), "cpu", bf16=False)


def their_step(task: Any) -> Step:
    """A task of torchgeo's with AdamW."""
    import torch
    from lightning.pytorch import Trainer

    # which is asked for the epoch, but takes no part
    task.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    task.log = lambda *_, **__: None
    image = torch.randn(BATCH, BANDS, SIDE, SIDE)
    optimizer = torch.optim.AdamW([weight for weight in task.parameters() if weight.requires_grad], 1e-4)
    return whole_step(lambda: task.training_step({"image": image}, 0), optimizer, "cpu", bf16=False)
