"""``python -m tests.benchmarks [--only NAME,NAME]``: run benchmarks, print a table, write ``out/bench.json``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import traceback
from pathlib import Path

from .harness import BENCHES, Result, Skipped, run, save, show

OUT = Path("out")


def main() -> int:
    """Exit status 1 where a benchmark failed; the others run all the same."""
    broken: dict[str, str] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name != "__main__":
            try:
                importlib.import_module(f".{module.name}", __package__)
            except ImportError as error:
                broken[f"{module.name}.py"] = str(error)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    names = ", ".join(sorted(BENCHES))
    parser.add_argument("--only", metavar="NAME,NAME", default="", help=f"run some of {names}")
    only = [name for name in parser.parse_args().only.split(",") if name]
    if unknown := [name for name in only if name not in BENCHES]:
        parser.error(
            "; ".join(
                [f"no benchmark is called {', '.join(unknown)}", f"there are {names}"]
                + [f"{file} cannot be imported: {reason}" for file, reason in broken.items()]
            )
        )

    results: list[Result] = []
    failed = {} if only else broken
    skipped: dict[str, str] = {}
    for name in only or sorted(BENCHES):
        print(f"{name} …", flush=True)
        try:
            results.append(run(BENCHES[name], OUT))
        except Skipped as reason:
            skipped[name] = str(reason)
        except Exception as error:  # one broken peer must not hide the other figures
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}"
        save(results, OUT)  # whoever stops the run keeps what it has found
    show(results)
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")
    for name, why in failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
