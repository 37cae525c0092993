"""Reading the project file: YAML and overrides in, validated settings out, mistakes by line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError

from geossl.errors import GeosslError, SettingsError
from geossl.project.settings import ProjectSettings

FILE_NAME = "geossl.yaml"


def load_settings(path: Path, overrides: Sequence[str] = ()) -> ProjectSettings:
    """Settings of a project file.

    Parameters
    ----------
    path:
        The file, or the folder that holds ``geossl.yaml``.
    overrides:
        ``key.path=value`` strings, the values in YAML; they win over the file and obey the same rules.

    Raises
    ------
    SettingsError
        The file is missing, is not YAML, or says something that is not allowed: names line, field,
        and what is allowed there.
    """
    path = path / FILE_NAME if path.is_dir() else path
    yaml = YAML(typ="rt")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"there is no project file {path}", "write one with `geossl init`") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SettingsError(f"{path}, line {line}: {error.problem or 'is not YAML'}") from None
    if not isinstance(data, CommentedMap):
        raise SettingsError(f"{path} is not a mapping of settings", "start from `geossl init`")
    given = [_override(data, text) for text in overrides]
    try:
        return ProjectSettings.model_validate(_plain(data))
    except ValidationError as error:
        lines = [_explain(path, data, dict(given), problem) for problem in error.errors()]
        raise SettingsError("\n".join(dict.fromkeys(lines)), "`geossl init --show` prints every field") from None
    except GeosslError as error:
        raise SettingsError(f"{path}: {error}") from None


def _override(data: CommentedMap, text: str) -> tuple[tuple[str, ...], str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SettingsError(f"--set {text!r} is not of the form key=value", "for example --set pretrain.epochs=20")
    path = tuple(key.strip().split("."))
    node: Any = data
    for name in path[:-1]:
        if node.get(name) is None:
            node[name] = CommentedMap()
        node = node[name]
        if not isinstance(node, dict):
            raise SettingsError(f"--set {text}: {name!r} holds no further fields")
    node[path[-1]] = YAML(typ="safe").load(value)
    return path, text


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_plain(value) for value in node]
    return node


def _explain(path: Path, data: CommentedMap, given: Mapping[tuple[str, ...], str], problem: Any) -> str:
    """One line for one pydantic error: where, which field, what is allowed."""
    location, line = _locate(data, problem["loc"])
    field = ".".join(map(str, location)) or "the file"
    where = next((f"--set {text}" for key, text in given.items() if location[: len(key)] == key), None)
    if where is None:
        where = f"{path}, line {line}" if line else str(path)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = _fields(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        message = f"there is no such field{f'; did you mean {close[0]!r}?' if close else ''}"
        if known:
            message += f" (allowed: {', '.join(known)})"
    elif problem["type"] == "missing":
        message = "is required"
    elif "input" in problem and not isinstance(problem["input"], dict | list):
        message += f", not {problem['input']!r}"
    return f"{where}: {field}: {message}"


def _locate(data: CommentedMap, loc: Sequence[str | int]) -> tuple[tuple[str | int, ...], int | None]:
    """The part of a pydantic location that the file really has (union tags left out), and its line."""
    node: Any = data
    line: int | None = None
    location: list[str | int] = []
    for position, key in enumerate(loc):
        if (isinstance(node, Mapping) and key in node) or (
            isinstance(node, list) and isinstance(key, int) and key < len(node)
        ):
            line = _line(node, key)
            node = node[key]  # type: ignore[index]  # narrowed above, one kind of key for each kind of node
        elif position < len(loc) - 1 or not isinstance(node, Mapping):
            continue  # a union tag
        location.append(key)
    return tuple(location), line


def _line(node: Any, key: str | int) -> int | None:
    try:
        marks = node.lc.data[key]
    except (AttributeError, KeyError, TypeError):
        return None
    return int(marks[0]) + 1


def _fields(location: Sequence[str | int]) -> list[str]:
    """Field names of the settings model at a location; empty where it is a choice of several."""
    model: Any = ProjectSettings
    for key in location:
        field = model.model_fields.get(key) if isinstance(key, str) else None
        model = field.annotation if field is not None else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
    return list(model.model_fields)
