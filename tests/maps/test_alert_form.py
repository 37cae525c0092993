"""Alerts are judged in QGIS itself, offscreen: colours, lists to choose from, and what it saves is read back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from geossl.grid import Grid
from geossl.maps.alerts.publish import FIELDS, publish_alerts, published
from geossl.maps.alerts.review import read_review
from geossl.maps.alerts.rule import CONFIRMED, DETECTED, NEVER, NONE
from geossl.maps.alerts.style import REASONS, VERDICTS
from geossl.maps.alerts.tiles import BANDS, AlertTiles

QGIS = "/usr/bin/python3"

JUDGE = """
import json, os, sys
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
QgsApplication.setPrefixPath("/usr", True)
app = QgsApplication([], True)
app.initQgis()
layer = QgsVectorLayer(sys.argv[1], "alerts", "ogr")
assert layer.isValid()
fields = {f.name(): i for i, f in enumerate(layer.fields())}
form = layer.editFormConfig()
maps = {n: layer.editorWidgetSetup(fields[n]).config().get("map", []) for n in ("review", "reason")}
assert layer.startEditing()
for feature in layer.getFeatures():
    verdict = "confirmed" if feature["status"] == "confirmed" else "rejected"
    assert layer.changeAttributeValue(feature.id(), fields["review"], verdict)
assert layer.commitChanges(), layer.commitErrors()
status = QgsRasterLayer(sys.argv[2], "status")
print(json.dumps({
    "categories": [[c.label(), c.symbol().color().name()] for c in layer.renderer().categories()],
    "choices": {name: [list(entry)[0] for entry in entries] for name, entries in maps.items()},
    "editable": [name for name, i in fields.items() if not form.readOnly(i) and name != "fid"],
    "types": {f.name(): f.typeName() for f in layer.fields()},
    "palette": [[c.label, c.color.name()] for c in status.renderer().classes()],
}), flush=True)
os._exit(0)  # QGIS crashes where Python outlives its layers
"""


@pytest.mark.slow
def test_what_qgis_saves_is_read_back(tmp_path: Path) -> None:
    if not Path(QGIS).exists() or shutil.which("qgis_process") is None:
        pytest.skip("QGIS is not installed")
    grid, store = Grid("EPSG:32722", 10, 256, (500_000, 9_500_000)), AlertTiles(tmp_path / "tiles")
    bands = {name: np.full((256, 256), {"status": NONE, "percent": 0}.get(name, NEVER), np.int16) for name in BANDS}
    for place, status in ((np.s_[20:40, 20:40], CONFIRMED), (np.s_[80:90, 80:90], DETECTED)):
        values = {"status": status, "percent": 99, "first": 3000, "raised": 3000, "standing": 2990}
        for name, value in (values | ({"confirmed": 3010} if status == CONFIRMED else {})).items():
            bands[name][place] = value
    store.write(grid.tile("x0y0"), bands, {})
    release = publish_alerts(
        store, grid, ["x0y0"], tmp_path, "toy", until=3020, minimum_ha=0.1, keep=1, root=tmp_path / "maps", since=2990
    )

    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [QGIS, "-c", JUDGE, release.polygons, release.status],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["categories"] == [
        ["detected", "#f5a9b8"],
        ["confirmed", "#dc2f6b"],
        ["confirmed by a person", "#7a0f3c"],
    ]
    assert found["palette"][1:] == found["categories"]
    assert [name for name in found["choices"]["review"] if name] == list(VERDICTS)
    assert [name for name in found["choices"]["reason"] if name] == list(REASONS)
    assert found["editable"] == ["review", "reason"]
    assert set(FIELDS) <= set(found["types"])
    assert found["types"]["first_date"] == "Date"

    review = read_review(release.polygons, grid, ["x0y0"], store, published(tmp_path))
    assert {said[0] for said in review.said.values()} == {"confirmed", "rejected"}
    assert np.count_nonzero(review.tiles["x0y0"].label == 1) == 400
