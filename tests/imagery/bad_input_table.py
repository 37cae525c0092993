"""Bad inputs, each beside a good scene: ``python -m tests.imagery.bad_input_table`` prints what becomes of them.

Every case goes the way of a real ingest: source, order, cube. Before it, an earlier scene was ingested.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geossl.bands import Band, Radiometry, Sensor
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.scenes import quarantined
from geossl.cube.settings import IngestSettings
from geossl.grid import Grid
from geossl.imagery import raster, retry, web
from geossl.imagery.folder import FolderSettings
from geossl.imagery.scene import Rejected, Scene, in_order
from geossl.imagery.sources import open_source
from geossl.imagery.stac import StacSettings

from . import servers

GRID = Grid("EPSG:32622", 10, 256)
TILE = GRID[0, 7]
SENSOR = Sensor(
    "toy",
    (Band("B1", None, 10.0), Band("B2", None, 10.0)),
    Radiometry(dtype="int16", scale=1e-4, nodata=-32768, unit="reflectance"),
)
PATTERN = "{date}_{band}.tif"
JP2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}


def numbers(seed: int) -> NDArray[np.int16]:
    """(2, 256, 256), as random as to fill many blocks of a file."""
    return np.random.default_rng(seed).integers(1, 9_999, (2, 256, 256)).astype(np.int16)


def write(path: Path, array: NDArray[Any], **profile: Any) -> Path:
    """One band on the tile, in blocks of 64 pixels."""
    said = {"driver": "GTiff", "crs": GRID.crs, "transform": TILE.transform}
    if profile.get("driver", "GTiff") == "GTiff":
        said |= {"nodata": -32768, "tiled": True, "blockxsize": 64, "blockysize": 64}
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = array.shape
    with rasterio.open(path, "w", count=1, height=rows, width=columns, dtype=array.dtype, **said | profile) as file:
        file.write(array, 1)
    return path


def write_scene(folder: Path, date: str, seed: int) -> tuple[Path, Path]:
    """Both bands of a good scene."""
    first, second = (write(folder / f"{date}_B{index + 1}.tif", band) for index, band in enumerate(numbers(seed)))
    return first, second


Spoil = Callable[[Path], None]
"""Make one of the scene 2020-05-06, whose two files lie in the folder, a bad one."""


def replace_by(content: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "20200506_B2.tif").write_bytes(content)

    return spoil


def cut(folder: Path) -> None:
    path = folder / "20200506_B2.tif"
    path.write_bytes(path.read_bytes()[:-20_000])


def cut_jp2(folder: Path) -> None:
    for index, band in enumerate(numbers(2)):
        path = write(folder / f"20200506_B{index + 1}.jp2", band, **JP2)
        (folder / f"20200506_B{index + 1}.tif").unlink()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def huge(folder: Path) -> None:
    profile = {"driver": "GTiff", "crs": GRID.crs, "transform": TILE.transform, "sparse_ok": True, "tiled": True}
    path = folder / "20200506_B2.tif"
    with rasterio.open(path, "w", width=10**6, height=10**6, count=1, dtype="int16", **profile):
        pass


def all_nan(folder: Path) -> None:
    for path in folder.iterdir():
        with rasterio.open(path) as file:
            reflectance = file.read(1) * np.float32(1e-4)
        write(path, reflectance, nodata=np.nan)
    write(folder / "20200506_B2.tif", np.full((256, 256), np.nan, np.float32), nodata=np.nan)


def complex_numbers(folder: Path) -> None:
    write(folder / "20200506_B2.tif", numbers(2)[1].astype(np.complex64), nodata=None)


def missing(folder: Path) -> None:
    (folder / "20200506_B2.tif").unlink()


def renamed(folder: Path) -> None:
    (folder / "20200506_B2.tif").rename(folder / "20200506_B02.tif")


def points_at_a_secret(folder: Path) -> None:
    secret = write(folder.parent / "secret.tif", numbers(9)[0])
    text = f"""<VRTDataset rasterXSize="256" rasterYSize="256"><SRS>{GRID.crs}</SRS><GeoTransform>
        {", ".join(map(str, TILE.transform.to_gdal()))}</GeoTransform><VRTRasterBand dataType="Int16" band="1">
        <SimpleSource><SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
        </VRTRasterBand></VRTDataset>"""
    (folder / "20200506_B2.tif").write_text(text)


@dataclass(frozen=True)
class Outcome:
    """What an ingest of a bad scene beside a good one did."""

    set_aside: list[tuple[str, str]]
    """Source and reason."""
    ingested: list[str]
    kept: bool
    """Whether the good scene is in the cube, with its numbers, and the earlier scene is what it was."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    run: Callable[[Path], Outcome]
    reason: str
    """What the reason must say."""


def ingested(scenes: list[Scene | Rejected], folder: Path) -> Outcome:
    """Ingest into a cube that holds the scene 2020-05-05."""
    write_scene(folder / "earlier", "20200505", 1)
    cube = Cube.create(str(folder / "cube"))
    before = list(open_source(FolderSettings(path="earlier", pattern=PATTERN), folder).scenes(SENSOR))
    ingest(cube, before, SENSOR, GRID, "toy", IngestSettings())
    report = ingest(cube, in_order(scenes), SENSOR, GRID, "toy", IngestSettings())
    view = cube.view()
    collection = view.collection("toy")
    images = dict(zip(collection.scene_ids(TILE.id), np.asarray(collection.image(TILE.id)[:]), strict=True))
    good = [name for name in images if name.endswith("20200507")]
    kept = len(good) == 1 and all(
        np.array_equal(image, numbers(1 if name.endswith("20200505") else 3))
        for name, image in images.items()
        if name.endswith(("20200505", "20200507"))
    )
    assert {entry.reason for entry in quarantined(view, "toy")} == {entry.reason for entry in report.set_aside}
    return Outcome([(entry.source, entry.reason) for entry in report.set_aside], report.ingested, kept)


