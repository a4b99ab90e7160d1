"""A board that is reached over ssh: what it is, and how a package gets onto it and off again."""

from __future__ import annotations

import hashlib
import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from edge_gru.errors import ShippingError
from edge_gru.shipping.gates import Gate
from edge_gru.shipping.ssh import Connection
from edge_gru.shipping.stage import FACTORY, FACTORY_BUNDLE
from edge_gru.shipping.target import ONNXRUNTIME, Target

_log = logging.getLogger(__name__)

KEPT = "/opt/edge-gru/packages"
_SPARE_BYTES = 64 << 20

_PREFLIGHT = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
say arch "$(uname -m)"
say python "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
say uid "$(id -u)"
say sudo "$(sudo -n true 2>/dev/null && echo yes)"
say dpkg "$(command -v dpkg)"
say jetson "$(head -c 200 /etc/nv_tegra_release 2>/dev/null | head -n 1)"
say free_kib "$(df -Pk / | tail -n 1 | while read -r _ _ _ free _; do echo "$free"; done)"
say version "$(dpkg-query -W -f '${Version}' edge-gru 2>/dev/null)"
say tensorrt "$(python3 -c 'import tensorrt; print(tensorrt.__version__)' 2>/dev/null)"
say power "$(sed -n 's/^pmode:\([0-9]*\).*/\1/p' /var/lib/nvpmodel/status 2>/dev/null)"
say systemd "$([ -d /run/systemd/system ] && echo yes)"
"""

# Keeps the package that it replaces, which is the way back; puts that back if the new one fails.
_INSTALL = r"""
set -eu
mkdir -p "$kept"
if [ ! -e "$kept/$name" ]; then
    cp "$upload" "$kept/$name.new"
    if ! echo "$sha256  $kept/$name.new" | sha256sum --check --quiet -; then
        rm -f "$upload" "$kept/$name.new"
        exit 1
    fi
    sync "$kept/$name.new"
    mv "$kept/$name.new" "$kept/$name"
fi
before=$(readlink "$kept/current" || true)
if ! dpkg --force-confold --install "$kept/$name" </dev/null >&2; then
    if [ -n "$before" ] && [ "$before" != "$name" ]; then
        dpkg --force-confold --install "$kept/$before" </dev/null >&2 || true
    fi
    echo "dpkg does not take the package; what was there before is there again" >&2
    exit 1
fi
if [ "$before" != "$name" ]; then
    if [ -n "$before" ]; then ln -sfn "$before" "$kept/previous"; fi
    ln -sfn "$name" "$kept/current"
fi
for file in "$kept"/*.deb; do
    case ${file##*/} in
        "$(readlink "$kept/current")" | "$(readlink "$kept/previous" || true)") ;;
        *) rm -f "$file" ;;
    esac
done
rm -f "$upload"
"""

ROLLBACK = r"""
set -eu
before=$(readlink "$kept/previous" || true)
now=$(readlink "$kept/current" || true)
if [ -z "$before" ] || [ ! -e "$kept/$before" ]; then
    echo "no earlier package is kept on the board" >&2
    exit 1
fi
dpkg --force-confold --install "$kept/$before" </dev/null >&2
ln -sfn "$before" "$kept/current"
ln -sfn "$now" "$kept/previous"
echo "$before"
"""

_CARGO = r"""
set -eu
how=start
if [ "$settings" = yes ]; then
    install -m 644 "/$factory/edge-gru.toml" /etc/edge-gru/edge-gru.toml
    how=restart
