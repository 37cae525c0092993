"""Starting two ranks as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run_ranks(module: str, folder: Path) -> None:
    """Run ``python -m MODULE FOLDER RANK`` for ranks 0 and 1 at once; fails where one of them does."""
    command, root = [sys.executable, "-m", module, str(folder)], Path(__file__).parents[2]
    both = [subprocess.Popen([*command, str(r)], cwd=root, stderr=subprocess.PIPE, text=True) for r in (0, 1)]
    said = [rank.communicate()[1] for rank in both]
    assert [rank.returncode for rank in both] == [0, 0], said
