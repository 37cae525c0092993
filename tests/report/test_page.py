from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from geossl.report.page import build_report, duration, render, score_groups
from geossl.report.records import ReportData, Score

SECTIONS = [field.name for field in dataclasses.fields(ReportData)][4:-1]
_VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """What a reader's browser would see: elements, balanced tags, styles and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.styles = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.styles += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(full: ReportData) -> Page:
    return Page(render(full))


def _addresses(styles: str) -> list[str]:
    return re.findall(r"@import|url\(\s*['\"]?(?!data:|#)[^)]*\)", styles)


def test_nothing_is_fetched(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            if value := attributes.get(name):
                assert value.startswith(("data:image/", "#")), (tag, name, value[:60])
        assert not _addresses(attributes.get("style") or "")
    assert _addresses(page.styles) == []
    assert not page.all("link")
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_every_picture_is_inside_and_described(page: Page) -> None:
    images = page.all("img")
    assert len(images) == 19
    for image in images:
        assert (image["src"] or "").startswith("data:image/")
        assert len(image["alt"] or "") > 10
    for image in images:
        kind, data = (image["src"] or "").split(",", 1)
        if "svg" in kind:
            drawing = base64.b64decode(data).decode()
            inside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", drawing)
            assert "http" not in inside.partition("<svg")[2]


def test_hostile_names_are_text(page: Page) -> None:
    assert "alert('x')" in page.text
    scripts = page.all("script")
    assert scripts == [{}]  # our own only
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_every_section_has_a_heading_that_names_it(page: Page) -> None:
    sections = page.all("section")
    headings = {h["id"] for h in page.all("h2")}
    assert {s["aria-labelledby"] for s in sections} == headings
    assert len(sections) == len(SECTIONS) - 1  # headline and comparisons share one
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_a_missing_part_is_left_out_or_says_why(empty: ReportData) -> None:
    page = Page(render(empty))
    assert [s["id"] for s in page.all("section")] == ["verdict"]
    assert not page.all("img")
    assert not page.all("script")
    assert "cannot say what pretraining gained" in page.text
    for name in SECTIONS:
        if name == "comparisons":  # told with the headline
            continue
        text = Page(render(dataclasses.replace(empty, absent={name: f"because of {name}"}))).text
        assert f"because of {name}" in text


def test_figures_are_shown(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text)
    assert "SNAP0" in text
    assert "75 % clear" in text
    assert "+0.010 … +0.090" in text
    assert "0.600 … 0.800" in text
    assert "By other metrics: accuracy" in text
    assert "0.812" in text
    # 20 × 24 pixels are mapped, 20 × 6 of them water; 100 m² each
    assert "water 25 % · 1 ha" in text
    assert "forest 75 % · 4 ha" in text
    assert "1 min 15 s" in text
    assert "1 min 15 s in all" in text
    shares = [re.sub(r"[^\d]", "", a["style"] or "") for a in page.all("td") if "cell" in (a.get("class") or "")]
    assert shares == ["80", "20", "0", "0"]  # a class without truth has no shares


def test_scores_are_compared_only_with_their_like() -> None:
    scores = [
        Score("lc", "s", 100, "a", "macro_f1", 0.5, 0.4, 0.6),
        Score("lc", "s", 100, "b", "macro_f1", 0.75),
        Score("lc", "s", 100, "c", "macro_f1", float("nan")),
        Score("lc", "s", 500, "a", "macro_f1", -1.0, -2.0, 0.0),
    ]
    first, second = score_groups(scores)
    assert [bar.score.model for bar in first.bars] == ["b", "a", "c"]
    assert [(bar.low, bar.mean, bar.high) for bar in first.bars] == [
        (None, 75, None),
        (pytest.approx(40), 50, pytest.approx(60)),
        (None, None, None),
    ]
    assert second.axis == (-2.0, 1.0)
    assert second.bars[0].mean == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (12.4, "12 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_file_is_replaced_in_one_step(full: ReportData, empty: ReportData, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert build_report(empty, path) == path
    first = path.read_text(encoding="utf-8")
    assert build_report(full, path) == path
    assert path.read_text(encoding="utf-8") == render(full) != first
    assert list(path.parent.iterdir()) == [path]