fi
for key in "/$factory/keys"/*.pub; do
    if [ -e "$key" ]; then install -m 644 "$key" /etc/edge-gru/keys/; fi
done
if [ -e "/$bundle" ]; then edge-gru bundle install "/$bundle"; fi
if [ -d /run/systemd/system ]; then
    systemctl enable --quiet edge-gru.service
    # Whether it came up is for its status to tell: an update that did not is taken back.
    systemctl "$how" edge-gru.service || echo "edge-gru.service did not start" >&2
fi
"""

# It asks before a mode that wants a restart, and gets no answer: then nothing is changed.
_POWER = r"""
set -eu
nvpmodel -m "$mode" </dev/null >&2 || true
sed -n 's/^pmode:\([0-9]*\).*/\1/p' /var/lib/nvpmodel/status
"""


@dataclass(frozen=True)
class Facts:
    """What a board told of itself; ``version`` is that of the package, empty if there is none.

    ``power_mode`` is that of a Jetson, None where nothing tells it.
    """

    arch: str
    python: str
    is_root: bool
    has_sudo: bool
    has_dpkg: bool
    jetson: str
    n_free_bytes: int
    version: str
    tensorrt: str
    has_systemd: bool
    power_mode: int | None

    @property
    def target(self) -> Target:
        """What is to be built for it."""
        return Target(self.python, self.arch)


class Board:
    """A board at the other end of a connection.

    ``password`` is for sudo, where it asks for one; in ``kept`` the packages stay, so that there is
    a way back.
    """

    def __init__(
        self, connection: Connection, password: str | None = None, *, kept: str = KEPT
    ) -> None:
        self._connection = connection
        self._password = password
        self._kept = kept
        self._is_root = False

    def look(self) -> Facts:
        """Ask the board what it is; changes nothing.

        Raises:
            ShippingError: it cannot be asked.
        """
        lines = self._connection.run(_PREFLIGHT).stdout.splitlines()
        told = dict(line.split("=", 1) for line in lines if "=" in line)
        self._is_root = told.get("uid") == "0"
        return Facts(
            arch=told.get("arch", ""),
            python=told.get("python", ""),
            is_root=self._is_root,
            has_sudo=told.get("sudo") == "yes",
            has_dpkg=bool(told.get("dpkg")),
            jetson=told.get("jetson", ""),
            n_free_bytes=int(told.get("free_kib") or 0) << 10,
            version=told.get("version", ""),
            tensorrt=told.get("tensorrt", ""),
            has_systemd=told.get("systemd") == "yes",
            power_mode=_mode(told.get("power", "")),
        )

    def gates(self, facts: Facts) -> list[Gate]:
        """Tell whether a package can be installed on a board like this."""
        host = self._connection.host
        may = facts.is_root or facts.has_sudo or self._password is not None
        rights = "root" if facts.is_root else "sudo" if may else "sudo asks for a password"
        is_known = facts.arch in ("aarch64", "x86_64")
        return [
            Gate("board", is_known, facts.jetson or facts.arch, "expected aarch64 or x86_64"),
            Gate(
                "Python",
                facts.python in ONNXRUNTIME,
                facts.python or "no python3",
                f"expected one of {', '.join(ONNXRUNTIME)}",
            ),
            Gate(
                "dpkg",
                facts.has_dpkg,
                "found" if facts.has_dpkg else "none",
                "expected Debian, Ubuntu or Jetson Linux",
            ),
            Gate(
                "rights",
                may,
                rights,
                f"give --ask-sudo, or log in as root@{host.rpartition('@')[2]}",
            ),
        ]

    def space_gate(self, facts: Facts, n_packed: int, n_unpacked: int) -> Gate:
        """Tell whether a package fits: uploaded, kept, and unpacked beside the one before."""
        n_needed = 2 * n_packed + n_unpacked + _SPARE_BYTES
        return Gate(
            "space",
            facts.n_free_bytes >= n_needed,
            f"{facts.n_free_bytes / 1e6:.0f} MB free, {n_needed / 1e6:.0f} MB needed",
            f"make space on {self._connection.host}",
        )

    def install(self, package: Path) -> None:
        """Bring a package and let dpkg have it; what was there before is kept to go back to.

        Raises:
            ShippingError: it did not arrive or was not taken; what was there before is there again.
        """
        sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
        place = self._connection.send(package, sha256)
        home = self._connection.run("pwd").stdout.strip()
        words = {"upload": f"{home}/{place}", "name": package.name, "sha256": sha256}
        self._as_root(_INSTALL, kept=self._kept, **words)

    def unload(self, *, has_settings: bool) -> str:
        """Put settings, keys and model where they belong, and start; return what was said."""
        settings = "yes" if has_settings else "no"
        return self._as_root(_CARGO, settings=settings, factory=FACTORY, bundle=FACTORY_BUNDLE)

    def rollback(self) -> str:
        """Install the package from before; return its name.

        Raises:
            ShippingError: there is none.
        """
        return self._as_root(ROLLBACK, kept=self._kept).strip()

    def set_power_mode(self, mode: int) -> int | None:
        """Ask nvpmodel for a power mode, which then stays; return the one that it is in.

        Raises:
            ShippingError: the connection broke, or the board refused.
        """
        return _mode(self._as_root(_POWER, mode=str(mode)))

    def status(self) -> tuple[int, str]:
        """Ask the service how it is: the exit code of `edge-gru status`, and its screen."""
        told = self._connection.run("edge-gru status", check=False)
        return told.returncode, told.stdout or told.stderr

    def _as_root(self, script: str, **words: str) -> str:
        settings = "\n".join(f"{name}={shlex.quote(word)}" for name, word in words.items())
        command = f"sh -c {shlex.quote(settings + script)}"
        stdin = b""
        if not self._is_root and self._password is not None:
            command, stdin = f"sudo -k -S -p '' {command}", f"{self._password}\n".encode()
        elif not self._is_root:
            command = f"sudo -n {command}"
        told = self._connection.run(command, stdin=stdin, check=False)
        for line in told.stderr.splitlines():
            _log.debug("board: %s", line)
        if told.returncode:
            raise ShippingError(self._connection.explain(told.stderr, "refused"))
        return told.stdout


def _mode(told: str) -> int | None:
    """Read the number in nvpmodel's state, such as 0002."""
    return int(told) if told.strip().isdecimal() else None


def commands() -> list[str]:
    """List the scripts that run as root on a board, in their order."""
    return [_INSTALL.strip(), _CARGO.strip()]
