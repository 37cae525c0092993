"""torchrun, which ends when the process that started it ends: ``python -m geossl.train.remote.agent PARENT ARGUMENTS``."""

from __future__ import annotations

import sys

from geossl.train.remote.rank import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    from torch.distributed.run import main

    main(sys.argv[2:])
