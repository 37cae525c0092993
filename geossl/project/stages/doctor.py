"""`geossl doctor`: is this machine ready, and if not, what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from geossl.errors import GeosslError

if TYPE_CHECKING:
    from geossl.project.project import Project

_PACKAGES = ("torch", "lightning", "timm", "torchgeo", "zarr", "icechunk", "dask", "rasterio", "xarray", "prefect")
_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "GPKG")
_GB = 1e9
_STORE_NEEDS = 5 * _GB


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    what: str
    found: str
    advice: str = ""
    """What to do; empty where all is well."""
    serious: bool = False
    """Whether geossl cannot work like this."""


def doctor(project: Path | None) -> tuple[Table, bool]:
    """All findings as a table, and whether none of them is serious."""
    findings = [*_python(), *_packages(), *_torch(), *_gdal(), *_machine(project or Path())]
    if project is not None:
        findings.extend(_project(project))
    table = Table("", "what", "found", "what to do", title="geossl doctor")
    for finding in findings:
        mark = "[red]✗" if finding.serious else "[yellow]!" if finding.advice else "[green]✓"
        table.add_row(mark, finding.what, finding.found, finding.advice)
    return table, not any(finding.serious for finding in findings)


def _python() -> Iterator[Finding]:
    old = sys.version_info < (3, 12)
    yield Finding("Python", platform.python_version(), "geossl needs 3.12 or newer" if old else "", serious=old)
    windows = sys.platform == "win32"
    yield Finding(
        "system",
        f"{platform.system()} {platform.machine()}",
        "not tried on Windows itself: use WSL2 (see the README)" if windows else "",
    )


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", "install geossl again: make env", serious=True)


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", f"does not import: {error}", "install geossl again: make env", serious=True)
        return
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / _GB
        yield Finding("GPU", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB")
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "Apple MPS")
    else:
        yield Finding("GPU", "none: training runs on the CPU")
    site = Path(torch.__file__).parents[1]
    cuda = torch.version.cuda
    size = sum(
        entry.stat().st_size
        for name in ("torch", "nvidia", "triton")
        for entry in (site / name).rglob("*")
        if entry.is_file()
    )
    advice = ""
    if cuda and not torch.cuda.is_available():
        advice = (
            "without a GPU, UV_TORCH_BACKEND=cpu make env (in a new .venv) downloads about 0.2 GB"
            " instead of about 3 GB, and takes about 1 GB on disk"
        )
    yield Finding("torch build", f"{'CUDA ' + cuda if cuda else 'CPU only'}, {size / _GB:.1f} GB on disk", advice)


def _gdal() -> Iterator[Finding]:
    import rasterio
    from rasterio.drivers import raster_driver_extensions
    from rasterio.env import Env

    with Env() as env:
        drivers = env.drivers()
    missing = [name for name in _DRIVERS if name not in drivers]
    readable = len(raster_driver_extensions())
    yield Finding(
        "GDAL",
        f"{rasterio.__gdal_version__}, {readable} raster formats",
        f"drivers missing: {', '.join(missing)}; install rasterio from a wheel" if missing else "",
        serious=bool(missing),
    )


def _machine(folder: Path) -> Iterator[Finding]:
    yield Finding("cores", str(os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()))
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GB
        yield Finding("memory", f"{memory:.0f} GB", "8 GB or more are wanted" if memory < 7.5 else "")
    free = shutil.disk_usage(folder.resolve() if folder.is_dir() else folder.resolve().parent).free
    yield Finding(
        "free disk", f"{free / _GB:.0f} GB", "" if free > _STORE_NEEDS else "free at least 5 GB", serious=free < _GB
    )


def _project(path: Path) -> Iterator[Finding]:
    from geossl.project.project import Project

    try:
        project = Project.load(path)
    except GeosslError as error:
        yield Finding("project file", error.what, error.remedy or "mend it", serious=True)
        return
    yield Finding(
        "project file", f"{project.settings.name}: {len(project.sensor.bands)} bands of {project.sensor.name}"
    )
    yield from _inputs(project)
    if not (project.store / "cube").exists():
        yield Finding("cube", "none yet", "geossl ingest")
        return
    try:
        view = project.cube().view()
        yield Finding("cube", f"{', '.join(view.collections()) or 'empty'}; snapshot {view.snapshot}")
    except GeosslError as error:
        yield Finding("cube", error.what, error.remedy, serious=True)
    store_writable = os.access(project.store, os.W_OK)
    yield Finding(
        "store", str(project.settings.store), "" if store_writable else "is read-only", serious=not store_writable
    )


def _inputs(project: Project) -> Iterator[Finding]:
    """Folders of imagery and files of labels that are named and not there."""
    from geossl.imagery.folder import FolderSettings
    from geossl.imagery.sources import open_source

    for settings in project.settings.sources:
        if isinstance(settings, FolderSettings):
            try:
                open_source(settings, project.root)
            except GeosslError as error:
                yield Finding("sources", error.what, error.remedy, serious=True)
    for name, task in project.settings.tasks.items():
        for path in task.labels.paths if task.labels is not None else ():
            if not (project.root / path).exists():
                yield Finding("labels", f"{project.root / path} does not exist", f"check tasks.{name}.labels.path")
