"""Starting two ranks as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_ranks(module: str, folder: Path, *arguments: str) -> None:
    """Run ``python -m MODULE FOLDER RANK …`` for ranks 0 and 1 at once; fails where one of them does."""
    command, root = [sys.executable, "-m", module, str(folder)], Path(__file__).parents[2]
    both = [
        subprocess.Popen(
            [*command, str(rank), *arguments],
            cwd=root,
            env=os.environ | hosts_of_one_gpu(rank),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate()[1] for rank in both]
    assert [rank.returncode for rank in both] == [0, 0], said


def hosts_of_one_gpu(rank: int) -> dict[str, str]:
    """What lets NCCL take ranks that share a GPU for hosts of their own, which speak over the network."""
    return {"NCCL_HOSTID": f"host-{rank}", "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
