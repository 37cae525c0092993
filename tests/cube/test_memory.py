"""What a worker holds does not grow with how many scenes there are, nor with how large they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from geossl.cluster import ClusterSettings, dask_client
from geossl.cube.ingest import ingest
from geossl.cube.repository import Cube
from geossl.cube.settings import IngestSettings

from .conftest import GRID, SENSOR, pixels_of, write_scene


def peak() -> float:
    """Most that this process has held, in MB. (What ``getrusage`` says counts its parent's share from before it began.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def held(folder: Path, scenes: int, tiles: tuple[int, int]) -> float:
    """Peak of one fresh worker, in MB, once it has ingested so many scenes of so many tiles each."""
    image = pixels_of(0, tiles[1] * GRID.tile_size, tiles[0] * GRID.tile_size)
    made = [write_scene(folder, number, tiles, image=image) for number in range(scenes)]
    with dask_client(ClusterSettings(workers=1)) as client:
        report = ingest(Cube.create(str(folder / "cube")), made, SENSOR, GRID, "s2", IngestSettings(), client)
        assert len(report.ingested) == scenes
        (most,) = client.run(peak).values()
    return most


@pytest.mark.slow
def test_a_worker_holds_no_more_for_more_scenes_nor_for_larger_ones(tmp_path: Path) -> None:
    few = held(tmp_path / "few", 4, (4, 4))
    many = held(tmp_path / "many", 32, (4, 4))  # 147 MB of pixels more
    large = held(tmp_path / "large", 4, (16, 16))  # a scene takes 84 MB instead of 5
    assert many < few + 30, f"{few:.0f} MB for 4 scenes, {many:.0f} MB for 48"
    assert large < few + 40, f"{few:.0f} MB for scenes of 16 tiles, {large:.0f} MB for scenes of 256"
