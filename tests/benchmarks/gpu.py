"""How fast a masked autoencoder trains on one CUDA GPU, and which share of what the GPU can do that is.

All sides: patches of 16 px on 224 px, 13 bands, three quarters hidden, a decoder of one block of 512. A step is
forward, loss, backward and optimiser on a batch that is on the GPU already; both ends of a round wait for the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from .harness import Sides, Skipped, bench
from .mae_sides import Case, Step, our_step, reference_step, torchgeo_step

STEPS = 10
SQUARE = 8192
"""Side of the matrices whose product is the measure of the GPU."""
DATA_SHEET = 989e12
"""FLOP/s of an H100 or H200 SXM in dense bf16, by NVIDIA's data sheet; printed beside what is measured."""


@bench(
    "gpu-mae-step-vs-torchgeo",
    unit="images/s",
    reference="torchgeo.tasks.MAE, the same step",
    better="higher",
    goal=1.2,
)
def gpu_mae_step_vs_torchgeo(folder: Path) -> Iterator[Sides]:
    """ViT-Base, bf16 autocast, no augmentation, nothing compiled, on either side."""
    case = base(512)
    yield sides(case, our_step(case, bf16=True), torchgeo_step(case, bf16=True))


@bench(
    "gpu-mae-step-vs-reference",
    unit="images/s",
    reference="facebookresearch/mae, the same step",
    better="higher",
    goal=1.2,
)
def gpu_mae_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """The same beside the paper's code."""
    case = base(512)
    yield sides(case, our_step(case, bf16=True), reference_step(case, bf16=True))


@bench("gpu-mae-step-as-shipped", unit="images/s", reference="torchgeo.tasks.MAE as it is", better="higher", goal=1.5)
def gpu_mae_step_as_shipped(folder: Path) -> Iterator[Sides]:
    """Each with its own augmentation and precision: ours bf16, compiled; theirs 32 bit."""
    case = base(512)
    yield sides(
        case,
        our_step(case, bf16=True, augment=True, compiled=True),
        torchgeo_step(case, bf16=False, augment=True),
    )


@bench("gpu-mae-compile", unit="images/s", reference="the same step, not compiled", better="higher")
def gpu_mae_compile(folder: Path) -> Iterator[Sides]:
    """What `torch.compile` is worth, after the minute that it takes at the start."""
    case = base(512)
    start = time.perf_counter()
    compiled = our_step(case, bf16=True, compiled=True)
    compiled()
    print(f"  first step, compilation included: {time.perf_counter() - start:.0f} s", flush=True)
    yield sides(case, compiled, our_step(case, bf16=True))


@bench(
    "gpu-mae-mfu-vit-base", unit="TFLOP/s", reference="a product of two 8192² bf16 matrices", better="higher", goal=0.4
)
def gpu_mae_mfu_vit_base(folder: Path) -> Iterator[Sides]:
    """The share of the GPU that a compiled step of ViT-Base uses; :func:`step_flop` counts."""
    yield from utilisation(base(512))


@bench(
    "gpu-mae-mfu-vit-large", unit="TFLOP/s", reference="a product of two 8192² bf16 matrices", better="higher", goal=0.4
)
def gpu_mae_mfu_vit_large(folder: Path) -> Iterator[Sides]:
    """The same of ViT-Large."""
    yield from utilisation(Case(encoder="vit-large", batch=256, device=gpu()))


def gpu() -> str:
    """The device, if there is one."""
    if not torch.cuda.is_available():
        raise Skipped("there is no CUDA GPU")
    return "cuda"


def base(batch: int) -> Case:
    return Case(encoder="vit-base", batch=batch, device=gpu())


def sides(case: Case, ours: Step, reference: Step) -> Sides:
    return Sides(lambda: STEPS * case.batch / seconds(ours), lambda: STEPS * case.batch / seconds(reference))


def utilisation(case: Case) -> Iterator[Sides]:
    """The step's own FLOP a second beside those of a matrix product in the same run."""
    torch.cuda.reset_peak_memory_stats()
    step = our_step(case, bf16=True, compiled=True)
    one, other = (torch.randn(SQUARE, SQUARE, device=case.device, dtype=torch.bfloat16) for _ in range(2))
    reached: list[float] = []

    def ours() -> float:
        reached.append(STEPS * case.batch * step_flop(case) / seconds(step) / 1e12)
        return reached[-1]

    yield Sides(ours, lambda: STEPS * 2 * SQUARE**3 / seconds(lambda: one @ other) / 1e12)
    share = sorted(reached)[len(reached) // 2] * 1e12 / DATA_SHEET
    print(
        f"  {step_flop(case) / 1e9:.1f} GFLOP an image; {share:.0%} of the {DATA_SHEET / 1e12:.0f} TFLOP/s of an"
        f" H100's data sheet; at most {torch.cuda.max_memory_allocated() / 1e9:.1f} GB",
        flush=True,
    )


def seconds(step: Step) -> float:
    """How long :data:`STEPS` steps take the GPU."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def step_flop(case: Case) -> float:
    """FLOP of one image's step that no implementation can leave out.

    Only matrix products count, a multiplication and an addition as two: forward once, and backward twice that
    (towards inputs and towards weights), but for the embedding, whose input is the image. Visible patches alone are
    embedded and encoded; in the last block of the decoder queries, projection and MLP count for hidden patches
    alone, and only these are predicted. What is computed again in backward (flash attention), the optimiser, norms
    and the loss are not counted.
    """
    dim, depth = {"vit-small": (384, 12), "vit-base": (768, 12), "vit-large": (1024, 24)}[case.encoder]
    width, blocks = case.decoder
    pixels = case.patch**2 * case.bands
    visible = case.patches // 4
    hidden, tokens = case.patches - visible, case.patches + 1

    def block(length: int, size: int) -> int:
        return length * 12 * size**2 + 2 * length**2 * size

    embed = visible * pixels * dim
    encode = depth * block(visible + 1, dim)
    enter = (visible + 1) * dim * width
    decode = (blocks - 1) * block(tokens, width)
    last = tokens * 2 * width**2 + hidden * 10 * width**2 + 2 * hidden * tokens * width
    predict = hidden * width * pixels
    return 2.0 * (2 * embed + 3 * (encode + enter + decode + last + predict))
