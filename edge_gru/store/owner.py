"""Who writes in a store: root acts as the user whose folder it is."""

from __future__ import annotations

import os
from pathlib import Path

from edge_gru.errors import StoreError


def become_owner(root: Path) -> None:
    """Give up root's rights for those of the owner of a store, or of the folder that it will be in.

    What is written then belongs to the service, and a link that somebody planted there leads root
    nowhere. Another user than root stays who it is.

    Raises:
        StoreError: there is no such folder.
    """
    if os.geteuid() != 0:
        return
    place = next((folder for folder in (root, *root.parents) if folder.exists()), None)
    if place is None:
        raise StoreError(f"expected a folder for the store {root}, found none; make it")
    owner = place.stat()
    if owner.st_uid == 0:
        return
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
