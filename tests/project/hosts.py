"""Two hosts on this machine: namespaces with names and addresses of their own, joined by a cable."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """One of the two."""

    name: str
    address: str

    @property
    def before(self) -> tuple[str, ...]:
        """What a command begins with that runs there."""
        set_name = 'hostname "$0"; exec "$@"'
        there = ("ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", set_name, self.name)
        return (*there, "env", "GLOO_SOCKET_IFNAME=eth0")

    def lose(self) -> None:
        """Kill all that runs there, as a power cut does."""
        for number in _ip("netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)


def absent() -> str:
    """Why there can be none; empty where there can."""
    if os.geteuid() or not shutil.which("ip"):
        return "network namespaces are made by root, with `ip`"
    tried = subprocess.run(["ip", "netns", "add", f"geossl-{os.getpid()}"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"there are no network namespaces: {tried.stderr.strip()}"
    _ip("netns", "del", f"geossl-{os.getpid()}")
    return ""


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nothing else; what runs there ends with the block."""
    mark = os.getpid()
    hosts = Host(f"geo-a{mark}", "10.77.0.1"), Host(f"geo-b{mark}", "10.77.0.2")
    book = "127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in hosts)
    folders = [Path("/etc/netns") / host.name for host in hosts]
    try:
        for host, folder in zip(hosts, folders, strict=True):
            _ip("netns", "add", host.name)
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(book)  # `ip netns exec` shows it as /etc/hosts
        first, second = (host.name for host in hosts)
        _ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
        for host in hosts:
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host.name, "link", "set", device, "up")
        yield hosts
    finally:
        for host, folder in zip(hosts, folders, strict=True):
            host.lose()
            subprocess.run(["ip", "netns", "del", host.name], check=False)
            shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
