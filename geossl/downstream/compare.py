"""Two or more models of a task on the gate blocks: the counts by which a challenger is let through or not.

Gate blocks decide and are therefore never reported; reported (test) blocks never decide.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geossl.bands import require_same_radiometry
from geossl.chips.split import GATE
from geossl.downstream.data import TaskData
from geossl.downstream.floors import contender
from geossl.downstream.heldout import count
from geossl.downstream.task import TrainedTask
from geossl.errors import LabelError
from geossl.progress import Progress, silent


def gate_metric(task: TrainedTask) -> str:
    """What decides about models of this kind; a name that :func:`geossl.registry.gate` knows."""
    return "average_precision" if task.dates == 2 and len(task.legend) == 2 else "macro_f1"


def gate_counts(
    data: TaskData, tasks: Mapping[str, TrainedTask], *, every: int = 1, progress: Progress = silent
) -> dict[str, NDArray[np.int64]]:
    """What each model gets right and wrong on the labelled pixels of the gate blocks, in one pass.

    Parameters
    ----------
    tasks:
        Name → model; all of one kind.
    every:
        Take every so-many-th pixel in both directions.

    Returns
    -------
    Name → (blocks, K, K) confusions with truth in rows, or where average precision decides (blocks, 2, bins) histograms; the same
    blocks in the same order for all.

    Raises
    ------
    LabelError
        No pixel of the gate blocks is labelled, or a model knows other classes than the labels do.
    RadiometryError
        A model looks at other bands or units.
    """
    for name, task in tasks.items():
        require_same_radiometry(task.sensor, data.sensor, us=f"the {name} {task.id}", them=data.collection.name)
        if task.legend.names != data.legend.names:
            raise LabelError(
                f"the {name} {task.id} knows the classes {', '.join(task.legend.names)}, the labels have "
                f"{', '.join(data.legend.names)}: they cannot be compared",
                "decide yourself: geossl promote, then geossl anchor",
            )
    found = count(
        data, [contender(name, task) for name, task in tasks.items()], every=every, subset=GATE, progress=progress
    )
    return {
        name: counts.histogram if gate_metric(tasks[name]) == "average_precision" else counts.confusion
        for name, counts in found.items()
    }
