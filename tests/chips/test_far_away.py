"""Reading from a store that takes long to answer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from geossl.chips.cache import ChunkCache
from geossl.chips.index import build_index
from geossl.chips.loader import ChipLoader
from geossl.chips.reader import ChipReader
from geossl.cube.repository import Cube
from tests.cube.s3_servers import BUCKET, KEY, SECRET, Traffic, far_away, moto, reached

LATE = 0.05  # seconds


@pytest.fixture(scope="module")
def far_cube(tiny_cube: Cube) -> Iterator[tuple[Cube, Traffic]]:
    """The tiny cube in a bucket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what botocore does on import
        import boto3

    with moto() as endpoint:
        client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )
        for path in Path(tiny_cube.uri).rglob("*"):
            if path.is_file():
                client.put_object(Bucket=BUCKET, Key=f"tiny/{path.relative_to(tiny_cube.uri)}", Body=path.read_bytes())
        client.close()
        with far_away(endpoint, LATE) as (address, traffic), reached(address):
            yield Cube.open(f"s3://{BUCKET}/tiny"), traffic


def test_requests_of_several_batches_overlap_and_later_epochs_ask_for_nothing(
    far_cube: tuple[Cube, Traffic], tmp_path: Path
) -> None:
    cube, traffic = far_cube
    collection = cube.view().collection("sentinel-2-l2a")
    index = build_index(collection, 256, min_clear=0.0)
    loader = ChipLoader(ChipReader(collection, ChunkCache(tmp_path)), index, 4)
    for tile_id in collection.tile_ids:  # what an index of a larger cube would have asked for long before
        loader.reader._tile(tile_id)
    before, traffic.peak = traffic.reads, 0
    first = sorted(chip.numpy().tobytes() for batch in loader for chip in batch["image"])
    a_batch = 4 * 2  # image and quality
    # inline chunks come with the manifests: most quality chunks are one number repeated
    assert traffic.reads - before >= len(index)
    assert traffic.peak > a_batch / 2 * 1.5
    before = traffic.reads
    assert sorted(chip.numpy().tobytes() for batch in loader for chip in batch["image"]) == first
    assert traffic.reads == before
