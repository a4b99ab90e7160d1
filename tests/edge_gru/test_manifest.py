from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gru.bundle import Bundle
from edge_gru.errors import BundleError
from edge_gru.manifest import FORMAT, InputRange, Manifest, Normalisation, decode, encode


@pytest.fixture
def manifest(bundle: Bundle) -> Manifest:
    return bundle.manifest


def test_what_is_written_is_read(manifest: Manifest) -> None:
    text = encode(manifest)
    assert decode(text) == manifest
    assert encode(decode(text)) == text


def test_text_does_not_depend_on_the_order_of_keys(manifest: Manifest) -> None:
    swapped = msgspec.structs.replace(
        manifest,
        parts=dict(reversed(manifest.parts.items())),
        producer={"b": "2", "a": "1"},
    )
    straight = msgspec.structs.replace(manifest, producer={"a": "1", "b": "2"})
    assert encode(swapped) == encode(straight)


def test_text_is_json_for_people(manifest: Manifest) -> None:
    text = encode(manifest).decode()
    assert json.loads(text)["schema"]["channels"][0] == {"name": "vibration", "unit": "g"}
    assert text.endswith("}\n")
    assert max(map(len, text.splitlines())) < 120


def test_counts_and_sizes(manifest: Manifest) -> None:
    assert (manifest.n_in, manifest.n_out) == (2, 4)
    assert manifest.state_sizes == {"state_00_h": 4}


def test_hash_is_of_everything(manifest: Manifest) -> None:
    others = [
        msgspec.structs.replace(manifest, name="other"),
        msgspec.structs.replace(manifest, n_warmup=None),
        msgspec.structs.replace(manifest, parts={}),
    ]
    assert len({manifest.model_hash, *(other.model_hash for other in others)}) == 4


def changed(manifest: Manifest, change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = json.loads(encode(manifest))
    change(fields)
    return json.dumps(fields).encode()


SHORT = msgspec.to_builtins(InputRange((0.0,), (1.0, 2.0)))
ONE_MEAN = msgspec.to_builtins(Normalisation((0.0,), (1.0, 1.0)))
FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an unknown field": (lambda m: m.update(code="x"), "unknown field `code`"),
    "a field missing": (lambda m: m.pop("program"), "missing required field `program`"),
    "a wrong type": (lambda m: m.update(outputs=3), "Expected `array`"),
    "a wrong type inside": (lambda m: m["states"][0].update(size="4"), r"states\[0\]\.size"),
    "no channel": (lambda m: m["schema"].update(channels=[]), "at least one channel"),
    "a channel twice": (
        lambda m: m["schema"].update(channels=[{"name": "a"}, {"name": "a"}]),
        "distinct channel names",
    ),
    "a rate of zero": (lambda m: m["schema"].update(rate_hz=0), "positive rate_hz"),
    "no output": (lambda m: m.update(outputs=[]), "outputs"),
    "a nameless output": (lambda m: m.update(outputs=["a", "b", "c", ""]), "outputs"),
    "an output twice": (lambda m: m.update(outputs=["a", "b", "c", "a"]), "distinct outputs"),
    "no state": (lambda m: m.update(states=[]), "states"),
    "a state twice": (lambda m: m["states"].append(m["states"][0]), "distinct states"),
    "an empty state": (lambda m: m["states"][0].update(size=0), "size"),
    "a state that cannot move": (lambda m: m["states"][0].update(bound=0), "bound"),
    "a bound beyond float": (lambda m: m["states"][0].update(bound=1e308 * 10), "bound|JSON"),
    "a negative warm-up": (lambda m: m.update(n_warmup=-1), "n_warmup"),
    "an unknown default": (lambda m: m.update(default_precision="int1"), "got 'int1'"),
    "a graph that is not listed": (
        lambda m: m["precisions"]["fp32"].update(graphs={"cpu": "gone.onnx"}),
        "gone.onnx",
    ),
    "labels for some outputs": (lambda m: m.update(labels=["on", "off"]), "4 labels"),
    "ranges for some channels": (lambda m: m.update(input_range=SHORT), "2 minima"),
    "means for some channels": (lambda m: m.update(normalisation=ONE_MEAN), "2 means"),
    "a part of negative size": (
        lambda m: m["parts"]["weights.safetensors"].update(n_bytes=-1),
        "n_bytes",
    ),
    "a hash that is none": (
        lambda m: m["parts"]["weights.safetensors"].update(sha256="abc"),
        "sha256",
    ),
    "a node without output": (lambda m: m["program"]["nodes"][0].update(outputs=[]), "outputs"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_fault_is_named(
    manifest: Manifest, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        decode(changed(manifest, change))


@pytest.mark.parametrize("version", [FORMAT + 1, 0, None, "1", 1.5])
def test_another_format_says_what_to_do(manifest: Manifest, version: object) -> None:
    text = changed(manifest, lambda m: m.update(format=version))
    with pytest.raises(BundleError, match=r"bundle format 1, got .*; pack the model with this"):
        decode(text)


def test_format_is_asked_before_anything_else() -> None:
    with pytest.raises(BundleError, match="format 1, got 7"):
        decode(b'{"format": 7, "fields": "of the future"}')


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}" * 2, b"3"])
def test_text_that_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match="expected"):
        decode(text)


def test_deep_text_is_refused(manifest: Manifest) -> None:
    deep = b"[" * 200_000
    with pytest.raises(BundleError, match="JSON"):
        decode(deep)
    with pytest.raises(BundleError):
        decode(b'{"format": 1, "name": ' + deep)
    with pytest.raises(BundleError):
        decode(b'{"format": 1, "name": ' + deep + b"]" * 200_000 + b"}")


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        decode(data)
