"""edge-gru keys: make keys, sign bundles, check signatures; the files are those of minisign."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import click

from edge_gru import bundle as bundles
from edge_gru.cli.messages import print_json
from edge_gru.errors import BundleError, ConfigError
from edge_gru.signing import (
    SUFFIX,
    PublicKey,
    Release,
    SecretKey,
    Signature,
    read_trusted_keys,
    sign,
    verify,
)
from edge_gru.signing.keys import is_hidden, is_secret
from edge_gru.signing.text import read_text

_PATH = click.Path(path_type=Path)
_PASSWORD = click.option(
    "--password-file", type=_PATH, help="Its first line is the password; else it is asked for."
)
_SIGNATURE = click.option("-x", "--signature", type=_PATH, help="Signature file [FILE.minisig].")

_EXAMPLES = """\b
Examples:
  edge-gru keys generate
  edge-gru keys sign pump.egb --version 7 --board nvidia-p3767-0005
  edge-gru keys verify pump.egb -p edge-gru.pub
"""


@click.group(epilog=_EXAMPLES)
def keys() -> None:
    """Make keys, sign bundles and check signatures.

    Keys and signatures are files of minisign (Ed25519), which makes and checks the same.
    """


@keys.command()
@click.option("-p", "--public", type=_PATH, default="edge-gru.pub", show_default=True)
@click.option("-s", "--secret", type=_PATH, default="edge-gru.key", show_default=True)
@click.option("-W", "no_password", is_flag=True, help="Do not hide the secret key.")
@_PASSWORD
def generate(*, public: Path, secret: Path, no_password: bool, password_file: Path | None) -> None:
    """Make a key pair: the public one for devices, the secret one for who signs."""
    for path in (public, secret):
        if os.path.lexists(path):
            raise ConfigError(f"{path} exists; move it away, or name another file")
    key = SecretKey.generate()  # before anybody is asked: it may be that none can be made here
    password = None if no_password else _password(password_file, confirm=True)
    _write_new(secret, key.to_text(password), 0o600)
    _write_new(public, key.public.to_text(), 0o644)
    click.echo(f"{public}: key {key.public.name}; copy it to /etc/edge-gru/keys of every device")
    click.echo(f"{secret}: signs for it; keep it secret")


@keys.command()
@click.argument("file", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(file: Path, *, as_json: bool) -> None:
    """Tell what is in a key or signature file; nothing is checked, no secret is shown."""
    facts = _facts(file)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name:<10}{value}")


@keys.command("sign")
@click.argument("file", type=_PATH)
@click.option("-s", "--secret", type=_PATH, default="edge-gru.key", show_default=True)
@click.option("--version", type=int, required=True, help="Counts up with every release.")
@click.option(
    "--board", "boards", multiple=True, help="Only for boards of this name; repeatable [any]."
)
@click.option(
    "--continues",
    type=_PATH,
    multiple=True,
    help="Bundle whose state this model may go on from; repeatable.",
)
@_SIGNATURE
@_PASSWORD
def sign_file(
    file: Path,
    *,
    secret: Path,
    version: int,
    boards: tuple[str, ...],
    continues: tuple[Path, ...],
    signature: Path | None,
    password_file: Path | None,
) -> None:
    """Sign a bundle: its bytes, name, version, boards and time, in FILE.minisig."""
    data = bundles.read_bytes(file)
    try:
        name = bundles.parse(data).manifest.name
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error
    release = Release(
        name=name,
        version=version,
        boards=boards or Release.boards,
        signed_at_s=int(time.time()),
        continues=tuple(bundles.load(path).hash for path in continues),
    )
    key = _read_secret(secret, password_file)
    place = signature or file.with_name(file.name + SUFFIX)
    bundles.write_atomically(
        place, sign(data, key, release.to_comment(file.name)).to_text().encode()
    )
    click.echo(f"{place}: {name} version {version} for {', '.join(release.boards)}")


@keys.command("verify")
@click.argument("file", type=_PATH)
@click.option(
    "-p", "--public", type=_PATH, default="edge-gru.pub", show_default=True, help="Key or folder."
)
@_SIGNATURE
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def verify_file(file: Path, *, public: Path, signature: Path | None, as_json: bool) -> None:
    """Check that a trusted key signed a file; exit code 2: none did."""
    place = signature or file.with_name(file.name + SUFFIX)
    trusted = read_trusted_keys(public)
    found = Signature.parse(_text(place))
    key = verify(bundles.read_bytes(file), found, trusted)
    if as_json:
        print_json({"file": str(file), "key": key.name, "comment": found.comment})
        return
    click.echo(f"{file}: signed by {key.name}")
    click.echo(f"trusted comment: {found.comment}")


def _facts(file: Path) -> dict[str, Any]:
    text = _text(file)
    if is_secret(text):
        hidden = "behind a password" if is_hidden(text) else "no password"
        return {"file": str(file), "kind": "secret key", "hidden": hidden}
    if len(text.splitlines()) > 2:
        found = Signature.parse(text)
        name = PublicKey(found.key_id, b"").name
        return {"file": str(file), "kind": "signature", "key": name, "comment": found.comment}
    key = PublicKey.parse(text)
    return {"file": str(file), "kind": "public key", "key": key.name, "line": key.line}


def _text(file: Path) -> str:
    try:
        return read_text(file)
    except FileNotFoundError as error:
        raise ConfigError(f"cannot read {file}: there is no such file; check the path") from error


def _read_secret(path: Path, password_file: Path | None) -> SecretKey:
    text = _text(path)
    if not is_secret(text):
        raise ConfigError(
            f"expected a secret key in {path}, got something else; "
            "`edge-gru keys generate` makes one"
        )
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        click.echo(f"edge-gru: others can read {path}; close it: chmod 600 {path}", err=True)
    try:
        password = _password(password_file) if is_hidden(text) else None
        return SecretKey.parse(text, password)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _password(file: Path | None, *, confirm: bool = False) -> bytes:
    if file is not None:
        return _text(file).partition("\n")[0].encode()
    if not sys.stdin.isatty():
        raise ConfigError(
            "expected a terminal to ask for the password, got none; use --password-file"
        )
    word: str = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
    return word.encode()


def _write_new(path: Path, text: str, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
