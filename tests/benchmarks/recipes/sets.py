"""The sets: real imagery as geossl projects, made once below ``out/recipes`` by geossl's own stages."""

from __future__ import annotations

import warnings
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geossl.progress import silent
from geossl.project.project import Project
from geossl.project.stages.run import stage

OUT = Path("out/recipes")
DATA = Path(__file__).parents[4] / "shared" / "data"

ZION = """\
name: zion
sensor: {{ name: landsat-8-l1, bands: [B2, B3, B4, B5], nodata: 65535 }}
sources:
  - kind: folder
    path: "{source}"
    pattern: "landsat_b{{band}}.tif"
    bands: {{ B2: "2", B3: "3", B4: "4", B5: "5" }}
    scene: LC80380342015230LGN00
    date: 2015-08-18
composite: null
tasks:
  landcover:
    kind: landcover
    labels:
      path: "{source}/nlcd.tif"
      classes:
        - {{ name: water, code: 1, color: "#476ba0" }}
        - {{ name: developed, code: 2, color: "#d99482" }}
        - {{ name: barren, code: 3, color: "#b3aea3" }}
        - {{ name: forest, code: 4, color: "#68aa63" }}
        - {{ name: shrubland, code: 5, color: "#ccba7c" }}
        - {{ name: herbaceous, code: 6, color: "#e2e2c1" }}
        - {{ name: cultivated, code: 7, color: "#dbd83d" }}
        - {{ name: wetlands, code: 8, color: "#bad8ea" }}
"""

RSTOOLBOX = """\
name: rstoolbox
sensor:
  name: landsat-5-numbers
  dtype: uint8
  bands:
    - {{ name: B1, wavelength: 0.485, gsd: 30, common_name: blue }}
    - {{ name: B2, wavelength: 0.56, gsd: 30, common_name: green }}
    - {{ name: B3, wavelength: 0.66, gsd: 30, common_name: red }}
    - {{ name: B4, wavelength: 0.83, gsd: 30, common_name: nir }}
    - {{ name: B5, wavelength: 1.65, gsd: 30, common_name: swir16 }}
    - {{ name: B6, wavelength: 11.45, gsd: 120, common_name: lwir }}
    - {{ name: B7, wavelength: 2.215, gsd: 30, common_name: swir22 }}
sources:
  - {{ kind: folder, path: "{source}", pattern: "lsat.tif", bands: [B1, B2, B3, B4, B5, B6, B7], scene: LT52240631988227CUB02, date: 1988-08-14 }}
composite: null
split: {{ block: 64, buffer: 8 }}
tasks:
  landcover:
    kind: landcover
    labels:
      path: "{source}/lsat_labels.tif"
      classes:
        - {{ name: cleared, code: 1, color: "#d99482" }}
        - {{ name: fallen dry, code: 2, color: "#ccba7c" }}
        - {{ name: forest, code: 3, color: "#68aa63" }}
        - {{ name: water, code: 4, color: "#476ba0" }}
"""

CITY = """\
name: {city}
sensor: {{ name: sentinel-2-l1c, bands: [B02, B03, B04, B05, B06, B07, B08, B8A, B11, B12] }}
sources:
  - {{ kind: folder, path: "{source}/images/{city}/imgs_1", pattern: "*_{{band}}.tif", scene: first, date: {before} }}
  - {{ kind: folder, path: "{source}/images/{city}/imgs_2", pattern: "*_{{band}}.tif", scene: second, date: {after} }}
composite: null
"""

CHANGE = """\
tasks:
  change:
    kind: change
    before: {before}
    after: {after}
    labels:
      path: change.tif
      classes:
        - {{ name: no change, code: 0, color: "#ffffff", values: [1] }}
        - {{ name: change, code: 1, color: "#d7191c", values: [2] }}
"""

LANDCOVER = {"zion": (ZION, "zion-landsat8-nlcd"), "rstoolbox": (RSTOOLBOX, "rstoolbox-amazon")}
"""Project file and folder of the imagery."""

LABELLED = ("aguasclaras", "bercy", "bordeaux", "hongkong", "nantes", "paris", "rennes")
UNLABELLED = ("brasilia", "milano", "montpellier", "norcia", "rio", "valencia")
"""The cities of OSCD that are here."""


def landcover(name: str) -> Path:
    """Folder of the project of a land-cover set, with its imagery and labels in the cube."""
    text, folder = LANDCOVER[name]
    return made(OUT / name / "project", text.format(source=DATA / folder)).root


def besides(name: str) -> list[list[Path]]:
    """The folders of the other sets whose imagery is a cube, each one's projects."""
    return [*([landcover(other)] for other in LANDCOVER if other != name), [*map(city, (*UNLABELLED, *LABELLED))]]


def city(name: str) -> Path:
    """Folder of the project of one city of OSCD: two dates, and labels of change where there are any."""
    source = DATA / "oscd"
    lines = (source / "images" / name / "dates.txt").read_text().splitlines()
    before, after = (f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in (line.split(":")[1].strip() for line in lines if ":" in line))
    folder = OUT / "oscd" / name
    text = CITY.format(city=name, source=source, before=before, after=after)
    if name in LABELLED:
        text += CHANGE.format(before=before, after=after)
        _georeference(source / "train_labels" / name / "cm" / f"{name}-cm.tif", source / "images" / name, folder)
    return made(folder, text).root


def made(folder: Path, text: str) -> Project:
    """The project of that file, with its imagery and labels in the cube."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "geossl.yaml").write_text(text)
    project = Project.load(folder)
    for verb in ("ingest", "stats"):
        stage(verb)(project, silent)
    return project


def _georeference(labels: Path, images: Path, folder: Path) -> None:
    """OSCD's labels say nothing of where they lie: on the pixels of the first date's 10 m bands."""
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(next((images / "imgs_1").glob("*_B02.tif"))) as band:
        profile = {"crs": band.crs, "transform": band.transform}
        shape = band.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(labels) as file:
            codes = file.read(1)
    assert codes.shape == shape, f"{labels} has another shape than the images"
    with rasterio.open(
        folder / "change.tif", "w", "GTiff", shape[1], shape[0], 1, dtype="uint8", compress="deflate", **profile
    ) as file:
        file.write(codes, 1)
