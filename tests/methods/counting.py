"""One of two ranks that average over unequally many: ``python -m tests.methods.counting FOLDER RANK``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from geossl.methods.valid import mean_over


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    inputs, weight, counted = torch.load(folder / "in.pt")
    linear = torch.nn.Linear(3, 1, bias=False)
    linear.weight.data.copy_(weight)
    mine = slice(4 * rank, 4 * rank + 4)
    parallel = DistributedDataParallel(linear)
    mean_over(parallel(inputs[mine]).square().squeeze(1), counted[mine]).backward()
    torch.save(linear.weight.grad, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
