"""Bearing with a few damaged chunks: a long training does not end for one of a million, nor go on without telling."""

from __future__ import annotations

import logging
import threading

from geossl.errors import StoreError

_log = logging.getLogger(__name__)


class Damage:
    """The damaged chunks met so far.

    Parameters
    ----------
    limit:
        How many are borne with.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def bear(self, error: StoreError) -> None:
        """Report what is wrong with a chunk, once.

        Raises
        ------
        StoreError
            It is one too many.
        """
        with self._lock:
            if error.what in self._known:
                return
            if len(self._known) == self.limit:
                if not self.limit:
                    raise error
                raise StoreError(f"{error.what} (the {self.limit} before it were passed over)", error.remedy) from error
            self._known.add(error.what)
            _log.warning(
                "%s; its pixels count as not seen (%d of at most %d such chunks)",
                error.what,
                len(self._known),
                self.limit,
            )
