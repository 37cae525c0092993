"""``infra/local``: what geossl needs beside it, on this machine alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from services import INFRA, KINDS, Stack, StackError

EPILOGUE = """\
infra/local up                      PostgreSQL, Prefect server and worker, Dask, MLflow and S3, on loopback
. out/local/environment             now every command of this shell uses them
geossl deploy --project my-region   and so on
infra/local down                    ends them all; `up` takes up what they kept
"""


def main() -> int:
    """Do what the command line says; the exit status."""
    asked = _parser().parse_args()
    stack = Stack(asked.folder)
    try:
        if asked.verb == "status":
            return _status(stack)
        if asked.verb != "up" and not stack.settings:
            print(f"nothing was ever started in {stack.folder}")
            return 0 if asked.verb == "down" else 1
        if asked.verb == "up" and not stack.folder.exists():
            stack.folder.mkdir(parents=True)
            stack.folder.chmod(0o711)  # its files are closed; PostgreSQL, another user, has to get through
        with stack.changing():
            if asked.verb == "up":
                ports = dict(asked.port)
                stack.configure(
                    only=asked.only,
                    without=asked.without,
                    pools=asked.pool,
                    dask_workers=asked.dask_workers,
                    ports=ports,
                )
                stack.stop_unwanted()
                stack.bring_up(stack.services(), print)
                print(f"\nto use it:  . {stack.folder}/environment")
            elif asked.verb == "down":
                print(f"ended {stack.take_down()} services of {stack.folder}")
            elif asked.verb == "kill":
                stack.kill(asked.name)
            else:
                stack.stop([stack.service(asked.name).name])
                stack.bring_up([stack.service(asked.name)], print)
    except StackError as error:
        print(f"infra/local: {error}", file=sys.stderr)
        return 1
    return 0


def _status(stack: Stack) -> int:
    """A line for each service; 1 unless all are well."""
    running, ill = stack.running(), 0
    for service in stack.services():
        process = running.get(service.name)
        well = process is not None and stack.healthy(service)
        ill += not well
        how = f"process {process.pid}" if process else "does not run"
        print(f"{service.name:<16} {how:<16} {'well' if well else 'NOT WELL':<10} {service.address}")
    return 1 if ill or not stack.settings else 0


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not like prefect-server=4200")
    return name, int(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="infra/local", description=__doc__, epilog=EPILOGUE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    helps = {
        "up": "start what does not run, and wait until all of it is well",
        "down": "end all services and whatever they started",
        "status": "which services run, and are well",
        "restart": "end one service, and start it",
        "kill": "end one service by SIGKILL, to see what then happens",
    }
    for verb, said in helps.items():
        command = verbs.add_parser(verb, help=said, description=said)
        command.add_argument(
            "--folder", type=Path, default=INFRA.parent / "out/local", help="where the services keep things"
        )
        if verb in ("restart", "kill"):
            command.add_argument("name", help="as `status` prints it")
        if verb == "up":
            command.add_argument("--pool", action="append", default=[], help="work pool of a worker; may be repeated")
            command.add_argument("--only", action="append", default=[], choices=KINDS, help="may be repeated")
            command.add_argument("--without", action="append", default=[], choices=KINDS, help="may be repeated")
            command.add_argument("--dask-workers", type=int, help="2")
            command.add_argument(
                "--port", action="append", default=[], type=_port, metavar="NAME=NUMBER", help="otherwise a free one"
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
