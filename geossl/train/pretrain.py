"""Pretraining: an encoder from unlabelled chips.

Read :func:`pretrain` from top to bottom. Loop, devices and precision are Lightning's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

import geossl
from geossl.bands import Sensor, Statistics
from geossl.errors import TrainingError
from geossl.methods.registry import build_method
from geossl.nets.adapt import architecture_of, start
from geossl.nets.card import Card
from geossl.nets.encoder import build_encoder
from geossl.nets.pretrained import load_source
from geossl.nets.weights import load_card, save_encoder
from geossl.progress import Progress, silent
from geossl.train.checkpoint import (
    Checkpoint,
    ChipBatches,
    Interrupt,
    Remaining,
    alone,
    fingerprint,
    go_on,
    load,
    reached,
)
from geossl.train.copies import Copies
from geossl.train.device import alone_on, own
from geossl.train.health import Health, HealthMonitor
from geossl.train.history import History, Log, Watch, ignored
from geossl.train.kinds import Kind, Kinds, require_mixable
from geossl.train.launch import (
    determinism,
    gang,
    memory_kept,
    placement,
    quiet_lightning,
    rank,
    threads,
    wait_for_ranks,
)
from geossl.train.module import Pretraining
from geossl.train.settings import PretrainSettings

_MAY_CHANGE = {"minutes", "threads", "bad_chunks"}  # a run that differs in these alone goes on from its checkpoint


def pretrain(
    settings: PretrainSettings,
    loader: ChipBatches,
    *,
    sensor: Sensor,
    statistics: Statistics,
    snapshot: str | None,
    folder: Path,
    pool: Sequence[Kind] = (),
    watch: Mapping[str, Watch] | None = None,
    log: Log = ignored,
    progress: Progress = silent,
) -> Card:
    """Train an encoder and write it, with its card, into ``folder``.

    A run that was cut off goes on from ``folder/checkpoints/last.ckpt`` when it is called again with
    the same settings and imagery, and (with a fixed number of epochs) ends with the very weights
    that it would have had anyway. On another number of ranks it goes on too, through the same chips in the
    same order and in batches that on all ranks together are as large as before. ``folder/history.csv``
    grows while it runs.

    Parameters
    ----------
    loader:
        Chip batches of stored numbers: ``image`` (B, C, H, W), or (B, 2, C, H, W) for a method that
        wants pairs of dates, and ``valid`` (B, [2,] H, W). They are normalised here, on the device. With
        ``beside``, a dict of the like, a batch has another image of each place, for a method that compares views.
    statistics:
        Per band, in stored units; travels with the encoder.
    snapshot:
        Cube snapshot that the chips come from.
    pool:
        Where not all batches are of ``sensor``: the kind of each member, in the order of the batches' ``member``.
    watch:
        More columns of the history: what is to be known of the encoder now and then. Nothing follows from it.
    log:
        Told each row of the history as it is written, on the first rank.

    Raises
    ------
    TrainingError
        The chips do not fit the method or sensor, or the training collapsed; then no encoder is written.
    SettingsError
        What it is to start from fits neither its network nor its bands; or what cannot learn from several
        sensors is to do so; or the batches of a run that goes on cannot be shared out to this many ranks.
    StoreError
        What it is to start from cannot be read or downloaded.
    SystemExit
        With status 143 after SIGTERM and 138 after SIGUSR1; a checkpoint is written.
    """
    if len(loader) == 0:
        raise TrainingError("there are no chips to train on", "lower min_clear or batch_size, or ingest more scenes")
    if pool:
        require_mixable(settings, pool)
    folder.mkdir(parents=True, exist_ok=True)
    source = None if settings.init is None else load_source(settings.init)
    # by its id, not by the folder that it lay in; and wherever it is trained
    plain = settings.model_dump(mode="json", exclude={"init": {"encoder"}, "launch": True, "checkpoints": True})
    identity: dict[str, Any] = {
        "settings": {name: value for name, value in plain.items() if name not in _MAY_CHANGE},
        "source": None if source is None else source.name,
        "sensor": sensor.to_dict(),
        "statistics": statistics.to_dict(),
        "snapshot": snapshot,
    }
    if others := [kind.to_dict() for kind in pool]:
        identity["pool"] = others
    checkpoint = folder / "checkpoints" / "last.ckpt"
    with (
        # before the ranks meet: they would not wait for each other so long
        alone_on(own(), f"the training in {folder}", progress),
        gang(),
        alone(checkpoint.parent),
        torch.random.fork_rng(devices=[]),
        threads(settings.threads),
        determinism(settings.deterministic),
        memory_kept(),
        quiet_lightning(),
        Interrupt() as interrupt,
    ):
        copies = None if settings.checkpoints is None else Copies(settings.checkpoints, fingerprint(identity))
        if copies is not None:
            if rank() == 0:
                copies.fetch(checkpoint, reached(checkpoint, identity))
            wait_for_ranks()
        saved = load(checkpoint, identity)
        if saved:
            go_on(loader, saved, checkpoint)
        torch.manual_seed(settings.seed)
        architecture = architecture_of(settings.encoder, source, chip=settings.chip)
        encoder = build_encoder(architecture, sensor.bands)
        origin = {}
        if settings.init is not None and source is not None:
            origin = start(encoder, source, settings.init, sensor, statistics)
        if others:
            origin = {**origin, "pool": others}
        method = build_method(settings.method, encoder)
        if saved:
            method.load_state_dict(saved["method"])
        step, seconds = (saved["step"], saved["seconds"]) if saved else (0, 0.0)
        module = Pretraining(
            settings,
            method,
            Kinds(pool or [Kind(sensor, statistics)]),
            len(loader),
            step=step,
            seconds=seconds,
            health=Health(**saved["health"]) if saved and saved["health"] else None,
        )
        if saved and module.average is not None:
            module.average.load_state_dict(saved["average"])
        monitor = HealthMonitor()
        batches = Remaining(loader, settings.epochs, step)
        trainer = Trainer(
            max_epochs=1,  # one pass over what is left
            callbacks=[
                History(module, folder / "history.csv", monitor, progress, watch or {}, batches, log),
                interrupt,
                Checkpoint(module, checkpoint, loader, saved, copies),
            ],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **placement(settings.precision),
        )
        finished = step >= module.max_steps or (settings.minutes is not None and seconds >= 60 * settings.minutes)
        if not finished:
            _fit(trainer, module, batches)
        monitor.conclude(module.health)
        if trainer.is_global_zero:
            card = Card(
                architecture=architecture,
                sensor=sensor,
                statistics=statistics,
                method=settings.method.name,
                settings=plain,
                origin=origin,
                snapshot=snapshot,
                code_version=geossl.__version__,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                health=module.health.to_dict() if module.health else {},
            )
            save_encoder(folder, encoder if module.average is None else module.average, card)
            if copies is not None:
                copies.clear()
        wait_for_ranks()
    return load_card(folder)


def _fit(trainer: Trainer, module: Pretraining, batches: Remaining) -> None:
    try:
        trainer.fit(module, batches)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt from None
        raise
