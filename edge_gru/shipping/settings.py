"""deploy.toml: what goes with every board of a fleet, so that nobody types it twice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from edge_gru.errors import ConfigError
from edge_gru.settings import converted, read_toml, refuse_unknown
from edge_gru.shipping.cargo import Cargo
from edge_gru.shipping.login import Login

_MAX_POWER_MODE = 31


class DeploySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of the file; paths are relative to its folder.

    ``sensors`` maps the serial number of a USB adapter to the name that it gets in ``/dev``;
    ``boards`` are the names that the boards answer to, as in signatures of bundles. ``user``,
    ``hostname`` and ``ssh_keys``, files of public keys, go into a rootfs that is flashed;
    ``power_mode`` is the number that ``nvpmodel -q`` tells, offered over ssh.
    """

    bundle: str = ""
    pubkeys: tuple[str, ...] = ()
    config: str = ""
    boards: tuple[str, ...] = ()
    sensors: dict[str, str] = {}
    user: str = ""
    hostname: str = ""
    ssh_keys: tuple[str, ...] = ()
    power_mode: Annotated[int, msgspec.Meta(ge=0, le=_MAX_POWER_MODE)] | None = None


def read_deploy_settings(path: Path) -> Cargo:
    """Read the file.

    Raises:
        ConfigError: it cannot be read, or has a key that there is not.
    """
    given = read_toml(path)
    refuse_unknown(given, DeploySettings, origin=str(path))
    found = converted(given, DeploySettings, origin=str(path))
    folder = path.parent
    try:
        login = Login(found.user, found.hostname, tuple(folder / key for key in found.ssh_keys))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return Cargo(
        bundle=folder / found.bundle if found.bundle else None,
        keys=tuple(folder / key for key in found.pubkeys),
        settings=folder / found.config if found.config else None,
        sensors=found.sensors,
        boards=found.boards,
        login=login,
        power_mode=found.power_mode,
    )
