"""Names of snapshots.

Icechunk lets nobody use the name of a deleted tag again. So a name that comes back carries a number there
(``embed-1f~2``), and none outside of here.
"""

from __future__ import annotations

import itertools
import re

import icechunk

from geossl.errors import StoreError

_AGAIN = re.compile(r"~\d+$")


def snapshots(repository: icechunk.Repository) -> dict[str, str]:
    """Tag → snapshot id."""
    return {name: repository.lookup_tag(stored) for name, stored in sorted(_stored(repository).items())}


def create(repository: icechunk.Repository, name: str, snapshot: str) -> None:
    """Name a snapshot. The same name and snapshot again do nothing.

    Raises
    ------
    StoreError
        The name is that of another snapshot, or there is no such snapshot.
    """
    for number in itertools.count(1):
        if (stored := _stored(repository).get(name)) is not None:
            if (there := repository.lookup_tag(stored)) != snapshot:
                raise StoreError(f"tag {name!r} already names snapshot {there}, not {snapshot}", "choose another name")
            return
        try:
            repository.create_tag(name if number == 1 else f"{name}~{number}", snapshot)
        except icechunk.AlreadyExistsError:  # deleted, or made by another machine just now
            continue
        except icechunk.IcechunkError as error:
            raise StoreError(f"snapshot {snapshot} cannot be tagged {name!r}: {error}") from error


def delete(repository: icechunk.Repository, name: str) -> None:
    """Delete a tag, if it is there."""
    if (stored := _stored(repository).get(name)) is not None:
        repository.delete_tag(stored)


def _stored(repository: icechunk.Repository) -> dict[str, str]:
    """Name → what Icechunk calls it."""
    return {_AGAIN.sub("", stored): stored for stored in repository.list_tags()}
