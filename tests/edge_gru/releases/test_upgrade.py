"""A device that an earlier release has left goes on under this one, without a loss."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from edge_gru import status
from edge_gru.cli import main
from edge_gru.engines.select import open_proven
from edge_gru.errors import StoreError
from edge_gru.service import make_config, read_health, read_settings
from edge_gru.service.sinks import FileSink
from edge_gru.shipping import read_deploy_settings
from edge_gru.signing import Release, SecretKey, read_trusted_keys, sign
from edge_gru.store import Store, read_signed
from edge_gru.store.store import whole

pytest.importorskip("cryptography", reason="signatures need the extra `signed`")

RELEASES = sorted(path.stem for path in Path(__file__).parent.glob("*.json"))


@dataclass(frozen=True)
class Device:
    """The files of a device, and those of who owns it."""

    root: Path
    fleet: Path

    @property
    def store(self) -> Path:
        return self.root / "var/lib/edge-gru/bundles"

    @property
    def keys(self) -> Path:
        return self.root / "etc/edge-gru/keys"

    @property
    def settings(self) -> Path:
        return self.root / "etc/edge-gru/edge-gru.toml"

    @property
    def health(self) -> Path:
        return self.root / "run/edge-gru/health.json"


def thaw(files: dict[str, dict[str, str]], folder: Path) -> None:
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if "link" in content:
            place.symlink_to(content["link"])
        elif "text" in content:
            place.write_text(content["text"], encoding="utf-8")
        else:
            place.write_bytes(base64.b64decode(content["base64"]))


@pytest.fixture(params=RELEASES)
def device(request, tmp_path) -> Device:
    found = json.loads((Path(__file__).parent / f"{request.param}.json").read_text())
    made = Device(tmp_path / "device", tmp_path / "fleet")
    thaw(found["device"], made.root)
    thaw(found["fleet"], made.fleet)
    return made


def newer(device: Device, pack, schema, version: int) -> Path:
    """Sign a model with the key of the fleet, as it was made then."""
    key = SecretKey.parse((device.fleet / "fleet.key").read_text())
    file = pack(schema, seed=version).save(device.fleet / f"tiny-{version}.egb")
    comment = Release("tiny", version).to_comment(file.name)
    text = sign(file.read_bytes(), key, comment).to_text()
    file.with_name(f"{file.name}.minisig").write_text(text)
    return file


def test_there_is_a_release_to_come_from():
    assert "0.1.0" in RELEASES


def test_trial_goes_on_where_it_was(device):
    store = Store(device.store)
    candidate = store.begin()
    trial = candidate.trial
    assert (candidate.entry.version, candidate.entry.name) == (3, "tiny")
    assert (trial.served_s, trial.duration_s, trial.n_starts, trial.starts_left) == (30, 600, 5, 3)
    assert store.note_served(candidate.folder, 570.0).trial is None


def test_both_bundles_are_whole_and_reproduce_their_golden_vectors(device):
    store = Store(device.store)
    for find in (store.current, lambda: store.rollback("by hand")):
        candidate = find()
        bundle = whole(candidate)
        assert bundle.hash == candidate.entry.model_hash
        engine, golden = open_proven("reference", bundle.source)
        engine.close()
        assert golden.step_error <= 1e-6


def test_what_failed_and_what_is_older_stays_refused(device, pack, schema):
    keys = read_trusted_keys(device.keys)
    failed = read_signed(device.fleet / "tiny-2.egb", keys=keys, boards=["press-4"])
    store = Store(device.store)
    with pytest.raises(StoreError, match=r"failed here before \(its p99 is 9000 us"):
        store.install(failed)
    old = read_signed(newer(device, pack, schema, 1), keys=keys, boards=["any"])
    with pytest.raises(StoreError, match="is older than version 3"):
        store.install(old)


def test_next_model_is_signed_with_the_old_key_and_taken(device, pack, schema):
    options = ["--store", device.store, "--keys", device.keys]
    words = ["bundle", "install", newer(device, pack, schema, 4), *options, "--json"]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    ledger = Store(device.store).read()
    assert ledger.entries[ledger.current].version == 4
    assert ledger.entries[ledger.previous].version == 1  # the last one that was proven


def test_settings_mean_what_they_meant(device):
    config = make_config(read_settings(device.settings), origin=str(device.settings))
    written = msgspec.toml.decode(device.settings.read_bytes())
    written["outputs"] = tuple(written["outputs"])
    assert len(written) == 19
    found = msgspec.to_builtins(config)
    assert {name: found[name] for name in written} == written


def test_settings_of_the_fleet_are_read(device):
    cargo = read_deploy_settings(device.fleet / "deploy.toml")
    assert cargo.sensors == {"A900WXPC": "edge-gru-sensor"}
    assert cargo.boards == ("press-4",)


def test_health_of_the_service_before_is_told(device):
    assert read_health(device.health).bundle.version == 3
    told = status.lines(status.look(device.health, device.store))
    assert told[0] == "service   not running since the last boot"
    assert "bundle    tiny version 3, trial" in told
    assert "failed    version 2: its p99 is 9000 us, over the limit of 5000 us" in told


def test_events_are_written_on(device):
    file = device.root / "var/lib/edge-gru/predictions.jsonl"
    sink = FileSink(file).open()
    sink.close()
    assert (sink.torn_bytes, file.read_text()) == (0, '{"kind":"prediction"}\n')


def test_what_a_later_release_adds_is_passed_over(device):
    """Its package may be rolled back, and must leave this one with all that it knows."""
    place = device.store / "state.json"
    state = json.loads(place.read_text())
    state["later"] = 1
    for part in (state["trial"], *state["entries"].values()):
        part["later"] = {"a": []}
    place.write_text(json.dumps(state))
    ledger = Store(device.store).read()
    assert ledger.trial.served_s == 30
    assert [entry.status for entry in ledger.entries.values()].count("failed") == 1
