"""A year's clearings against the same rules worked out on the whole raster at once; releases and their seals."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import ndimage

from geossl.areas import clearing
from geossl.areas.clearing import NEVER_SEEN, clear_year
from geossl.areas.release import period, problems, releases, seal, series
from geossl.errors import StoreError
from geossl.legend import NO_LABEL

LEFT, TOP, HA = 500_000, 9_400_000, 0.01
"""Near the middle of a UTM zone a pixel of 10 m covers 100.08 m² on the ground."""


@pytest.fixture(autouse=True)
def _short_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "STRIP", 16)


def write(path: Path, codes: np.ndarray, row: int = 0, col: int = 0, crs: str = "EPSG:32722") -> Path:
    transform = Affine(10, 0, LEFT + 10 * col, 0, -10, TOP - 10 * row)
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, nodata=NO_LABEL, crs=crs, height=codes.shape[0],
        width=codes.shape[1], transform=transform,
    ) as raster:  # fmt: skip
        raster.write(codes, 1)
    return path


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


def blobs(seed: int, shape: tuple[int, int] = (100, 80)) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return (field > 0.18).astype(np.uint8)


def run(folder: Path, name: str, codes: np.ndarray, year: int, earlier: Path | None, minimum: float, **where: int):
    path = write(folder / f"{name}.tif", codes, **where)
    cleared, mask = folder / f"{name}-cleared.tif", folder / f"{name}-mask.tif"
    return clear_year(path, [1], year, earlier, cleared=cleared, mask=mask, minimum_ha=minimum), cleared, mask


def test_small_patches_and_ground_of_earlier_years_do_not_count(tmp_path: Path) -> None:
    first, second = blobs(1), blobs(2)
    first[:10, :10] = NO_LABEL
    second[50:60, 70:] = NO_LABEL
    minimum = 20 * HA
    one, cleared_1, mask_1 = run(tmp_path, "a", first, 2020, None, minimum)
    two, cleared_2, mask_2 = run(tmp_path, "b", second, 2021, mask_1, minimum)

    def large(fresh: np.ndarray) -> np.ndarray:
        labels, n = ndimage.label(fresh, np.ones((3, 3)))
        return np.isin(labels, 1 + np.flatnonzero(np.bincount(labels.ravel(), minlength=n + 1)[1:] >= 20))

    kept_1 = large(first == 1)
    kept_2 = large((second == 1) & ~kept_1)
    assert 0 < kept_1.sum() < (first == 1).sum()
    assert 0 < kept_2.sum() < (second == 1).sum()
    assert (read(cleared_1) == np.where(first == NO_LABEL, NO_LABEL, kept_1)).all()
    assert (read(cleared_2) == np.where(second == NO_LABEL, NO_LABEL, kept_2)).all()
    assert (read(mask_1) == np.where(kept_1, 2020, np.where(first == NO_LABEL, NEVER_SEEN, 0))).all()
    assert (read(mask_2) == np.where(kept_1, 2020, np.where(kept_2, 2021, 0))).all()
    # 0.08 % is what UTM's scale of 0.9996 does in the middle of a zone
    assert one.cleared == pytest.approx(kept_1.sum() * HA, rel=1e-3)
    assert one.before == 0
    assert two.mapped == pytest.approx((second == 1).sum() * HA, rel=1e-3)
    assert two.before == pytest.approx(((second == 1) & kept_1).sum() * HA, rel=1e-3)
    assert two.mapped == pytest.approx(two.before + two.small + two.cleared)
    assert two.cleared / (kept_2.sum() * HA) == pytest.approx(1 / 0.9996**2, rel=1e-5)


def test_maps_of_other_rectangles_share_one_mask(tmp_path: Path) -> None:
    """The second map lies to the north-west of the first: the mask grows, and forgets nothing."""
    first, second = blobs(1, (60, 50)), blobs(2, (40, 70))
    _, _, mask_1 = run(tmp_path, "a", first, 2020, None, 0.0)
    _, cleared, mask_2 = run(tmp_path, "b", second, 2021, mask_1, 0.0, row=-20, col=-30)
    whole = np.full((80, 80), NEVER_SEEN, np.uint16)
    whole[20:, 30:] = first.astype(np.uint16) * 2020
    part = whole[:40, :70]
    whole[:40, :70] = np.where((part == 0) | (part == NEVER_SEEN), second.astype(np.uint16) * 2021, part)
    assert (read(mask_2) == whole).all()
    with rasterio.open(mask_2) as raster:
        assert (raster.transform.c, raster.transform.f) == (LEFT - 300, TOP + 200)
    assert (read(cleared) == 1).sum() == (whole == 2021).sum()


def test_another_grid_is_refused(tmp_path: Path) -> None:
    _, _, mask = run(tmp_path, "a", blobs(1), 2020, None, 0.0)
    with pytest.raises(StoreError, match="another grid"):
        run(tmp_path, "b", blobs(2), 2021, mask, 0.0, crs="EPSG:32721")


def test_a_year_may_begin_in_any_month() -> None:
    assert period(2025, 1) == (dt.date(2025, 1, 1), dt.date(2025, 12, 31))
    assert period(2025, 8) == (dt.date(2024, 8, 1), dt.date(2025, 7, 31))
    assert period(2024, 3) == (dt.date(2023, 3, 1), dt.date(2024, 2, 29))


def test_whatever_is_altered_in_a_release_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "2025"
    (folder / "map").mkdir(parents=True)
    (folder / "map" / "a.tif").write_bytes(b"1")
    (folder / "mask.tif").write_bytes(b"2")
    seal(folder, {"year": 2025, "revision": 1, "areas": {}})
    (release,) = releases(tmp_path)
    assert list(problems(release)) == []
    assert not (folder / "mask.tif").stat().st_mode & 0o222
    for path, content in ((folder / "mask.tif", b"3"), (folder / "new.txt", b"")):
        path.chmod(0o644) if path.exists() else None
        path.write_bytes(content)
    (folder / "map" / "a.tif").unlink()
    assert list(problems(release)) == ["map/a.tif is missing", "mask.tif was changed", "new.txt was added"]
    about = json.loads((folder / "release.json").read_text())
    (folder / "release.json").chmod(0o644)
    (folder / "release.json").write_text(json.dumps(about | {"areas": {"cleared_ha": 1}}))
    assert next(problems(releases(tmp_path)[0])) == "release.json was changed"


def test_a_series_takes_the_newest_revision_of_each_year(tmp_path: Path) -> None:
    for name, year, revision in (("2024", 2024, 1), ("2024-r2", 2024, 2), ("2023", 2023, 1)):
        (tmp_path / name).mkdir()
        seal(tmp_path / name, {"year": year, "revision": revision})
    assert [release.id for release in series(releases(tmp_path))] == ["2023", "2024-r2"]