def in_folder(spoil: Spoil, pattern: str = PATTERN, **settings: Any) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        write_scene(folder / "new", "20200506", 2)
        write_scene(folder / "new", "20200507", 3)
        spoil(folder / "new")
        source = open_source(FolderSettings(path="new", pattern=pattern, **settings), folder)
        return ingested(list(source.scenes(SENSOR)), folder)

    return run


def in_items(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Outcome]:
    """An item collection whose first item was changed."""

    def run(folder: Path) -> Outcome:
        items = []
        for date, seed in (("20200506", 2), ("20200507", 3)):
            files = write_scene(folder / "new", date, seed)
            (scene,) = open_source(FolderSettings(path="new", pattern=date + "_{band}.tif", date=date[:4] + "-05-" + date[6:],
                                                  scene=date), folder).scenes(SENSOR)  # fmt: skip
            assert isinstance(scene, Scene), files
            items.append(scene.to_item().to_dict(include_self_link=False))
        change(items[0])
        (folder / "all.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        return ingested(list(open_source(StacSettings(href="all.json"), folder).scenes(SENSOR)), folder)

    return run


def wrong_scale(item: dict[str, Any]) -> None:
    del item["properties"]["geossl:shift"]  # as another provider's item
    for asset in item["assets"].values():
        asset["raster:bands"] = [{"scale": 0.001, "offset": 0}]


def same_id(item: dict[str, Any]) -> None:
    item["id"] = "20200507"
    item["properties"]["datetime"] = "2020-05-08T00:00:00Z"


def dated(text: str | None) -> Callable[[dict[str, Any]], object]:
    return lambda item: item["properties"].update(datetime=text)


def served(manner: servers.Manner) -> Callable[[Path], Outcome]:
    """The bad scene lies on a server that behaves like this, the good one on a polite one."""

    def run(folder: Path) -> Outcome:
        with ExitStack() as stack:
            bad = stack.enter_context(servers.Site(folder / "new", manner))

            def move(item: dict[str, Any]) -> None:
                for name, asset in item["assets"].items():
                    asset["href"] = f"{bad.url}/20200506_{name}.tif"
                item["properties"]["updated"] = "2020-06-01T00:00:00Z"

            return in_items(move)(folder)

    return run


CASES = (
    Case("truncated TIFF", in_folder(cut), "the end of .* is missing"),
    Case("truncated JP2", in_folder(cut_jp2, "{date}_{band}.*"), "cannot be read to its end|is not a readable"),
    Case("HTML page saved as .tif", in_folder(replace_by(b"<!DOCTYPE html><html>")), "is a web page or XML"),
    Case("file of zero bytes", in_folder(replace_by(b"")), "is empty"),
    Case("zip archive named .tif", in_folder(replace_by(b"PK\3\4" + bytes(60))), "is not a readable GTiff file"),
    Case("VRT that points at a secret file", in_folder(points_at_a_secret), "is a web page or XML, not a raster"),
    Case("declared 10⁶ × 10⁶", in_folder(huge), "declares 1000000 × 1000000 pixels, too many"),
    Case("band of NaN", in_folder(all_nan, physical=True), "holds nothing but no-data"),
    Case("file of complex numbers", in_folder(complex_numbers), "complex"),
    Case("missing band", in_folder(missing), "has no band B2"),
    Case("renamed band", in_folder(renamed), "has no band B2"),
    Case("wrong scale in the metadata", in_items(wrong_scale), "scale|step"),
    Case("another scene's id, other bytes", in_items(same_id), "already a scene 20200507"),
    Case("date missing", in_items(dated(None)), "time|datetime"),
    Case("date in the future", in_items(dated("2199-01-01T00:00:00Z")), "which cannot be right"),
    Case("date of a clock that was never set", in_items(dated("1970-01-01T00:00:00Z")), "which cannot be right"),
    Case("asset vanishes half way", served(servers.vanishing), r"is not there \(HTTP 404\)"),
    Case("server stalls", served(servers.stalling()), "cannot be read to its end"),
    Case("server sends 500s", served(servers.failing(500, half_way=False)), "answers with HTTP 500"),
    Case("server sends half a range", served(servers.half_ranges(honest=True)), "cannot be read to its end"),
    Case("server sends another part than asked for", served(servers.other_part), "answers with another part"),
    Case("server hangs up half way", served(servers.half_ranges(honest=False)), "cannot be read to its end"),
    Case("login page instead of the file", served(servers.login_page), "is a web page or XML"),
)

IMPATIENT = {"GDAL_HTTP_RETRY_DELAY": "0.01", "GDAL_HTTP_LOW_SPEED_TIME": "1", "GDAL_HTTP_CONNECTTIMEOUT": "1"}
"""For GDAL, so that a server that stalls costs seconds."""


def main() -> None:
    """Print the table as Markdown."""
    raster.GDAL_OPTIONS.update(IMPATIENT)
    retry.PAUSE = web.PAUSE = 0.01
    web.TIMEOUT = 1
    print("| case | what came out | what was kept |")
    print("|---|---|---|")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            outcome = case.run(Path(folder))
            reasons = "; ".join(reason.replace(folder, "…") for _, reason in outcome.set_aside)
            kept = "the good scene and all earlier pixels" if outcome.kept else "NOT ALL"
            print(f"| {case.name} | set aside: {reasons} | {kept} |")


if __name__ == "__main__":
    main()
