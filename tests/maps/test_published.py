"""A published map is found again by its name, release or folder, and says what it is."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from geossl.errors import StoreError
from geossl.maps.predict import predict_map
from geossl.maps.publish import publish_map, tiles_folder
from geossl.maps.published import find_map
from geossl.maps.settings import MapSettings


@pytest.fixture
def publish(collection, new_task, tmp_path):
    """Publishes ``landcover`` below ``tmp_path / maps``; every time of other pixels."""
    task, root = new_task(), tmp_path / "maps"

    def run(number=0, **options):
        collection.images["x0y0"] = np.roll(collection.images["x0y0"], 40 * number, axis=2)
        collection.revised["x0y0"] = number
        settings = MapSettings(overlap=8, keep=1)
        steps = dict.fromkeys(collection.tile_ids, (0,))
        report = predict_map(task, collection, steps, tiles_folder(root, "landcover"), settings=settings)
        about = {"legend": task.legend, "grid": collection.grid, "encoder": None, "settings": settings}
        return publish_map(report, root, "landcover", **about, **options)

    return run


def test_a_map_describes_itself(publish, new_task, tmp_path):
    release = publish()
    root = tmp_path / "maps"
    found = find_map(root, "landcover")
    assert found == find_map(root, f"landcover/{release.id}") == find_map(root, release.folder)
    assert (found.name, found.id, found.folder) == ("landcover", release.id, release.folder)
    assert (found.model, found.collection, found.dates) == ("pointwise-1", "toy", ("2020-03-01",))
    legend = new_task().legend
    assert [(c.code, c.name, c.color.lower()) for c in found.legend] == [(c.code, c.name, c.color) for c in legend]
    assert found.classes == release.classes
    # a copy elsewhere is still the same release
    shutil.copytree(release.folder, tmp_path / "copy")
    assert find_map(root, tmp_path / "copy").id == release.id
    with pytest.raises(StoreError, match=f"no published map 'roads'.*\n.*landcover/{release.id}"):
        find_map(root, "roads")
    (release.folder / "landcover-lineage.json").write_text(json.dumps({"tiles": []}))
    with pytest.raises(StoreError, match="is damaged"):
        find_map(root, "landcover")


def test_a_project_that_was_copied_without_its_links(publish, tmp_path):
    release = publish()
    latest = tmp_path / "maps" / "landcover" / "latest"
    assert latest.resolve() == release.folder
    latest.unlink()
    shutil.copytree(release.folder, latest)
    with pytest.raises(StoreError, match=r"latest is a folder where a link belongs.*\n.*releases as well; copy with"):
        publish(1)
    shutil.rmtree(latest)
    assert publish(2).folder == latest.resolve()


def test_what_is_pinned_stays_however_old(publish, tmp_path):
    first = publish()
    second = publish(1, pinned={first.id})
    assert first.folder.is_dir()
    third = publish(2, pinned={first.id})
    assert {path.name for path in first.folder.parent.iterdir()} == {first.id, third.id} != {second.id}
