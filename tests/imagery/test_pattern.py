from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geossl.errors import SettingsError
from geossl.imagery.pattern import NameParts, NamePattern


@given(
    scene=st.text("abcXYZ0189_-+.() ", min_size=1, max_size=12),
    band=st.sampled_from(["B1", "B10", "B1A", "qa.pixel"]),
    time=st.datetimes(datetime(1972, 1, 1), datetime(2060, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC)),
    form=st.sampled_from(["{s}__{t:%Y%m%dT%H%M%S}__{b}.tif", "[{t:%Y-%j %H.%M.%S}]/{b}/x({s}).tif"]),
)
def test_what_was_put_into_a_name_is_found_in_it(scene: Any, band: Any, time: Any, form: Any) -> None:
    pattern = form.replace("{s}", "{scene}").replace("{b}", "{band}").replace("{t:", "{date:")
    said = NamePattern(pattern, ["B1", "B10", "B1A", "qa.pixel"]).match(form.format(s=scene, b=band, t=time))
    assert said is not None
    assert (said.scene, said.band, said.time) == (scene, band, time)


def test_bands_are_spelled_in_any_case_and_nothing_else_is_a_band() -> None:
    pattern = NamePattern("a_{band}.tif", ["B2", "B02"])
    assert pattern.match("a_b02.tif") == NameParts(None, "B02", None, None)
    assert pattern.match("a_B3.tif") is None
    assert pattern.match("a_B2xtif") is None


def test_wildcards_do_not_cross_folders() -> None:
    pattern = NamePattern("*/imgs_?/{scene}.tif", [])
    assert pattern.match("rio/imgs_1/a.tif") is not None
    assert pattern.match("rio/x/imgs_1/a.tif") is None
    assert pattern.match("rio/imgs_1/a/b.tif") is None


def test_a_placeholder_twice_must_say_the_same() -> None:
    pattern = NamePattern("{date:%Y}/{scene}_{date:%Y}.tif", [])
    assert pattern.match("2020/a_2020.tif") is not None
    assert pattern.match("2020/a_2021.tif") is None


def test_digits_that_are_no_date_do_not_match() -> None:
    assert NamePattern("{date}.tif", []).match("20201332.tif") is None
    assert NamePattern("{date}.tif", []).match("20201231.tif") == NameParts(
        None, None, "20201231", datetime(2020, 12, 31, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{sensor}.tif", r"\{sensor\} is not a placeholder"),
        ("{band:02d}.tif", r"\{band:02d\} is not a placeholder"),
        ("{date:%Y%Q}.tif", "%Q is not a date directive that is understood"),
        ("{date:%Y}_{date:%m}.tif", "gives the date in two formats"),
        ("/imagery/{scene}.tif", "leaves the folder"),
        ("../{scene}.tif", "leaves the folder"),
    ],
)
def test_a_wrong_pattern_is_explained(pattern: Any, reason: Any) -> None:
    with pytest.raises(SettingsError, match=reason):
        NamePattern(pattern, ["B1"])


def test_files_come_in_order_and_folders_are_none(tmp_path: Path) -> None:
    for name in ("[b]_2021.tif", "a_2020.tif", "deep/c_2020.tif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "d_2020.tif").mkdir()
    found = NamePattern("{scene}_{date:%Y}.tif", []).files(tmp_path)
    assert [(path.name, said.scene, said.date_text) for path, said in found] == [
        ("[b]_2021.tif", "[b]", "2021"),
        ("a_2020.tif", "a", "2020"),
    ]
    assert [path.name for path, _ in NamePattern("[b]_{date:%Y}.tif", []).files(tmp_path)] == ["[b]_2021.tif"]
