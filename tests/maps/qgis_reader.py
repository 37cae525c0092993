"""What QGIS understands of a project, as JSON, and a picture of its map and legend.

Run by the Python that has PyQGIS: ``python3 qgis_reader.py PROJECT PICTURE``.
"""

import json
import sys

from qgis.core import (
    QgsApplication,
    QgsLayerTreeModel,
    QgsLegendRenderer,
    QgsLegendSettings,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRenderContext,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor, QImage, QPainter


def plain(value):
    """A date as text, and what is empty as None."""
    if hasattr(value, "isNull") and value.isNull():
        return None
    return value.toString("yyyy-MM-dd") if hasattr(value, "toString") else value


def describe(layer):
    found = {
        "name": layer.name(),
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "extent": [
            layer.extent().xMinimum(),
            layer.extent().yMinimum(),
            layer.extent().xMaximum(),
            layer.extent().yMaximum(),
        ],
        "source": layer.publicSource(),
    }
    renderer = layer.renderer()
    found["renderer"] = renderer.type()
    if renderer.type() == "paletted":
        found["classes"] = [[int(c.value), c.label, c.color.name()] for c in renderer.classes()]
        found["band"] = renderer.band()
    elif renderer.type() == "singlebandpseudocolor":
        items = renderer.shader().rasterShaderFunction().colorRampItemList()
        found["classes"] = [[item.value, item.label, item.color.name()] for item in items]
        sample = layer.dataProvider().sample(layer.extent().center(), 1)
        found["centre"] = sample[0]
    elif renderer.type() == "categorizedSymbol":
        found["classes"] = [[c.value(), c.label(), c.symbol().color().name()] for c in renderer.categories()]
        found["fields"] = [[field.name(), field.typeName()] for field in layer.fields()]
        feature = next(layer.getFeatures())
        found["feature"] = [plain(value) for value in feature.attributes()]
        found["count"] = layer.featureCount()
    return found


def tree(group):
    return [
        {"name": node.name(), "shown": node.isVisible(), "children": tree(node) if hasattr(node, "addGroup") else []}
        for node in group.children()
    ]


def draw(project, path):
    """The layers that are shown, and the whole legend beside them."""
    settings = QgsMapSettings()
    settings.setLayers(project.layerTreeRoot().checkedLayers())
    settings.setDestinationCrs(project.crs())
    settings.setExtent(project.viewSettings().defaultViewExtent())
    settings.setOutputSize(QSize(900, 900))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    model = QgsLayerTreeModel(project.layerTreeRoot())  # the legend does not keep it alive
    legend = QgsLegendRenderer(model, QgsLegendSettings())
    size = legend.minimumSize()  # millimetres
    dots = 4
    picture = QImage(900 + int(size.width() * dots) + 40, max(900, int(size.height() * dots) + 40), QImage.Format_RGB32)
    picture.fill(QColor("white"))
    picture.setDotsPerMeterX(dots * 1000)
    picture.setDotsPerMeterY(dots * 1000)
    painter = QPainter(picture)
    painter.drawImage(0, 0, job.renderedImage())
    painter.translate(920, 20)
    painter.scale(dots, dots)
    context = QgsRenderContext.fromQPainter(painter)
    legend.drawLegend(context)
    painter.end()
    return picture.save(path) and not job.errors()


def main():
    application = QgsApplication([], False)
    application.initQgis()
    project = QgsProject.instance()
    opened = project.read(sys.argv[1])
    extent = project.viewSettings().defaultViewExtent()
    found = {
        "opened": opened,
        "title": project.title(),
        "crs": project.crs().authid(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "layers": {layer.id(): describe(layer) for layer in project.mapLayers().values()},
        "tree": tree(project.layerTreeRoot()),
        "drawn": draw(project, sys.argv[2]),
    }
    print(json.dumps(found))
    application.exitQgis()


main()
