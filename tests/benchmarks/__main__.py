"""``python -m tests.benchmarks [--only NAME]``: run the benchmarks, print a table, write ``out/bench.json``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import traceback
from pathlib import Path

from .harness import BENCHES, Result, report, run

OUT = Path("out")


def main() -> int:
    """Exit status 1 where a benchmark failed; the others run all the same."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name != "__main__":
            importlib.import_module(f".{module.name}", __package__)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="NAME", default="", help=f"run one of {', '.join(sorted(BENCHES))}")
    only = parser.parse_args().only
    if only and only not in BENCHES:
        parser.error(f"no benchmark is called {only!r}; there are {', '.join(sorted(BENCHES))}")

    results: list[Result] = []
    failed: list[str] = []
    for name in [only] if only else sorted(BENCHES):
        print(f"{name} …", flush=True)
        try:
            results.append(run(BENCHES[name], OUT))
        except Exception:  # one broken peer must not hide the other figures
            traceback.print_exc()
            failed.append(name)
    report(results, OUT)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
