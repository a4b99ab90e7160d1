"""What a bundle says of itself: a strict, versioned description without any code in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_gru.errors import BundleError
from firmware_bridge.sample import Schema

FORMAT = 1

Count = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class PartInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and hash of one file of the bundle."""

    sha256: Sha256
    n_bytes: Count


class StateInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One state tensor: its graph input; the graph output has ``_out`` added.

    ``bound`` is the largest magnitude that the cell can reach: 1 for a GRU, whose state is a blend
    of tanh values; None where nothing holds it, as the c of an LSTM. ``has_initial``: streams start
    from the tensor ``<name>.initial`` of the weights, not from zero.
    """

    name: Name
    size: Annotated[int, Meta(ge=1)]
    bound: Annotated[float, Meta(gt=0)] | None
    has_initial: bool = False


class StepNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One operation on ``(k, n)`` arrays.

    ``op`` is an ONNX operator name, a kind of cell, or ``Walk`` (``edge_gru.engines.walk``).
    Inputs are earlier outputs, ``x``, a state, or a tensor of ``weights.safetensors``; the empty
    name stands for an input left out. A cell (``edge_gru.engines.cells``) has inputs x and its
    states, its new states as outputs, and attribute ``cell``, the prefix of its tensors.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: Annotated[tuple[str, ...], Meta(min_length=1)]
    attributes: dict[str, int | float | str | list[int | float]] = {}


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The step as a list of operations, for engines that do not read ONNX."""

    nodes: tuple[StepNode, ...]
    output: str
    opset: int


class InputRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Smallest and largest value of each channel, physical units."""

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]


class ProductForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers that a product with a weight is made of; ``edge_gru.engines.products`` has how.

    ``int8-hilo`` is an operand sent as two INT8 rows, 16 bits in all. An integer weight under a
    float operand is read back as float.
    """

    operand: Literal["fp32", "fp16", "int8", "int8-hilo"] = "fp32"
    weight: Literal["fp32", "fp16", "int8", "int4"] = "fp32"

    @property
    def has_integer_weight(self) -> bool:
        """Whether the weight is stored as integers with a scale for each row."""
        return self.weight.startswith("int")

    @property
    def has_integer_operand(self) -> bool:
        """Whether the product itself is one of integers."""
        return self.operand.startswith("int")

    @property
    def fault(self) -> str | None:
        """Why there is no such product; None if there is."""
        if self.has_integer_operand and not self.has_integer_weight:
            return f"an operand in {self.operand} needs a weight in int8 or int4"
        if "fp16" in (self.operand, self.weight) and self.operand != self.weight:
            return "a product in fp16 needs operand and weight in fp16"
        return None


class PrecisionInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One numeric form of the model: its graphs by use, and what golden vectors may differ by.

    ``graphs`` maps ``step`` (Q/DQ or float, what TensorRT reads), ``active`` (the same with a mask
    of the streams to advance) and ``cpu`` (what onnxruntime runs fast) to parts of the bundle.
    ``products`` has the form of each product by the name of its weight, fp32 where it has none.
    In a cell of ``joint``, x and h lie on one grid, and rows of its two matrices that add up have
    one scale. ``input_limit``: the physical values beyond which the grid of x saturates; None
    where x is float, or where an encoder stands before the grid.
    """

    graphs: dict[str, str]
    step_tolerance: float
    stream_sqnr_db: float
    products: dict[str, ProductForm] = {}
    joint: tuple[str, ...] = ()
    input_limit: InputRange | None = None


class Alert(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A default threshold on one output: called when above ``enter`` for ``for_s`` seconds."""

    name: str
    on: str
    enter: float
    exit: float
    for_s: float = 0.0


class Normalisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``(x - mean) / scale`` per channel: graphs begin with it, so engines take physical units."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]


