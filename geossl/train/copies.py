"""Copies of a run's checkpoints in a bucket, for machines whose disk goes with them.

A copy is one object, named by its step and its checksum, and is there whole or not at all: stores show an upload
once it has ended. Whoever goes on reads the newest whose checksum holds. The two newest are kept.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from geossl.errors import StoreError
from geossl.files import write_bytes

if TYPE_CHECKING:
    from obstore.store import ObjectStore

KEPT = 2
_WAIT = 60.0
"""Seconds that a run which ends waits for its last copy; machines that are taken away give about as many."""
_log = logging.getLogger(__name__)


class Copies:
    """The copies of one run.

    Parameters
    ----------
    uri:
        ``s3://bucket/prefix``, ``gs://…`` or ``az://…``; credentials come from the environment.
    run:
        Names the run; copies of others are left alone.
    """

    def __init__(self, uri: str, run: str) -> None:
        from geossl.imagery.buckets import open_bucket

        self.uri = uri
        self._store: ObjectStore
        self._store, prefix = open_bucket(uri)
        self._prefix = f"{prefix}/{run}/".lstrip("/")
        self._latest: tuple[int, bytes] | None = None
        self._changed = threading.Condition()
        self._busy = False

    def fetch(self, path: Path, step: int) -> bool:
        """Write the newest copy to ``path``, if one is beyond ``step``; whether there was one.

        Raises
        ------
        StoreError
            The bucket cannot be read.
        """
        from obstore.exceptions import BaseError

        try:
            for name in reversed(self._names()):
                if _step(name) <= step:
                    return False
                content = bytes(self._store.get(name).bytes())
                if _name(_step(name), content) == name.rpartition("/")[2]:
                    write_bytes(path, content)
                    return True
                _log.warning("%s in %s is damaged and passed over", name, self.uri)
        except (BaseError, FileNotFoundError) as error:
            raise self._unreachable(error) from error
        return False

    def put(self, path: Path, step: int) -> None:
        """Copy a checkpoint in the background; one that still waits for an earlier one to end gives way to it."""
        content = path.read_bytes()
        with self._changed:
            self._latest = (step, content)
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._work, name="checkpoint copies", daemon=True).start()

    def wait(self) -> None:
        """Return when all is copied, or after a minute."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._busy, _WAIT):
                _log.warning("the last checkpoint could not be copied to %s in %.0f s", self.uri, _WAIT)

    def clear(self) -> None:
        """Remove all copies of a run that is finished; they are only in the way if that fails."""
        self.wait()
        self._try(partial(self._keep, 0))

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._latest is None:
                    self._busy = False
                    self._changed.notify_all()
                    return
                (step, content), self._latest = self._latest, None
            self._try(partial(self._put, step, content))

    def _put(self, step: int, content: bytes) -> None:
        self._store.put(self._prefix + _name(step, content), content)
        self._keep(KEPT)

    def _keep(self, newest: int) -> None:
        names = self._names()
        if old := names[: max(0, len(names) - newest)]:
            self._store.delete(old)

    def _try(self, act: Callable[[], None]) -> None:
        """A bucket that cannot be reached is no reason to end a training: the checkpoint on disk is there."""
        from obstore.exceptions import BaseError

        try:
            act()
        except (BaseError, OSError) as error:
            _log.warning("%s", self._unreachable(error))

    def _names(self) -> list[str]:
        """Oldest first."""
        found = [one["path"] for page in self._store.list(self._prefix) for one in page]
        return sorted(name for name in found if name.endswith(".ckpt"))

    def _unreachable(self, error: BaseException) -> StoreError:
        text = str(error).partition("\n")[0]
        return StoreError(f"checkpoints in {self.uri} cannot be reached: {text}", "check address and credentials")


def _name(step: int, content: bytes) -> str:
    return f"{step:012d}-{hashlib.blake2b(content, digest_size=16).hexdigest()}.ckpt"


def _step(name: str) -> int:
    return int(name.rpartition("/")[2].partition("-")[0])
