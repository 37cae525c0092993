"""The form opens in QGIS itself, offscreen: drop-downs, pictures by path, and what may be edited."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from geossl.areas.sample import Sample, write_points

QGIS = "/usr/bin/python3"

LOOK = """
import json, sys
from qgis.core import (QgsApplication, QgsExpression, QgsExpressionContext, QgsExpressionContextUtils, QgsProject,
    QgsVectorLayer)
QgsApplication.setPrefixPath("/usr", True)
app = QgsApplication([], True)
app.initQgis()
layer = QgsVectorLayer(sys.argv[1], "points", "ogr")
assert layer.isValid()
QgsProject.instance().addMapLayer(layer)
fields = {f.name(): i for i, f in enumerate(layer.fields())}
setup = {name: layer.editorWidgetSetup(i) for name, i in fields.items()}
picture = setup["picture"].config()
context = QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(layer))
root = QgsExpression(picture["PropertyCollection"]["properties"]["propertyRootPath"]["expression"]).evaluate(context)
form = layer.editFormConfig()
print(json.dumps({
    "widgets": {name: s.type() for name, s in setup.items()},
    "classes": [list(entry)[0] for entry in setup["reference"].config()["map"]],
    "readonly": [name for name, i in fields.items() if form.readOnly(i)],
    "root": root,
    "viewer": picture["DocumentViewer"],
    "rules": [rule.label() for rule in layer.renderer().rootRule().children()],
    "alias": layer.attributeDisplayName(fields["reference"]),
}))
app.exitQgis()
"""


@pytest.mark.slow
def test_qgis_shows_the_form(sample: Sample, tmp_path: Path) -> None:
    if not Path(QGIS).exists() or shutil.which("qgis_process") is None:
        pytest.skip("QGIS is not installed")
    path = write_points(tmp_path, sample)
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([QGIS, "-c", LOOK, path], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["widgets"]["reference"] == found["widgets"]["confidence"] == "ValueMap"
    assert found["widgets"]["picture"] == "ExternalResource"
    assert found["classes"] == list(sample.legend.names)
    assert found["readonly"] == ["plot", "picture", "lon", "lat"]
    assert found["root"] == str(tmp_path)
    assert int(found["viewer"]) == 1
    assert found["rules"] == ["open", "answered"]
    assert found["alias"] == "what it is"
