from __future__ import annotations

import numpy as np
import pytest

from edge_gru.errors import DataError
from firmware_bridge.recording import SampleTable, write_samples
from firmware_bridge.sample import Channel, Schema
from quantization.recordings import read_recordings


def test_csv_names_channels_and_units(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("vib [g],temp [degC]\n0.5,20\n0.25,21\n")
    found = read_recordings([path])
    assert found.channels == (Channel("vib", "g"), Channel("temp", "degC"))
    assert found.sequences[0].tolist() == [[0.5, 20.0], [0.25, 21.0]]


def test_each_csv_and_each_array_is_a_sequence_and_3d_is_many(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    np.savez(tmp_path / "b.npz", one=np.ones((5, 2)), many=np.ones((3, 4, 2)))
    np.save(tmp_path / "c.npy", np.ones((6, 2)))
    found = read_recordings([tmp_path / n for n in ("a.csv", "b.npz", "c.npy")])
    assert sorted(len(s) for s in found.sequences) == [2, 4, 4, 4, 5, 6]
    assert found.channels is None


def test_pickled_arrays_are_never_unpickled(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="expected arrays of numbers"):
        read_recordings([tmp_path / "evil.npy"])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.csv", b"a,b\n1,2\n1,2,3\n", "line 3"),
        ("x.csv", b"", "has none"),
        ("x.npz", b"not a zip", "expected arrays of numbers"),
        ("x.parquet", b"PAR1", r"expected recordings as .csv, .npz, .npy or"),
    ],
)
def test_files_that_are_no_recordings_are_one_sentence(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_recordings([tmp_path / name])


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_recordings([tmp_path / "none.npz"])


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_table_of_a_recorded_port_has_a_sequence_for_each_stream(tmp_path, suffix):
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    n = np.arange(6)
    schema = Schema.of([("vib", "g"), ("temperature", "degC")], rate_hz=10.0)
    table = SampleTable(schema, n * 0.1, n, np.array([0, 0, 0, 2, 2, 2]), values)
    write_samples(table, tmp_path / f"x{suffix}")
    found = read_recordings([tmp_path / f"x{suffix}"])
    assert [s.tolist() for s in found.sequences] == [values[:3].tolist(), values[3:].tolist()]
    assert found.channels == schema.channels


def test_recording_that_is_none_is_one_sentence(tmp_path):
    (tmp_path / "x.mcap").write_bytes(b"no recording")
    with pytest.raises(DataError, match=r"x\.mcap"):
        read_recordings([tmp_path / "x.mcap"])
