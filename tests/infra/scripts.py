"""What the start scripts of ``infra/bin`` say of themselves."""

from __future__ import annotations

import re
from pathlib import Path

from .stack import BIN

_NAME = re.compile(r"\b[A-Z][A-Z0-9_]{4,}\b")


def variables(script: Path | str) -> set[str]:
    """The environment variables that a script's first comment names."""
    lines = (BIN / Path(script).name).read_text().splitlines()[1:]
    head = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return set(_NAME.findall("\n".join(head)))


def names() -> set[str]:
    """All scripts."""
    return {path.name for path in BIN.iterdir() if path.suffix != ".sh"}


def secrets(text: str) -> dict[str, str]:
    """What `make-secrets` printed."""
    return dict(line.split("=", 1) for line in text.splitlines())
