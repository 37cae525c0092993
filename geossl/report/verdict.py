"""What pretraining gained over none, in words that claim no more than the intervals do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from geossl.report.records import Comparison, Score

_METRICS = {"macro_f1": "macro F1", "macro_iou": "macro IoU", "f1": "F1", "iou": "IoU"}


def verdict(headline: Sequence[Comparison]) -> str:
    """One sentence over all comparisons of pretrained with not pretrained."""
    if not headline:
        return (
            "Nothing was compared with an encoder that was not pretrained, "
            "so this page cannot say what pretraining gained."
        )
    sentence = "; ".join(_clause(comparison) for comparison in headline)
    return sentence[0].upper() + sentence[1:] + "."


def beside_floors(headline: Sequence[Comparison], scores: Sequence[Score]) -> str:
    """Where a floor that needs no encoder is as good as what the verdict praises: a gain over nothing is not the best map."""
    found = "; ".join(_floors(headline, scores))
    return f"Beside floors that need no pretraining: {found}." if found else ""


def _floors(headline: Sequence[Comparison], scores: Sequence[Score]) -> Iterator[str]:
    for c in headline:
        same = [
            s
            for s in scores
            if (s.task, s.split, s.labels, s.metric) == (c.task, c.split, c.labels, c.metric) and math.isfinite(s.mean)
        ]
        best = max((s for s in same if s.floor), key=lambda s: s.mean, default=None)
        ours = next((s for s in same if s.model == c.model), None)
        if best is not None and ours is not None and best.mean >= ours.mean:
            yield (
                f"for {c.task} with {c.labels:,} labels “{best.model}” has {best.mean:.3f}, "
                f"“{ours.model}” {ours.mean:.3f}"
            )


def _clause(c: Comparison) -> str:
    about = f"for {c.task} with {c.labels:,} labels"
    what = f"{metric_name(c.metric)} over “{c.against}”"
    if c.verdict == "too few blocks" or c.low is None or c.high is None:
        return f"{about}, pretraining differs by {signed(c.mean)} {what}, but there are too few test blocks to tell this from chance"
    interval = f"95 % interval {signed(c.low)} to {signed(c.high)}"
    if c.verdict == "gain":
        return f"{about}, pretraining gained {signed(c.mean)} {what} ({interval})"
    if c.verdict == "loss":
        return f"{about}, pretraining lost {signed(-c.mean).lstrip('+')} {what} ({interval})"
    why = " includes zero" if c.low <= 0 <= c.high else ", but repeated draws of labels disagree"
    return f"{about}, no gain can be shown ({signed(c.mean)} {what}; {interval}{why})"


def metric_name(metric: str) -> str:
    """As people write it: ``macro_f1`` → macro F1."""
    return _METRICS.get(metric, metric.replace("_", " "))


def signed(value: float) -> str:
    """+0.042 or −0.042, with a true minus."""
    return f"{value:+.3f}".replace("-", "−")
