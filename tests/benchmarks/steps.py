"""How fast a masked autoencoder trains on the CPU: a whole step beside torchgeo's task and the paper's code.

All sides: ViT-Small with patches of 16 px on 224 px, 13 bands, batches of 16, three quarters hidden, a decoder of the
same depth and width, the same threads. A step is forward, loss, backward and the optimiser that each library
gives it, on a batch of normalised floats that is in memory already. See :mod:`tests.benchmarks.mae_sides`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .harness import Sides, bench, rate
from .mae_sides import Case, Step, our_step, reference_step, torchgeo_step

STEPS = 3
PEER = "torchgeo.tasks.MAE, the same step"
PAPER = "facebookresearch/mae, the same step"


@bench("mae-step-vs-torchgeo", unit="steps/s", reference=PEER, better="higher", goal=1.2)
def mae_step_vs_torchgeo(folder: Path) -> Iterator[Sides]:
    """32-bit floats on either side, no augmentation."""
    yield sides(our_step(Case(), bf16=False), torchgeo_step(Case(), bf16=False))


@bench("mae-step-vs-torchgeo-bf16", unit="steps/s", reference=PEER, better="higher", goal=1.2)
def mae_step_vs_torchgeo_bf16(folder: Path) -> Iterator[Sides]:
    """bf16 autocast on either side, no augmentation."""
    yield sides(our_step(Case(), bf16=True), torchgeo_step(Case(), bf16=True))


@bench("mae-step-as-shipped", unit="steps/s", reference="torchgeo.tasks.MAE as it is", better="higher", goal=2.5)
def mae_step_as_shipped(folder: Path) -> Iterator[Sides]:
    """Each with its own augmentation and precision: ours bf16 where the CPU has it, theirs 32 bit."""
    from geossl.train.launch import fast_bf16

    yield sides(our_step(Case(), bf16=fast_bf16(), augment=True), torchgeo_step(Case(), bf16=False, augment=True))


@bench("mae-step-vs-reference", unit="steps/s", reference=PAPER, better="higher", goal=1.2)
def mae_step_vs_reference(folder: Path) -> Iterator[Sides]:
    """32-bit floats on either side, no augmentation."""
    yield sides(our_step(Case(), bf16=False), reference_step(Case(), bf16=False))


@bench("mae-step-vs-reference-deep", unit="steps/s", reference=PAPER, better="higher")
def mae_step_vs_reference_deep(folder: Path) -> Iterator[Sides]:
    """The same with the paper's decoder of eight blocks, which is most of the work then."""
    case = Case(batch=8, decoder=(512, 8))
    yield sides(our_step(case, bf16=False), reference_step(case, bf16=False))


def sides(ours: Step, reference: Step) -> Sides:
    def steps(step: Step) -> float:
        def work() -> None:
            for _ in range(STEPS):
                step()

        return rate(STEPS, work)

    return Sides(lambda: steps(ours), lambda: steps(reference))
