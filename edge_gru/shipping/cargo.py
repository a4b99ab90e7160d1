"""What the owner of a board sends along with the program."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_gru.errors import ShippingError
from edge_gru.shipping.login import Login
from edge_gru.signing import SUFFIX, PublicKey, Release, Signature, read_trusted_keys
from edge_gru.store import SignedBundle, read_signed


@dataclass(frozen=True)
class Cargo:
    """What the owner sends along: a signed bundle, keys that are trusted, settings, sensors.

    ``boards`` are the names that the board answers to, as `edge-gru bundle install` sees them;
    empty: that is left to the board. ``sensors`` maps the serial number of a USB adapter to the
    name that it gets in ``/dev``. ``login`` is for a rootfs, ``power_mode`` for a board that runs;
    None: it is not asked for.
    """

    bundle: Path | None = None
    keys: tuple[Path, ...] = ()
    settings: Path | None = None
    sensors: dict[str, str] = field(default_factory=dict)
    boards: tuple[str, ...] = ()
    login: Login = field(default_factory=Login)
    power_mode: int | None = None

    def trusted(self) -> list[PublicKey]:
        """Read the public keys.

        Raises:
            ConfigError: one of them is none.
        """
        return [key for path in self.keys for key in read_trusted_keys(path)]

    def signed(self) -> SignedBundle | None:
        """Read the bundle and check its signature as the board will.

        Raises:
            EdgeGruError: it is not signed by one of the keys, or not for this board.
        """
        if self.bundle is None:
            return None
        if not self.keys:
            raise ShippingError(
                f"expected the public key that {self.bundle} is signed for, got none; name it with "
                "--pubkey"
            )
        boards = self.boards or ("any", *_boards_of(self.bundle))
        return read_signed(self.bundle, keys=self.trusted(), boards=boards)

    @property
    def sentence(self) -> str:
        """Say which model travels along; raises what `signed` does."""
        signed = self.signed()
        if signed is None:
            return "no model: one comes later, with `edge-gru bundle install`"
        release = signed.release
        return f"{release.name} version {release.version}, signed by {signed.key_name}"


def _boards_of(bundle: Path) -> tuple[str, ...]:
    """Tell which boards a bundle says that it is for; nothing is checked."""
    place = bundle.with_name(bundle.name + SUFFIX)
    if not place.is_file():
        return ()
    return Release.from_comment(Signature.parse(place.read_text(encoding="utf-8")).comment).boards
