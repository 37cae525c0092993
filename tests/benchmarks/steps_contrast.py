"""How fast the contrastive methods train on the CPU: a whole step beside torchgeo's tasks, or lightly's parts of one.

Both sides: ResNet-18 (or, where it says so, a ViT) on 128 px, 13 bands, batches of 32, 32-bit floats, heads of the same
widths, queues of the same length, AdamW, the same threads, and no augmentation: the two views are in memory already. Ours also leaves invalid
pixels out of the pooling and knows which places overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .harness import Sides, bench, rate
from .mae_sides import Step, whole_step

BANDS, SIDE, BATCH = 13, 128, 32
STEPS = 3
PROJECTION, HIDDEN, PROTOTYPES, QUEUE = 128, 512, 512, 4096


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
    yield from sides(our_step({"name": "simclr", "projection": PROJECTION}), their_step(task))


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
    yield from sides(ours, their_step(moco(version=2, layers=2, output_dim=PROJECTION, memory_bank_size=QUEUE)))


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
    yield from sides(ours, their_step(moco(version=3, layers=3, output_dim=PROJECTION, memory_bank_size=0)))


@bench(
    "lejepa-step-vs-reference",
    unit="images/s",
    reference="the same step of lightly's parts, view by view as in its example",
    better="higher",
    goal=1,
)
def lejepa_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """LeJEPA of two views; torchgeo has no task for it."""
    yield from sides(our_step({"name": "lejepa", "hidden": HIDDEN}), lightly_lejepa())


@bench(
    "dino-step-vs-reference",
    unit="images/s",
    reference="the same step of lightly's parts, as in its example of DINOv2",
    better="higher",
    goal=1,
)
def dino_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """DINO with iBOT's patch loss, on a ViT-S/16: of two views parts are hidden, two local ones have half their side."""
    ours = our_step({"name": "dino", "hidden": HIDDEN, "projection": PROJECTION}, "vit-small", of_dino)
    yield from sides(ours, lightly_dino())


def sides(ours: Step, reference: Step) -> Iterator[Sides]:
    """Images a second on either side; memory is kept for both, as `pretrain` keeps it."""
    from geossl.train.launch import memory_kept

    def images(step: Step) -> float:
        def work() -> None:
            for _ in range(STEPS):
                step()

        return rate(STEPS * BATCH, work)

    with memory_kept():
        yield Sides(lambda: images(ours), lambda: images(reference))


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


def our_step(
    method_settings: dict[str, Any], encoder: str = "resnet18", losses: Callable[[Any, Any, Any], Any] | None = None
) -> Step:
    """A method over given views, with the optimiser that `pretrain` gives it and what it does after a step.

    ``losses`` are a method's of a view and a batch, where they are not simply those of twice the view.
    """
    import torch

    from geossl.methods.pairs import View
    from geossl.methods.registry import build_method
    from geossl.nets.encoder import build_encoder
    from geossl.nets.settings import EncoderSettings
    from geossl.train.settings import PretrainSettings

    torch.manual_seed(0)
    settings = PretrainSettings.model_validate({"method": method_settings})
    chosen = {"name": encoder, "patch": 16, "image": SIDE if encoder.startswith("vit") else None}
    method: Any = build_method(settings.method, build_encoder(EncoderSettings.model_validate(chosen), BANDS))
    method = method.to(memory_format=torch.channels_last)
    image, valid = torch.randn(BATCH, BANDS, SIDE, SIDE), torch.ones(BATCH, SIDE, SIDE, dtype=torch.bool)
    view = View(image, valid, method.views.place(BATCH, image.device))
    batch = {"image": image, "valid": valid}
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    of = losses or (lambda method, view, batch: method.losses(view, view, batch))
    optimizer = torch.optim.AdamW(weights, 1e-4, fused=True)
    step = whole_step(lambda: of(method, view, batch).total, optimizer, "cpu", bf16=False)
    done = iter(range(1, 1000))

    def with_momentum() -> None:
        step()
        method.after_step(next(done), 1000)

    return with_momentum


def of_dino(method: Any, view: Any, batch: Any) -> Any:
    """DINO's losses of twice a view and twice a quarter of it, half of the views with hidden cells."""
    import torch

    from geossl.methods.dino import blobs
    from geossl.methods.pairs import View

    half, cells = SIDE // 2, SIDE // method.stride
    local = View(view.image[..., :half, :half], view.valid[..., :half, :half], view.placement)
    share = torch.empty(2 * BATCH).uniform_(0.1, 0.5) * (torch.rand(2 * BATCH) < 0.5)
    return method.losses(view, view, [local] * 2, blobs(2 * BATCH, cells, cells, view.image.device), share)


def lightly_dino() -> Step:
    """lightly's masked transformer, heads and losses."""
    import copy
    import itertools

    import timm
    import torch
    from lightly.loss import DINOLoss, IBOTPatchLoss
    from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM
    from lightly.models.utils import random_block_mask, update_momentum
    from torch import nn

    vit = timm.create_model(
        "vit_small_patch16_224", in_chans=BANDS, img_size=SIDE, num_classes=0, dynamic_img_size=True
    )
    width = vit.embed_dim
    student = MaskedVisionTransformerTIMM(vit=vit)
    heads, teacher_heads = (
        nn.ModuleList(DINOProjectionHead(width, HIDDEN, PROJECTION, PROTOTYPES) for _ in range(2)) for _ in range(2)
    )
    teacher = copy.deepcopy(student)
    for each in (teacher, teacher_heads):
        each.requires_grad_(requires_grad=False)
    between, within = DINOLoss(PROTOTYPES), IBOTPatchLoss(PROTOTYPES)
    image = torch.randn(BATCH, BANDS, SIDE, SIDE)
    small = image[..., : SIDE // 2, : SIDE // 2].contiguous()

    def loss() -> torch.Tensor:
        both, local = torch.cat([image] * 2), torch.cat([small] * 2)
        hidden = random_block_mask((len(both), SIDE // 16, SIDE // 16))
        mask = torch.cat([torch.zeros(len(both), 1, dtype=torch.bool), hidden.flatten(1)], dim=1)
        with torch.no_grad():
            seen = teacher.encode(both)
            aims, aims_of_cells = teacher_heads[0](seen[:, 0]), teacher_heads[1](seen[mask])
        said = student.encode(both, mask=mask)
        views = [*heads[0](said[:, 0]).chunk(2), *heads[0](student.encode(local)[:, 0]).chunk(2)]
        return between([*aims.chunk(2)], views) + within(aims_of_cells, heads[1](said[mask]), hidden)

    weights = [weight for weight in itertools.chain(student.parameters(), heads.parameters()) if weight.requires_grad]
    step = whole_step(loss, torch.optim.AdamW(weights, 1e-4), "cpu", bf16=False)

    def with_momentum() -> None:
        step()
        update_momentum(student, teacher, 0.99)
        update_momentum(heads, teacher_heads, 0.99)

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
