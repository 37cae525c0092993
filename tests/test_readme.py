"""What the README tells people to write and to type exists: settings are valid, verbs and options are known."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from geossl.cli.app import app
from geossl.project.settings import ProjectSettings

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "infra" / "README.md")
LEAST: dict[str, Any] = {"name": "region", "sources": [{"kind": "folder", "path": "imagery"}]}


def blocks(language: str) -> list[Any]:
    found = [
        (page.parent.name, text)
        for page in PAGES
        for fence, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
        if fence == language
    ]
    return [pytest.param(text, id=f"{folder}-{number}") for number, (folder, text) in enumerate(found)]


def commands(text: str) -> list[list[str]]:
    """The words of each line that calls geossl, without its remark."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True)) and words[0] == "geossl"]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_settings_are_valid(text: str) -> None:
    settings = YAML(typ="safe").load(text)
    if "retrain" in settings:
        settings.setdefault("split", {"gate": 0.1})
    ProjectSettings.model_validate(LEAST | settings)


@pytest.mark.parametrize("text", blocks(""))
def test_commands_are_known(text: str) -> None:
    for words in commands(text):
        app.parse_args([word.rstrip("…") for word in words], exit_on_error=False, print_error=False)


def test_something_is_looked_at() -> None:
    found = [words for block in blocks("") for words in commands(block.values[0])]
    assert len(found) > 15
    assert len(list(blocks("yaml"))) > 2
