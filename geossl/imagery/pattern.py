"""File name patterns for people: ``{scene}_{date:%Y%m%d}_{band}.tif``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import escape
from pathlib import Path

from geossl.errors import SettingsError

_DIRECTIVES = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{2}",
    "%d": r"\d{2}",
    "%j": r"\d{3}",
    "%H": r"\d{2}",
    "%M": r"\d{2}",
    "%S": r"\d{2}",
    "%b": r"[A-Za-z]{3}",
}
_TOKEN = re.compile(r"\{(\w*)(?::([^}]*))?\}|(\*)|(\?)")


@dataclass(frozen=True, slots=True)
class NameParts:
    """What one file name says."""

    scene: str | None
    band: str | None
    """As the pattern's band names spell it."""
    date_text: str | None
    time: datetime | None


class NamePattern:
    """A pattern of paths below a folder.

    ``{scene}`` is any text without a slash, ``{band}`` one of the given names (in any case),
    ``{date:FORMAT}`` a date in the notation of ``strftime`` (``%Y%m%d`` where none is given), ``*`` any
    text and ``?`` any character without a slash. A placeholder that comes twice must say the same twice.

    Raises
    ------
    SettingsError
        The pattern has another placeholder, an unknown date directive, or leaves the folder.
    """

    def __init__(self, pattern: str, bands: Iterable[str]) -> None:
        self.pattern = pattern
        self.date_format: str | None = None
        self._bands = {band.lower(): band for band in bands}
        self.placeholders: set[str] = set()
        regex, glob, end = "", "", 0
        for token in _TOKEN.finditer(pattern):
            literal = pattern[end : token.start()]
            name, argument, star, one = token.groups()
            part = self._placeholder(name, argument) if name is not None else "[^/]*" if star else "[^/]"
            regex += re.escape(literal) + part
            glob += escape(literal) + (one or "*")
            end = token.end()
        self._regex = re.compile(regex + re.escape(pattern[end:]))
        self._glob = glob + escape(pattern[end:])
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise SettingsError(f"pattern {pattern!r} leaves the folder", "give it relative to `path`")

    def files(self, folder: Path) -> list[tuple[Path, NameParts]]:
        """All files below a folder that match, by name, with what their names say."""
        found = ((path, self.match(path.relative_to(folder).as_posix())) for path in sorted(folder.glob(self._glob)))
        return [(path, parts) for path, parts in found if parts is not None and path.is_file()]

    def match(self, name: str) -> NameParts | None:
        """What a relative path says, or None where it does not match."""
        if not (match := self._regex.fullmatch(name)):
            return None
        said = match.groupdict()
        time = None
        if self.date_format is not None:
            try:
                time = datetime.strptime(said["date"], self.date_format).replace(tzinfo=UTC)
            except ValueError:  # digits that are no date
                return None
        band = said.get("band")
        return NameParts(said.get("scene"), band and self._bands[band.lower()], said.get("date"), time)

    def _placeholder(self, name: str, argument: str | None) -> str:
        if name not in ("scene", "band", "date") or (argument is not None and name != "date"):
            shown = f"{{{name}:{argument}}}" if argument is not None else f"{{{name}}}"
            raise SettingsError(
                f"pattern {self.pattern!r}: {shown} is not a placeholder",
                "use {scene}, {band} and {date:%Y%m%d} (any strftime format)",
            )
        if name == "date":
            text = argument or "%Y%m%d"
            if self.date_format not in (None, text):
                raise SettingsError(f"pattern {self.pattern!r} gives the date in two formats")
            self.date_format = text
        if name in self.placeholders:
            return f"(?P={name})"
        self.placeholders.add(name)
        return f"(?P<{name}>{self._expression(name)})"

    def _expression(self, name: str) -> str:
        if name == "scene":
            return "[^/]+"
        if name == "band":
            longest_first = sorted(self._bands, key=len, reverse=True)
            return f"(?i:{'|'.join(map(re.escape, longest_first))})"
        return re.sub(r"%?.", self._directive, self.date_format or "")

    def _directive(self, match: re.Match[str]) -> str:
        text = match[0]
        if not text.startswith("%"):
            return re.escape(text)
        if text not in _DIRECTIVES:
            raise SettingsError(
                f"pattern {self.pattern!r}: {text} is not a date directive that is understood",
                f"use {' '.join(_DIRECTIVES)}",
            )
        return _DIRECTIVES[text]
