"""Project files for deploying, and a flow that takes its time."""

from __future__ import annotations

from pathlib import Path

TASK = "tasks: {cover: {kind: landcover, labels: {path: labels.gpkg, column: class}}}\n"
NEVER = "schedules: {watch: null, mend: null, retrain: null, publish: null, maintain: null}"
"""Of `deploy`: nothing runs unless it is asked for."""

SLEEPER = '''\
"""A flow that says when it starts and ends, and sleeps in between."""

import os
import time
from pathlib import Path

from prefect import flow


@flow(name="geossl-sleeper")
def sleeper(folder: Path, seconds: float):
    said = folder / "said"
    with said.open("a") as file:
        file.write(f"start {os.getpid()}\\n")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
    with said.open("a") as file:
        file.write("end\\n")
'''


def project(folder: Path, name: str, more: str = "") -> Path:
    """A project file that opens; there is no imagery and there are no labels."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "geossl.yaml"
    file.write_text(f"name: {name}\nsources: [{{kind: folder, path: imagery}}]\n{more}")
    return file