class ProductRecipe(ProductForm, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How to narrow one product.

    ``rounding`` of an integer weight: ``gptq`` is kept only where it beats nearest on held-out
    data. ``head_room`` is how far the grid of an operand without a bound reaches beyond the largest
    value seen in calibration.
    """

    rounding: Literal["nearest", "gptq"] = "nearest"
    head_room: Annotated[float, Meta(ge=1, le=1000)] = 2.0

    @property
    def form(self) -> ProductForm:
        """What engines must know of it."""
        return ProductForm(self.operand, self.weight)


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model is quantized: each kind of product, and single weights by name.

    ``recurrent`` is the product of a cell with its h, ``stacked`` with the bounded h of one below,
    ``input`` with any other x, ``dense`` every other product with a weight. ``tensors`` overrides
    them for weights whose names match a pattern (``fnmatch``), the last match counts.
    ``n_finetune_steps``: of distillation after rounding.
    """

    name: Name
    recurrent: ProductRecipe = ProductRecipe()
    stacked: ProductRecipe = ProductRecipe()
    input: ProductRecipe = ProductRecipe()
    dense: ProductRecipe = ProductRecipe()
    is_joint: bool = False
    n_finetune_steps: Count = 0
    tensors: dict[str, ProductRecipe] = {}


class GateResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gate said when the model was packed; one sentence for each check below pass.

    A verdict of ``fail`` stands in a bundle only where the user insisted.
    """

    verdict: Literal["pass", "warn", "fail"]
    reasons: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a device must know of a model, except its numbers."""

    name: str
    producer: dict[str, str]
    schema: Schema
    outputs: Annotated[tuple[Name, ...], Meta(min_length=1)]
    labels: tuple[str, ...]  # of the classes that the outputs score; empty: no classifier
    normalisation: Normalisation | None  # None: the model takes physical units as it is
    states: Annotated[tuple[StateInfo, ...], Meta(min_length=1)]
    recipe: Recipe
    n_warmup: Count | None  # None: streams from different states never agreed in the data given
    precisions: dict[str, PrecisionInfo]
    default_precision: str
    program: Program
    input_range: InputRange
    alerts: tuple[Alert, ...]
    calibration_sha256: str  # of the sequences, in order
    parts: dict[str, PartInfo]
    gate: GateResult | None = None  # None: nothing was judged
    format: int = FORMAT

    @property
    def n_in(self) -> int:
        """Number of input channels."""
        return self.schema.n_channels

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return len(self.outputs)

    @property
    def state_sizes(self) -> dict[str, int]:
        """State name -> number of values."""
        return {state.name: state.size for state in self.states}

    @property
    def model_hash(self) -> str:
        """SHA-256 of this manifest, and so, through ``parts``, of the whole bundle."""
        return hashlib.sha256(encode(self)).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """Write a manifest as canonical JSON: the same content always gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode(text: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: not JSON, another format version, a missing, unknown or ill-typed field, or
            fields that contradict each other.
    """
    try:
        version: Any = msgspec.json.decode(text, type=dict[str, Any]).get("format")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(
            f"expected a manifest in JSON, got {error}; copy the bundle again"
        ) from error
    if version != FORMAT:
        raise BundleError(
            f"expected bundle format {FORMAT}, got {version!r}; "
            "pack the model with this version of edge-gru, or install the one that packed it"
        )
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise BundleError(f"the manifest is not valid: {error}; pack the model again") from error
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    for fault in (*_faults_in_names(manifest), *_faults_in_counts(manifest)):
        raise BundleError(f"the manifest is not valid: {fault}; pack the model again")


def _faults_in_names(manifest: Manifest) -> Iterator[str]:
    state_names = tuple(state.name for state in manifest.states)
    for what, names in (("outputs", manifest.outputs), ("states", state_names)):
        if len(set(names)) != len(names):
            yield f"expected distinct {what}, got {', '.join(names)}"
    if manifest.default_precision not in manifest.precisions:
        yield (
            f"expected a default precision of {', '.join(manifest.precisions)}, "
            f"got {manifest.default_precision!r}"
        )
    graphs = {part for p in manifest.precisions.values() for part in p.graphs.values()}
    missing = sorted(graphs - set(manifest.parts))
    if missing:
        yield f"it names graphs that it does not list: {', '.join(missing)}"
    for precision in manifest.precisions.values():
        for weight, form in precision.products.items():
            if form.fault:
                yield f"product with {weight}: {form.fault}"


def _faults_in_counts(manifest: Manifest) -> Iterator[str]:
    lengths = {
        "minima": len(manifest.input_range.minimum),
        "maxima": len(manifest.input_range.maximum),
    }
    if manifest.normalisation is not None:
        lengths["means"] = len(manifest.normalisation.mean)
        lengths["scales"] = len(manifest.normalisation.scale)
    for what, length in lengths.items():
        if length != manifest.n_in:
            yield f"expected {manifest.n_in} {what}, one a channel, got {length}"
    if len(manifest.labels) not in (0, manifest.n_out):
        yield f"expected {manifest.n_out} labels, one an output, got {len(manifest.labels)}"
