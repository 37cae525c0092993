from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geossl.report.records import Comparison, Score
from geossl.report.verdict import beside_floors, metric_name, signed, verdict
from geossl.scores import Interval
from geossl.scores import verdict as judge


def _comparison(mean: float, low: float | None, high: float | None, by_seed: tuple[float, ...] = ()) -> Comparison:
    reads_as = judge(Interval(mean, low, high), by_seed)
    return Comparison("cover", "blocks", 500, "pretrained", "scratch", "macro_f1", mean, low, high, reads_as)


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_gain_is_claimed_only_where_the_interval_is_above_zero(mean: float, below: float, above: float) -> None:
    low, high = mean - below, mean + above
    sentence = verdict([_comparison(mean, low, high)])
    assert ("pretraining gained" in sentence) == (low > 0)
    assert ("pretraining lost" in sentence) == (high < 0)
    assert ("no gain can be shown" in sentence) == (low <= 0 <= high)
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (_comparison(0.04, 0.01, 0.07), "gained +0.040 macro F1 over “scratch” (95 % interval +0.010 to +0.070)"),
        (_comparison(-0.04, -0.07, -0.01), "lost 0.040 macro F1 over “scratch” (95 % interval −0.070 to −0.010)"),
        (_comparison(0.2, None, None), "too few test blocks"),
        (_comparison(0.04, 0.01, 0.07, (0.1, -0.02)), "repeated draws of labels disagree"),
    ],
)
def test_what_is_said(comparison: Comparison, words: str) -> None:
    assert words in verdict([comparison])


def test_several_comparisons_make_one_sentence() -> None:
    sentence = verdict([_comparison(0.04, 0.01, 0.07), _comparison(0.0, -0.01, 0.02)])
    assert sentence.count("for cover with 500 labels") + sentence.count("For cover with 500 labels") == 2
    assert sentence.count(";") == 2  # one between the two, one before the interval
    assert sentence.startswith("For cover")


def test_without_a_comparison_nothing_is_claimed() -> None:
    assert "cannot say" in verdict([])


def test_numbers_and_names() -> None:
    assert signed(-0.0514) == "−0.051"
    assert signed(0.2) == "+0.200"
    assert metric_name("macro_iou") == "macro IoU"
    assert metric_name("average_precision") == "average precision"


def test_a_floor_that_is_as_good_is_named_and_a_worse_one_is_not() -> None:
    headline = [_comparison(0.04, 0.01, 0.07)]
    scores = [Score("cover", "blocks", 500, "pretrained", "macro_f1", 0.75)]
    scores += [Score("cover", "blocks", 500, "statistics", "macro_f1", mean, floor=True) for mean in (0.7, math.nan)]
    assert not beside_floors(headline, scores)
    for other in (("cover", "blocks", 100), ("change", "blocks", 500)):  # another number of labels, another task
        assert not beside_floors(headline, [*scores, Score(*other, "statistics", "macro_f1", 0.8, floor=True)])
    better = [*scores, Score("cover", "blocks", 500, "statistics", "macro_f1", 0.8, floor=True)]
    assert "“statistics” has 0.800, “pretrained” 0.750" in beside_floors(headline, better)
