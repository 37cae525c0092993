"""Places to be labelled, opened by what they are for: QGIS."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import geopandas
import pytest
from shapely.geometry import box

from geossl.legend import LandClass
from geossl.maps.places import write_places

LAND = (LandClass(1, "forest", "#1f6b3a"), LandClass(2, "still water", "#2b6cb0"))

LOOK = """
import json, os, sys
from qgis.core import QgsApplication, QgsVectorLayer
QgsApplication.setPrefixPath("/usr", True)
qgis = QgsApplication([], False)
qgis.initQgis()
layer = QgsVectorLayer(sys.argv[1], "places", "ogr")
renderer = layer.renderer()
column = layer.fields().indexOf("class")
widget = layer.editorWidgetSetup(column)
with_value = [(c.value(), c.label(), c.symbol().color().name()) for c in renderer.categories()]
layer.startEditing()
layer.changeAttributeValue(next(layer.getFeatures()).id(), column, json.loads(sys.argv[2]))
assert layer.commitChanges(), layer.commitErrors()
told = {
    "renderer": renderer.type(), "attribute": renderer.classAttribute(), "categories": with_value,
    "widget": widget.type(), "choices": widget.config(), "labels": layer.labelsEnabled(),
    "rank": layer.labeling().settings().fieldName,
}
print("TOLD" + json.dumps(told), flush=True)
os._exit(0)  # QGIS 3.22 crashes while Python takes its objects apart
"""


@pytest.mark.slow
@pytest.mark.parametrize("values", [("forest", "still water"), (10, 20)], ids=["words", "numbers"])
def test_qgis_opens_the_layer_with_its_style_and_fills_it(tmp_path: Path, values: tuple[int | str, int | str]) -> None:
    if not Path("/usr/bin/qgis_process").exists():
        pytest.skip("needs Debian's qgis and python3-qgis")
    column = "string" if isinstance(values[0], str) else "Int32"
    frame = geopandas.GeoDataFrame(
        {"rank": [1, 2], "class": [None, None]},
        geometry=[box(5e5, 0, 5e5 + 50, 50), box(5e5 + 100, 0, 5e5 + 150, 50)],
        crs="EPSG:32622",
    ).astype({"class": column})
    path = tmp_path / "next places.gpkg"
    write_places(path, frame, "class", dict(zip(LAND, values, strict=True)))
    out = subprocess.run(
        ["/usr/bin/python3", "-c", LOOK, str(path), json.dumps(values[1])],
        env={"PATH": os.environ["PATH"], "QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "may only be partially supported" not in out.stderr
    lines = [line for line in out.stdout.splitlines() if line.startswith("TOLD")]
    assert lines, out.stderr
    told = json.loads(lines[0].removeprefix("TOLD"))
    assert (told["renderer"], told["attribute"]) == ("categorizedSymbol", "class")
    assert [label for _, label, _ in told["categories"]] == ["forest", "still water", "to be labelled"]
    assert [color for _, _, color in told["categories"]][:2] == [land.color for land in LAND]
    assert told["widget"] == "ValueMap"
    assert told["choices"] == {"map": [{land.name: str(value)} for land, value in zip(LAND, values, strict=True)]}
    assert (told["labels"], told["rank"]) == (True, "rank")
    # what was chosen there is what is read here
    read = geopandas.read_file(path, layer="next places")
    assert read["class"][0] == values[1]
    assert read["class"].isna().tolist() == [False, True]
