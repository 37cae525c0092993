"""Train a network on labelled windows; one loop for land cover and change."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor, nn

from geossl.augment import Normalize
from geossl.chips.split import TRAIN, VAL
from geossl.downstream.data import Chips, TaskData
from geossl.downstream.kept import KeptMaps
from geossl.downstream.losses import LOSSES
from geossl.downstream.networks import TrainedNetwork
from geossl.downstream.settings import FinetuneSettings
from geossl.legend import NO_LABEL
from geossl.nets.encoder import Encoder
from geossl.nets.layers import rates
from geossl.nets.lora import add_adapters, merge
from geossl.progress import Progress, silent
from geossl.train.launch import fast_bf16

VALIDATE_EVERY = 25
"""Steps between validations."""

WARM_UP = 0.1
"""Share of a training in which the learning rate rises."""

Score = Callable[[NDArray[np.uint8], NDArray[np.float32]], float]
"""From true positions (N,) and logits (N, K) to what early stopping maximises."""


@dataclass(frozen=True)
class Trained:
    """How a training went."""

    score: float
    """Of the kept weights on validation blocks."""
    step: int
    """At which they stood."""
    truth: NDArray[np.uint8]
    """(N,) validation labels."""
    logits: NDArray[np.float32]
    """(N, K) what the kept weights say of them."""


def device() -> torch.device:
    """Where networks are trained and applied: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def labelled_chips(data: TaskData, settings: FinetuneSettings, *, labels: int | None, seed: int) -> tuple[Chips, Chips]:
    """Training and validation windows, with all their labels or ``labels`` and half as many of them."""
    both = []
    for subset, share in ((TRAIN, 1), (VAL, 2)):
        only = None if labels is None else data.sample(labels // share, seed=seed, subset=subset)
        limit = max(1, settings.windows // (1 if subset == TRAIN else 8))
        both.append(data.chips(subset, settings.window, limit=limit, seed=seed, only=only))
    return both[0], both[1]


def finetune(
    network: TrainedNetwork,
    encoder: Encoder,
    normalize: Normalize,
    train: Chips,
    validation: Chips,
    score: Score,
    settings: FinetuneSettings,
    *,
    seed: int,
    progress: Progress = silent,
) -> Trained:
    """Train in place, and leave the weights that scored best on the validation windows.

    Parameters
    ----------
    encoder:
        The part of the network that learns, or does not, as ``settings.encoder`` says.

    Raises
    ------
    SettingsError
        ``encoder: lora`` where it is no transformer.
    """
    where = device()
    frozen = settings.encoder == "frozen"
    if frozen:
        encoder.requires_grad_(False)  # no step backwards through it
    if settings.encoder == "lora":
        add_adapters(encoder, settings.lora_rank, setting="finetune.encoder: lora")
    network.to(where).to(memory_format=torch.channels_last)  # with bf16, half the time of a step on a CPU
    normalize.to(where)
    bf16 = fast_bf16()
    groups = parameter_groups(network, encoder, settings)
    peaks = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups)
    loss = LOSSES[settings.loss]
    start = time.monotonic()
    best, best_step = -np.inf, 0
    weights = copy.deepcopy(network.state_dict())
    waited = 0
    draws = _draws(len(train), settings.batch_size, np.random.default_rng(seed))
    kept, judged = (
        KeptMaps(network, normalize, chips, bf16=bf16) if frozen and KeptMaps.fits(network, chips, bf16=bf16) else None
        for chips in (train, validation)
    )
    size = (train.image.shape[-2], train.image.shape[-1])
    for step in range(1, settings.steps + 1):
        network.train()
        # a frozen encoder keeps its batch statistics as well
        encoder.train(not frozen)
        done = (step - 1) / settings.steps
        if settings.minutes:
            done = max(done, (time.monotonic() - start) / 60 / settings.minutes)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * schedule(done)
        draw = next(draws)
        label = _turned(train.label, *draw).to(where)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(where.type, torch.bfloat16, enabled=bf16):
            if kept is not None:
                logits = network.decide(kept.turned(*draw), size)
            else:
                image, valid = (_turned(part, *draw).to(where) for part in (train.image, train.valid))
                logits = network(normalize(image, valid), valid)
        loss(logits, label).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        progress("fine-tune", step, settings.steps)
        out_of_time = done >= 1
        if step % VALIDATE_EVERY == 0 or step == settings.steps or out_of_time:
            with torch.autocast(where.type, torch.bfloat16, enabled=bf16):
                reached = score(*predict_chips(network, normalize, validation, kept=judged))
            waited += 1
            if reached > best:
                best, best_step, waited = reached, step, 0
                weights = copy.deepcopy(network.state_dict())
            if waited >= settings.patience or out_of_time:
                break
    network.load_state_dict(weights)
    merge(encoder)
    network.eval().cpu().to(memory_format=torch.contiguous_format)
    truth, logits_there = predict_chips(network, normalize, validation)  # as exactly as it will be applied
    return Trained(score(truth, logits_there), best_step, truth, logits_there)


def parameter_groups(network: nn.Module, encoder: Encoder, settings: FinetuneSettings) -> list[dict[str, Any]]:
    """What learns, with its peak learning rate and weight decay: the head, and each layer of the encoder at its own.

    Biases, norms and other parameters of one dimension are not decayed, as in BEiT and MAE.
    """
    own = {id(p): settings.encoder_rate * rate for p, rate in _encoder_rates(encoder, settings)}
    inside = {id(p) for p in encoder.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        share = own.get(id(parameter), 0.0) if id(parameter) in inside else 1.0
        if share and parameter.requires_grad:
            groups.setdefault((share, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": each,
            "lr": settings.learning_rate * share,
            "weight_decay": settings.weight_decay if decayed else 0.0,
        }
        for (share, decayed), each in groups.items()
    ]


def _encoder_rates(encoder: Encoder, settings: FinetuneSettings) -> list[tuple[nn.Parameter, float]]:
    if settings.encoder == "frozen":
        return []
    found = rates(encoder, settings.layer_decay)
    return [(parameter, found[name]) for name, parameter in encoder.named_parameters()]


def schedule(done: float) -> float:
    """Learning rate as a share of its peak, from the share of the training that is done: warm-up, then a cosine."""
    if done < WARM_UP:
        return (done + 0.01) / (WARM_UP + 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - WARM_UP) / (1 - WARM_UP))))


