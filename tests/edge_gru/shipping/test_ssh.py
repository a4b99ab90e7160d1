"""`ship ssh` against a real sshd: install, update, rollback, and whatever goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_gru import shipping
from edge_gru.cli.ship_look import Look
from edge_gru.cli.ship_ssh import Delivery
from edge_gru.errors import ShippingError
from edge_gru.shipping import Cargo, Connection, Facts, Workshop

CARGO = shipping.board._CARGO
FACTS = Facts(
    arch="aarch64", python="3.10", is_root=True, has_sudo=True, has_dpkg=True, jetson="# R36",
    n_free_bytes=1 << 40, version="", tensorrt="", has_systemd=True, power_mode=None,
)  # fmt: skip
DO_IT = Look(check=False, dry_run=False, as_json=False)


@pytest.fixture
def deliver(board, board_target, small_wheels, source, monkeypatch) -> Callable[..., None]:
    """Ship a small edge-gru to the board."""
    made: dict[str, Path] = {}

    monkeypatch.setattr(  # whatever this machine has
        "edge_gru.shipping.board._CARGO",
        CARGO.replace("/run/systemd/system", "/nowhere"),
    )

    def run(
        says: str = "one",
        *,
        password: str | None = None,
        look: Look = DO_IT,
        cargo: Cargo | None = None,
        **facts,
    ) -> None:
        if says not in made:
            made[says] = small_wheels(board_target, says)
        workshop = Workshop(source, cargo or Cargo(), made[says])
        with Connection(board.host, board.options) as connection:
            delivery = Delivery(connection, workshop, password, kept=str(board.kept))
            if facts:
                delivery._facts = replace(delivery.facts, **facts)
            delivery.run(look)

    return run


@pytest.fixture
def rollback(board, source) -> Callable[[], None]:
    def run(look: Look = DO_IT) -> None:
        with Connection(board.host, board.options) as connection:
            delivery = Delivery(connection, Workshop(source, Cargo()), kept=str(board.kept))
            delivery.rollback(look)

    return run


def versions(board) -> tuple[str, str]:
    """The packages that `current` and `previous` point to."""
    links = (board.kept / "current", board.kept / "previous")
    return tuple(str(link.readlink()) if link.is_symlink() else "" for link in links)


def test_install_leaves_the_package_installed_kept_and_its_undo_told(board, deliver, capsys):
    deliver()
    current, previous = versions(board)
    assert current.startswith("edge-gru_")
    assert previous == ""
    assert board.said("version").strip() in current
    assert list(board.uploads.iterdir()) == []
    told = capsys.readouterr().out
    assert "service   predicting" in told
    assert f"undo: ssh -t {board.host} sudo apt remove edge-gru" in told


def test_second_run_sends_and_installs_nothing(board, deliver, capsys):
    deliver()
    before = (board.said("dpkg"), (board.state / "received").read_bytes())
    deliver()
    assert (board.said("dpkg"), (board.state / "received").read_bytes()) == before
    assert "is installed already" in capsys.readouterr().out


def test_update_keeps_the_way_back_and_rollback_takes_it(board, deliver, rollback, capsys):
    deliver("one")
    one, _ = versions(board)
    deliver("two")
    two, before = versions(board)
    assert before == one != two
    assert "--rollback" in capsys.readouterr().out
    rollback(replace(DO_IT, dry_run=True))
    assert 'dpkg --force-confold --install "$kept/$before"' in capsys.readouterr().out
    assert versions(board) == (two, one)
    rollback()
    assert versions(board) == (one, two)
    assert board.said("version").strip() in one


def test_only_two_packages_are_kept(board, deliver):
    for says in ("one", "two", "three"):
        deliver(says)
    assert len(list(board.kept.glob("*.deb"))) == 2


def test_rollback_of_nothing_is_one_sentence(rollback):
    with pytest.raises(ShippingError, match="no earlier package is kept on the board"):
        rollback()


def test_transfer_that_broke_off_goes_on_where_it_was(board, deliver, caplog):
    board.is_now("cut")
    with pytest.raises(ShippingError, match="run this again, and it goes on"):
        deliver()
    (part,) = board.uploads.iterdir()
    assert part.stat().st_size == 5000
    caplog.set_level("INFO")
    deliver()
    (kept,) = board.kept.glob("*.deb")
    assert len((board.state / "received").read_bytes()) == kept.stat().st_size - 5000
    assert "going on after" in caplog.text


def test_beginning_of_something_else_is_not_gone_on_from(board, deliver):
    board.is_now("cut")
    with pytest.raises(ShippingError):
        deliver()
    (part,) = board.uploads.iterdir()
    part.write_bytes(b"\0" * 5000)
    deliver()
    (kept,) = board.kept.glob("*.deb")
    assert (board.state / "received").read_bytes() == kept.read_bytes()


def test_what_arrives_otherwise_than_it_was_sent_is_thrown_away(board, deliver):
    board.is_now("noise")
    with pytest.raises(ShippingError, match="did not arrive as it was sent; run this again"):
        deliver()
    assert list(board.uploads.iterdir()) == []
    assert board.said("dpkg") == ""


def test_full_disk_is_found_before_anything_is_sent(board, deliver):
    board.is_now("free", "1000")
    with pytest.raises(ShippingError, match=r"space: 1 MB free, \d+ MB needed; make space on"):
        deliver()
    assert not board.uploads.exists()


def test_disk_that_fills_up_on_the_way_is_one_sentence(board, deliver):
    board.is_now("full")
    with pytest.raises(ShippingError, match=r"the disk of \S+ is full; make space there"):
        deliver()


def test_package_that_dpkg_refuses_leaves_the_one_before(board, deliver):
    deliver("one")
    one = board.said("version")
    deliver("two")
    two, _ = versions(board)
    board.is_now("version", one)
    board.is_now("refused", two.split("_")[1])
    (board.kept / "current").unlink()
    (board.kept / "current").symlink_to(
        next(f.name for f in board.kept.glob("*.deb") if f.name != two)
    )
    with pytest.raises(ShippingError, match="what was there before is there again"):
        deliver("two")
    assert board.said("version") == one
    assert versions(board)[0] != two


@pytest.fixture
def systemd(board, deliver, monkeypatch):
    """The board has systemd, whose systemctl only pretends."""
    script = CARGO.replace("/run/systemd/system", str(board.state))
    monkeypatch.setattr("edge_gru.shipping.board._CARGO", script)


def test_service_is_enabled_and_started(board, systemd, deliver):
    deliver()
    assert board.said("systemctl").splitlines() == [
        "enable --quiet edge-gru.service",
        "start edge-gru.service",
    ]


def test_update_that_does_not_run_is_taken_back(board, systemd, deliver):
    deliver("one")
    one = board.said("version")
    board.is_now("code", "3")
    board.is_now("broken")
    with pytest.raises(ShippingError, match="the new version does not run on"):
        deliver("two", has_systemd=True)
    assert board.said("version") == one


def test_new_host_key_is_told_with_the_way_out(board, deliver, key):
    other = key(board.folder / "other").with_suffix(".pub").read_text()
    (board.folder / "known_hosts").write_text(f"[localhost]:{board.port} {other}")
    with pytest.raises(ShippingError, match=r"the host key of \S+ is not the one.*ssh-keygen -R"):
        deliver()
    assert not board.uploads.exists()


def test_unknown_host_key_is_not_accepted_silently(board, deliver):
    (board.folder / "known_hosts").write_text("")
    with pytest.raises(ShippingError, match=r"the host key of \S+ is not known here"):
        deliver()


def test_board_that_lets_nobody_in_says_so(board, deliver, key):
    stranger = key(board.folder / "stranger")
    board.options[1] = f"IdentityFile={stranger}"
    with pytest.raises(ShippingError, match="ssh-copy-id"):
        deliver()


def test_no_ssh_server_is_one_sentence(board, deliver):
    board.options[0] = "Port=1"
    with pytest.raises(ShippingError, match="refuses: no ssh server listens there"):
        deliver()


def test_sudo_with_a_password_needs_it_asked_for(board, deliver):
    board.is_now("password", "secret")
    with pytest.raises(ShippingError, match="sudo asks for a password; give --ask-sudo"):
        deliver(is_root=False)
    assert not board.uploads.exists()


def test_dry_run_tells_the_commands_and_sends_nothing(board, deliver, capsys):
    deliver(look=replace(DO_IT, dry_run=True))
    told = capsys.readouterr().out
    assert "would send edge-gru_" in told
    assert "dpkg --force-confold --install" in told
    assert not board.uploads.exists()


def test_dry_run_as_json_is_json_alone(board, deliver, capsys):
    deliver(look=replace(DO_IT, dry_run=True, as_json=True))
    told = json.loads(capsys.readouterr().out)
    assert told["sends"].startswith("edge-gru_")
    assert told["installed"] == ""
    assert any("dpkg --force-confold --install" in script for script in told["runs_as_root"])
    assert told["n_bytes"] > 0
    assert not board.uploads.exists()


@pytest.mark.parametrize(
    ("wanted", "now", "sentence"),
    [
        (2, 1, "power mode: 1; for 2: ssh -t jetson@b sudo nvpmodel -m 2\n"),
        (2, 2, "power mode: 2, as wanted\n"),
        (2, None, "power mode: jetson@b tells none, so 2 was not set\n"),
        (None, 1, ""),
    ],
)
def test_power_mode_is_never_changed_unasked(source, capsys, wanted, now, sentence):
    unused = Connection("jetson@b")  # and not opened
    delivery = Delivery(unused, Workshop(source, Cargo(power_mode=wanted)))
    delivery._facts = replace(FACTS, power_mode=now)
    delivery._settle_power_mode()
    assert capsys.readouterr().out == sentence


@pytest.mark.parametrize(
    ("mode_after", "sentence"),
    [(2, "power mode: 2; back: ssh -t"), (1, "power mode: still 1, it may want a restart")],
)
def test_power_mode_is_set_once_somebody_says_yes(
    board, deliver, capsys, monkeypatch, mode_after, sentence
):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    board.is_now("pmode", f"pmode:000{mode_after} fmode:quiet\n")
    script = shipping.board._POWER.replace("/var/lib/nvpmodel/status", str(board.state / "pmode"))
    monkeypatch.setattr("edge_gru.shipping.board._POWER", script)
    deliver(cargo=Cargo(power_mode=2), power_mode=1)
    assert sentence in capsys.readouterr().out
    assert board.said("nvpmodel") == "-m 2\n"


def test_host_that_is_an_option_is_refused():
    with pytest.raises(ShippingError, match="expected a host such as"), Connection("-oProxy=x"):
        pass
