"""Bytes without zeros and back, one code or thousands at a time."""

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.cobs import cobs_encode, python_cobs_decode, python_cobs_decode_all


@given(st.binary(max_size=1100) | st.lists(st.sampled_from([0, 1, 255]), max_size=1100).map(bytes))
def test_round_trip_has_no_zero(body):
    code = cobs_encode(body)
    assert 0 not in code
    assert python_cobs_decode(code) == body


@pytest.mark.parametrize("n", [253, 254, 255, 256, 508, 509, 762])
def test_full_runs_are_as_long_as_they_must_be(n):
    assert python_cobs_decode(cobs_encode(b"\x07" * n)) == b"\x07" * n
    assert len(cobs_encode(b"\x07" * n)) == n + 1 + (n - 1) // 254


@given(st.binary(max_size=600))
def test_decoder_agrees_with_the_compiled_one(code):
    try:
        compiled = import_module("cobs.cobs._cobs_ext")
    except ImportError:
        pytest.skip("the compiled cobs package is not installed")
    for wire in (code, cobs_encode(code), cobs_encode(code)[:-1]):
        try:
            expected = compiled.decode(wire)
        except compiled.DecodeError:
            expected = None
        assert python_cobs_decode(wire) == expected
    assert cobs_encode(code) == compiled.encode(code)


def codes_of(n_bytes):
    """Codes of one length: right ones, and bytes that are none."""
    whole = st.binary(min_size=n_bytes - 1, max_size=n_bytes - 1).map(cobs_encode)
    return whole | st.lists(st.integers(1, 255), min_size=n_bytes, max_size=n_bytes).map(bytes)


@given(st.sampled_from([1, 2, 29, 254, 255, 256]).flatmap(codes_of), st.randoms())
def test_many_at_a_time_are_what_each_is_alone(code, rng):
    codes = []
    for _ in range(70):  # enough to be decoded together, each with one byte changed
        at = rng.randrange(len(code))
        codes.append(code[:at] + bytes([rng.randrange(1, 256)]) + code[at + 1 :])
    codes += [code] * 70 + [b"\x02\x09"] * 3 + [cobs_encode(bytes(28))] * 70
    assert python_cobs_decode_all(codes) == [python_cobs_decode(c) for c in codes]