def predict_chips(
    network: nn.Module, normalize: Normalize, chips: Chips, batch: int = 8, *, kept: KeptMaps | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Truth (N,) and logits (N, K) of all labelled pixels of the chips, in their order.

    Parameters
    ----------
    kept:
        What the network's encoder says of these chips, where it is frozen.
    """
    network.eval()
    where = next(itertools.chain(network.parameters(), network.buffers())).device
    normalize.to(where)
    truth, logits = [], []
    for start in range(0, len(chips), batch):
        part = slice(start, start + batch)
        label = chips.label[part]
        with torch.inference_mode():
            if kept is not None:
                found = kept.network.decide(kept.plain(np.arange(start, start + len(label))), label.shape[1:])
            else:
                valid = torch.from_numpy(chips.valid[part]).to(where)
                found = network(normalize(torch.from_numpy(chips.image[part]).to(where), valid), valid)
            out = found.float().movedim(1, -1).cpu().numpy()
        known = label != NO_LABEL
        truth.append(label[known])
        logits.append(out[known])
    return np.concatenate(truth), np.concatenate(logits)


def temperature(logits: NDArray[np.float32], truth: NDArray[np.uint8]) -> float:
    """What to divide logits by, so that their softmax is as sure as it is right (Guo et al. 2017).

    Parameters
    ----------
    logits, truth:
        (N, K) and (N,) of pixels that taught nothing.
    """
    rows = np.arange(len(truth))
    # a class never taught has −inf everywhere; its pixels would make every temperature equally bad
    known = np.isfinite(logits[rows, truth])
    if not known.any():
        return 1.0
    some, rows, target = logits[known].astype(np.float64), rows[: known.sum()], truth[known]

    def loss(log_t: float) -> float:
        return float(-log_softmax(some / np.exp(log_t), axis=1)[rows, target].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


Draw = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]
"""Which windows, by how many quarters each is turned, and whether it is then mirrored."""


def _draws(windows: int, size: int, rng: np.random.Generator) -> Iterator[Draw]:
    """Endless shuffled batches; every window is mirrored and turned at random."""
    order: NDArray[np.int64] = np.zeros(0, np.int64)
    while True:
        while len(order) < size:
            order = np.concatenate([order, rng.permutation(windows)])
        rows, order = order[:size], order[size:]
        yield rows, rng.integers(0, 4, size), rng.integers(0, 2, size).astype(bool)


def _turned(
    array: NDArray[Any], rows: NDArray[np.int64], turns: NDArray[np.int64], mirrored: NDArray[np.bool_]
) -> Tensor:
    """The windows of a draw, all dates alike."""
    turned = [np.rot90(array[r], k, (-2, -1)) for r, k in zip(rows, turns, strict=True)]
    return torch.from_numpy(np.stack([a[..., ::-1] if m else a for a, m in zip(turned, mirrored, strict=True)]))
