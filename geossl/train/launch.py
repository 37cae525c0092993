"""Where a training runs: this process, or the ranks that torchrun started."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers.attention import Attention
from torch import distributed, nn

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_… of malloc.h


def world_size() -> int:
    """How many ranks train together; torchrun says so."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this process is, from 0."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def gang() -> Iterator[None]:
    """The ranks that torchrun started, connected, so that they can wait for each other before Lightning's loop."""
    if world_size() == 1 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    yield
    distributed.destroy_process_group()  # not after a failure: it would wait for ranks that are gone


def wait_for_ranks() -> None:
    """Return when all ranks have come here."""
    if distributed.is_initialized():
        distributed.barrier()


def placement(precision: str) -> dict[str, Any]:
    """The Trainer's arguments for the devices at hand: one device, or torchrun's ranks.

    Parameters
    ----------
    precision:
        ``32``, ``bf16``, or ``auto``: bf16 where the device computes it in hardware.
    """
    world = world_size()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    bf16 = precision == "bf16" or (precision == "auto" and fast_bf16())
    return {
        "accelerator": "cuda" if cuda else "cpu",
        "devices": here,
        "num_nodes": world // here,
        "strategy": "ddp" if world > 1 else "auto",
        "sync_batchnorm": world > 1 and cuda,  # torch has it for GPUs alone
        "precision": "bf16-mixed" if bf16 else "32-true",
    }


def fast_bf16() -> bool:
    """Whether bf16 pays: tensor cores, or a CPU with bf16 instructions (a UNet trains twice as fast there)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported())


def unfuse_attention(network: nn.Module) -> None:
    """Let timm's transformers attend by plain matrix products.

    In bf16 on a CPU torch's fused attention needs five times as long for forward and backward over the 50 tokens of
    a masked autoencoder, and a tenth longer over 1,025 (torch 2.15). Everywhere else it is the faster one.
    """
    for module in network.modules():
        if isinstance(module, Attention):
            module.fused_attn = False  # type: ignore[misc]  # final for TorchScript's sake alone


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with that many CPU threads for a while; None leaves torch's own choice."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Let the C library keep what a step frees for the next one, and give it back in the end (glibc; else nothing).

    By default it hands large pieces back at once, and the system clears new pages for the next: on a CPU that was a
    sixth of a step. What is set here stays set in this process.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_MMAP_THRESHOLD, 2**25)  # the most that it takes
    try:
        yield
    finally:
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


@contextlib.contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Where ``wanted``, let a GPU use algorithms alone that give the same bits each time; on a CPU they all do."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted and torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS makes no promise
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's remarks on devices, limits and evaluation mode, and its deprecated calls, from the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls this form; nobody who trains can do anything about it
            warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
            # where Slurm is installed, a hint to start this by srun
            warnings.filterwarnings("ignore", message=r"The `srun` command is available")
            # a momentum encoder is meant to be
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
