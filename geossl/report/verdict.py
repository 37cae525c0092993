"""What pretraining gained over none, in words that claim no more than the intervals do."""

from __future__ import annotations

from collections.abc import Sequence

from geossl.report.records import Comparison

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
