"""`geossl release`: a reporting year frozen, checked, and compared with what a newer model says."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geossl
from geossl.areas.clearing import clear_year
from geossl.areas.release import (
    YearRelease,
    area_row,
    period,
    problems,
    release_id,
    releases,
    seal,
    series,
    write_areas,
    year_by_name,
)
from geossl.downstream.settings import RIVER
from geossl.errors import SettingsError, StoreError
from geossl.files import aside
from geossl.legend import Legend
from geossl.maps.published import Published, find_map
from geossl.project.project import Project
from geossl.project.settings import ChangeTask


@dataclass(frozen=True)
class Frozen:
    """A release, and what is to be said of it."""

    release: YearRelease
    fresh: bool
    """Whether it was made now."""
    notes: list[str]


def change_task(project: Project, name: str | None) -> str:
    """The change task that is meant.

    Raises
    ------
    SettingsError
        There is none of that name, or several and none was named.
    """
    tasks = [task for task, settings in project.settings.tasks.items() if isinstance(settings, ChangeTask)]
    if name is None and len(tasks) == 1:
        return tasks[0]
    if name in tasks:
        return str(name)
    what = f"{name!r} is no change task" if name else "say which change task by --task"
    raise SettingsError(what, f"there are: {', '.join(tasks)}" if tasks else "the project file names none")


def freeze(project: Project, year: int, *, task: str | None = None, why: str | None = None) -> Frozen:
    """Release a year from a task's newest map.

    Parameters
    ----------
    why:
        Reason for a revision of a year that was released before.

    Raises
    ------
    StoreError
        The year was released from something else before, or a later year was; or the map or its model is not there.
    SettingsError
        The map is of another time than the year.
    """
    name = change_task(project, task)
    settings = project.settings.release
    published = find_map(project.maps, name)
    folder = project.releases / name
    known = releases(folder)
    content = _describe(project, published, year)
    of_year = [release for release in known if release.year == year]
    other = _differences(of_year[-1].content, content) if of_year else []
    if of_year and not other:
        return Frozen(of_year[-1], fresh=False, notes=[])
    if of_year and why is None:
        raise StoreError(
            f"{year} was released on {of_year[-1].content['created'][:10]} with another {', '.join(other)}",
            'a released year stays as it is; `--revise "why"` adds a revision beside it',
        )
    if why is not None and not of_year:
        raise StoreError(f"{year} was not released yet, so there is nothing to revise", "leave out --revise")
    later = [release for release in known if release.year > year]
    if later and not of_year:
        raise StoreError(
            f"{later[0].year} is released already, and counts what was cleared since the year before it",
            "release years in their order",
        )
    earlier = [release for release in series(known) if release.year < year]
    revision = of_year[-1].revision + 1 if of_year else 1
    target = folder / release_id(year, revision)
    model = _model_folder(project, name, published.model)
    with aside(target) as partial:
        shutil.copytree(published.folder, partial / "map")
        shutil.copytree(model, partial / "model")
        areas = clear_year(
            partial / "map" / f"{published.name}.tif",
            content["codes"],
            year,
            earlier[-1].mask if earlier else None,
            cleared=partial / "cleared.tif",
            mask=partial / "mask.tif",
            minimum_ha=settings.minimum_ha,
        )
        card = json.loads((model / "card.json").read_text(encoding="utf-8"))
        content |= {
            "revision": revision,
            "why": why,
            "revises": of_year[-1].id if of_year else None,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "weights": card["weights"],
            "after": [release.id for release in earlier],
            "areas": {f"{key}_ha": round(value, 4) for key, value in asdict(areas).items()},
            "code_version": geossl.__version__,
        }
        content["notes"] = _notes(published, content, earlier, later)
        write_areas(partial / "areas.csv", [area_row(release.content) for release in earlier] + [area_row(content)])
        project.cube().tag(content["tag"] + ("" if revision == 1 else f"-r{revision}"), content["snapshot"])
        seal(partial, content)
    done = next(release for release in releases(folder) if release.folder == target)
    return Frozen(done, fresh=True, notes=content["notes"])


def verify(project: Project, year: int | None, *, task: str | None = None) -> dict[str, list[str]]:
    """What is wrong with each release (of a year), by id; nothing where it is as it was released."""
    found = releases(project.releases / change_task(project, task))
    chosen = found if year is None else year_by_name(found, year)
    if not chosen:
        raise StoreError("no year was released yet", "`geossl release YEAR` releases one")
    tags = project.cube().tags()
    out = {}
    for release in chosen:
        wrong = list(problems(release))
        tag = release.content["tag"] + ("" if release.revision == 1 else f"-r{release.revision}")
        if tags.get(tag) != release.content["snapshot"]:
            wrong.append(f"the cube's tag {tag} is gone or names another snapshot")
        out[release.id] = wrong
    return out


def table(project: Project, *, task: str | None = None) -> list[dict[str, Any]]:
    """Hectares by released year, newest revisions."""
    return [area_row(release.content) for release in series(releases(project.releases / change_task(project, task)))]


def _describe(project: Project, published: Published, year: int) -> dict[str, Any]:
    """What a release of a map would rest on; refuses a map of another time."""
    settings = project.settings.release
    first, last = period(year, settings.start_month)
    if len(published.dates) != 2:
        raise SettingsError(f"the map {published.name!r} has one date", "a release needs a map of change")
    seen = _days(published.dates[1])
    if seen[1] < first or seen[0] > last:
        raise SettingsError(
            f"the later image of the map {published.name!r} ({published.dates[1]}) lies outside of the reporting year "
            f"{year} ({first} to {last})",
            f"set tasks.{published.name}.after to a date in it and run `geossl map`, or change release.start_month",
        )
    snapshot = project.cube().tags().get(published.tag)
    if snapshot is None:
        raise StoreError(f"the cube has no tag {published.tag}", "this map is of another store; map it again")
    return {
        "task": published.name,
        "year": year,
        "period": [first.isoformat(), last.isoformat()],
        "map": published.id,
        "dates": list(published.dates),
        "model": published.model,
        "snapshot": snapshot,
        "collection": published.collection,
        "tag": f"release-{published.name}-{year}",
        "legend": published.legend.to_dict(),
        "codes": _codes(published.legend, settings.classes),
        "minimum_ha": settings.minimum_ha,
        "start_month": settings.start_month,
    }


def _differences(old: Any, new: dict[str, Any]) -> list[str]:
    """What a released year rests on and what it would rest on now, where they are not the same."""
    return [
        f"{key} ({old.get(key)}, now {value})"
        for key, value in json.loads(json.dumps(new)).items()
        if old.get(key) != value
    ]


def _codes(legend: Legend, wanted: Sequence[str] | None) -> list[int]:
    codes = dict(zip(legend.names, legend.codes, strict=True))
    if wanted is None:
        return [codes[name] for name in legend.names[1:] if name != RIVER]
    if unknown := [name for name in wanted if name not in codes]:
        raise SettingsError(
            f"release.classes: the map has no class {', '.join(map(repr, unknown))}",
            f"its classes are {', '.join(codes)}",
        )
    return [codes[name] for name in wanted]


def _days(text: str) -> tuple[dt.date, dt.date]:
    first, _, last = text.partition(" to ")
    return dt.date.fromisoformat(first), dt.date.fromisoformat(last or first)


def _model_folder(project: Project, task: str, model: str) -> Path:
    for version in project.registry.versions(task):
        folder = project.store / version.folder
        if folder.name == model and folder.is_dir():
            return folder
    raise StoreError(f"the model {model} of the map is no longer in the store", "map again, then release")


def _notes(
    published: Published, content: dict[str, Any], earlier: Sequence[YearRelease], later: Sequence[YearRelease]
) -> list[str]:
    """What a reader of the figures should know."""
    notes = [
        "hectares are counted pixels, errors included; `geossl sample` and `geossl area` give an area with interval"
    ]
    before = _days(published.dates[0])
    start = dt.date.fromisoformat(content["period"][0])
    if earlier:
        seen = _days(earlier[-1].content["dates"][1])
        if before[0] > seen[1]:
            notes.append(f"clearings between {seen[1]} and {before[0]} are in no release: the images leave a gap")
    elif (start - before[1]).days > 366:
        notes.append(f"the first release: it holds whatever was cleared since {before[0]}")
    if later:
        ids = ", ".join(release.id for release in later)
        notes.append(f"{ids} rest on the earlier revision of this year, and stay as they are until they are revised")
    return notes
