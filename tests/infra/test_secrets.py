"""Secrets of a worker's environment are in nothing that is written: a project runs as a flow, and all of it is searched."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from obstore.store import S3Store

from geossl.demo.landscape import LandscapeSettings, write_landscape

from .composed import HOOK, PLANTED, Composed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FILE = """\
name: region
store: store
grid: {{ tile: 256 }}
cluster: {{ scheduler: "tls://127.0.0.1:{port}" }}
sensor: {{ name: sentinel-2-l2a, bands: [B02, B03, B04, B08, B11] }}
sources:
  - {{ kind: folder, path: "s3://geossl/scenes" }}
composite: {{ months: 6 }}
split: {{ block: 32, buffer: 4, fractions: [0.5, 0.2, 0.3], seed: 3 }}
pretrain: {{ method: {{ name: simclr }}, encoder: {{ name: unet-tiny }}, epochs: 1, chip: 32, batch_size: 32 }}
evaluate: {{ labels: [20], draws: 1 }}
tasks:
  landcover:
    kind: landcover
    date: 2022-10-01
    labels: {{ path: imagery/labels/landcover.gpkg, column: class }}
    settings: {{ labels: 50, finetune: {{ steps: 2, window: 64, windows: 8 }} }}
map: {{ minimum_ha: 0.1 }}
"""
PLAIN = {"MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_TRACKING_USERNAME", "AWS_ACCESS_KEY_ID"}
"""Names of users."""


def environment(whole: Composed) -> dict[str, str]:
    return whole.programs() | whole.environment("worker") | PLANTED | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def project(whole: Composed) -> Path:
    """A project whose imagery is in the bucket and whose pixels are worked on by the Dask cluster."""
    home = whole.place("worker", "/projects") / "region"
    days = (dt.date(2022, 7, 18), dt.date(2022, 10, 21))
    write_landscape(home / "imagery", LandscapeSettings(size=256, dates=days))
    told = whole.environment("worker")
    bucket = S3Store(
        "geossl", endpoint=told["AWS_ENDPOINT_URL"], region="us-east-1", client_options={"allow_http": True},
        access_key_id=told["AWS_ACCESS_KEY_ID"], secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    for path in sorted((home / "imagery/scenes").rglob("*")):
        if path.is_file():
            bucket.put(f"scenes/{path.relative_to(home / 'imagery/scenes')}", path.read_bytes())
    shutil.rmtree(home / "imagery/scenes")
    (home / "geossl.yaml").write_text(FILE.format(port=whole.port("8786")))
    return home


def test_secrets_are_in_nothing_that_is_written(whole: Composed, project: Path) -> None:
    told = environment(whole)
    said = []
    for words in (("flows.main", str(project)), ("geossl.cli.app", "status", "--project", str(project))):
        done = subprocess.run([sys.executable, "-m", *words], env=told, capture_output=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()[-4000:]
        said.append(done.stdout + done.stderr)
    # and where something fails: nothing listens there
    unreachable = told | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    words = ["geossl.cli.app", "ingest", "--project", str(project)]
    failed = subprocess.run([sys.executable, "-m", *words], env=unreachable, capture_output=True, check=False)
    assert failed.returncode == 1
    said.append(failed.stdout + failed.stderr)
    hidden = {name: value for name, value in whole.secrets.items() if name not in PLAIN} | PLANTED | {"hook": HOOK}
    for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"):
        hidden[name] = hidden[name].partition(":")[2]
    (project / "store/planted").write_text(f"… {HOOK} …")
    places = dict(written(whole)) | {f"what {number} said": text for number, text in enumerate(said)}
    assert len(places) > 100
    assert [place for place, text in places.items() if HOOK.encode() in text] == [str(project / "store/planted")]
    (project / "store/planted").unlink()
    del places[str(project / "store/planted")]
    found = [
        (name, place) for place, text in places.items() for name, value in hidden.items() if value.encode() in text
    ]
    assert found == []
    # results of tasks, which Prefect would read by unpickling them, are not kept at all
    assert not list(Path(told["PREFECT_HOME"]).glob("storage/*"))


def test_nobody_else_was_called(whole: Composed, project: Path) -> None:
    assert whole.reached == []


def written(whole: Composed) -> Iterator[tuple[str, bytes]]:
    """All that services and flows have written, but what the S3 server knows its own user by."""
    for path in sorted(whole.folder.rglob("*")):
        if path.is_file() and whole.folder / "s3" not in path.parents:
            text = path.read_bytes()
            yield str(path), text
            if path.suffix == ".parquet":  # which is compressed
                yield f"{path} as rows", str(pq.read_table(path).to_pylist()).encode()
    asked = os.environ | {"PGHOST": "127.0.0.1", "PGPORT": str(whole.port("5432")), "PGUSER": "geossl",
                          "PGPASSWORD": whole.secrets["POSTGRES_PASSWORD"]}  # fmt: skip
    for database in ("prefect", "mlflow"):  # where runs, logs and artifacts are
        dump = subprocess.run(["pg_dump", "--inserts", database], env=asked, capture_output=True, check=True).stdout
        assert len(dump) > 10_000
        yield f"the database {database}", dump
