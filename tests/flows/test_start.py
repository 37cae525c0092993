"""How a flow starts: each run is a process of its own."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, pkgutil, importlib, flows\n"
        "for module in pkgutil.iter_modules(flows.__path__): importlib.import_module(f'flows.{module.name}')\n"
        "print('HEAVY', [name for name in ('torch', 'sklearn', 'geopandas', 'matplotlib') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in said
