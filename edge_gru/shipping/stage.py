"""The staging tree: everything that goes on a board, whichever way it gets there."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

from edge_gru.errors import ShippingError
from edge_gru.service.config import make_config, read_settings
from edge_gru.shipping.cargo import Cargo
from edge_gru.shipping.source import Source
from edge_gru.shipping.target import Target
from edge_gru.shipping.tree import Tree
from edge_gru.shipping.unpack import unpack
from edge_gru.signing import SUFFIX
from edge_gru.version import __version__
from firmware_bridge.port import Rfc2217Port, SocketPort

FACTORY = "usr/share/edge-gru/factory"
FACTORY_BUNDLE = f"{FACTORY}/model.egb"
SETTINGS = f"{FACTORY}/edge-gru.toml"
UNITS = "usr/lib/systemd/system"
NETWORK = "network.conf"
DOC = "usr/share/doc/edge-gru"
_NETWORK_PORTS = (SocketPort.SCHEME, Rfc2217Port.SCHEME)
_SERIAL_NUMBER = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LINK_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SENSOR_RULE = (
    'SUBSYSTEM=="tty", ENV{{ID_SERIAL_SHORT}}=="{serial}", ENV{{ID_MM_DEVICE_IGNORE}}="1", '
    'SYMLINK+="{link}"\n'
)


@dataclass(frozen=True)
class Stage:
    """A tree for one kind of board, and the version that it has as a package."""

    tree: Tree
    target: Target
    version: str

    @property
    def name(self) -> str:
        """The name of the package's file."""
        return f"edge-gru_{self.version}_{self.target.debian_arch}.deb"


def stage(source: Source, target: Target, wheels: Path, cargo: Cargo, work: Path) -> Stage:
    """Build the tree; third-party files stay in ``work`` until it is written.

    Raises:
        EdgeGruError: something of the cargo does not hold what it should.
    """
    tree = Tree(source.date_s())
    for name in unpack(wheels, work):
        tree.put(f"{target.packages}/{name}", work / name)
    _put_system_files(tree, source, target)
    _put_cargo(tree, source, cargo)
    _put_documents(tree, source)
    tree.put(f"{DOC}/sbom.cdx.json", _bill(source, work))
    version = _version(tree)
    tree.put(f"{DOC}/changelog.gz", _changelog(source, version, tree.date_s))
    return Stage(tree, target, version)


def _put_system_files(tree: Tree, source: Source, target: Target) -> None:
    deploy = source.deploy
    for unit in sorted((deploy / "systemd").iterdir()):
        tree.put(f"{UNITS}/{unit.name}", unit.read_bytes())
    for folder, place in (("udev", "usr/lib/udev/rules.d"), ("sysusers.d", "usr/lib/sysusers.d")):
        for file in sorted((deploy / folder).iterdir()):
            tree.put(f"{place}/{file.name}", file.read_bytes())
    tree.put("usr/lib/tmpfiles.d/edge-gru.conf", (deploy / "tmpfiles.d/edge-gru.conf").read_bytes())
    tree.put(f"usr/share/edge-gru/{NETWORK}", (deploy / NETWORK).read_bytes())
    launcher = filled((deploy / "bin/edge-gru").read_text(), target)
    tree.put("usr/bin/edge-gru", launcher, is_program=True)
    for name in ("setup", "precompile", "compile", "register"):
        script = (deploy / "bin" / name).read_bytes()
        tree.put(f"usr/lib/edge-gru/{name}", script, is_program=True)


def filled(template: str, target: Target, **more: str) -> str:
    """Fill in the words between ``@`` of a file that is not the same for every board."""
    major, minor = target.python.split(".")
    words = {
        "MAJOR": major,
        "MINOR": minor,
        "PYTHON": target.python,
        "NEXT_PYTHON": f"{major}.{int(minor) + 1}",
        "PACKAGES": target.packages,
        "ARCH": target.debian_arch,
        **more,
    }
    for name, word in words.items():
        template = template.replace(f"@{name}@", word)
    return template


def _put_cargo(tree: Tree, source: Source, cargo: Cargo) -> None:
    settings = cargo.settings or source.deploy / "edge-gru.toml.example"
    config = make_config(read_settings(settings), origin=str(settings))
    tree.put(SETTINGS, settings.read_bytes())
    if config.port.startswith(_NETWORK_PORTS):
        opening = (source.deploy / NETWORK).read_bytes()
        tree.put(f"{UNITS}/edge-gru.service.d/{NETWORK}", opening)
    signed = cargo.signed()
    if signed is not None:
        tree.put(FACTORY_BUNDLE, signed.data)
        tree.put(FACTORY_BUNDLE + SUFFIX, signed.signature_text)
    tree.put(f"{FACTORY}/keys/README", "Public keys, *.pub, whose models this board takes.\n")
    for key in cargo.trusted():
        tree.put(f"{FACTORY}/keys/{key.name}.pub", key.to_text())
    if cargo.sensors:
        rules = "".join(
            _sensor_rule(serial, link) for serial, link in sorted(cargo.sensors.items())
        )
        tree.put("usr/lib/udev/rules.d/62-edge-gru-sensor.rules", rules)


def _sensor_rule(serial: str, link: str) -> str:
    if not _SERIAL_NUMBER.fullmatch(serial) or not _LINK_NAME.fullmatch(link):
        raise ShippingError(
            f"expected a serial number and a name such as edge-gru-sensor, got {serial!r} and "
            f"{link!r}; udev tells with: udevadm info -q property /dev/ttyUSB0"
        )
    return _SENSOR_RULE.format(serial=serial, link=link)


def _put_documents(tree: Tree, source: Source) -> None:
    deploy = source.deploy
    tree.put(f"{DOC}/README.md", (deploy / "README.md").read_bytes())
    licence = (source.root / "LICENSE").read_text()
    lines = "\n".join(f" {line}" if line.strip() else " ." for line in licence.splitlines()[2:])
    copyright_text = (deploy / "debian/copyright").read_text().replace("@LICENSE@", lines)
    tree.put(f"{DOC}/copyright", copyright_text)
    tree.put(
        "usr/share/lintian/overrides/edge-gru", (deploy / "debian/lintian-overrides").read_bytes()
    )


def _bill(source: Source, packages: Path) -> bytes:
    """List packages, versions and licences, as CycloneDX."""
    command = [sys.executable, str(source.deploy / "sbom.py"), str(packages)]
    made = subprocess.run(command, check=False, capture_output=True)
    if made.returncode:
        raise ShippingError(f"no bill of materials: {made.stderr.decode(errors='replace')}")
    return made.stdout


def _version(tree: Tree) -> str:
    """Make a version that grows with the date and differs with the content."""
    minute = datetime.fromtimestamp(tree.date_s, timezone.utc).strftime("%Y%m%d%H%M")
    return f"{__version__}+{minute}.{tree.digest()[:8]}"


def _changelog(source: Source, version: str, date_s: int) -> bytes:
    control = (source.deploy / "debian/control").read_text()
    (maintainer,) = re.findall(r"^Maintainer: (.+)$", control, re.MULTILINE)
    date = format_datetime(datetime.fromtimestamp(date_s, timezone.utc))
    text = f"edge-gru ({version}) unstable; urgency=medium\n\n  * Built of its sources.\n\n"
    return gzip.compress(f"{text} -- {maintainer}  {date}\n".encode(), 9, mtime=0)
