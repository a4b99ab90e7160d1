"""Give every step graph to NVIDIA's parser and builder, and print what becomes of it.

Exit code 1: a graph does not build, a recurrent product of an integer recipe is not in INT8, or a
step of recipe ``int8`` has more engine layers than 5 with one layer of cells, or 7 with two.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import builder
import onnx
from networks import KINDS, quantized, write_network

from edge_gru.bundle import Bundle
from quantization.examples import EXAMPLES
from quantization.pipeline import quantize

RECIPES = ("int8", "rec", "int8-hilo")
LIMITS = {1: 5, 2: 7}  # layers of cells -> layers of the engine, at recipe int8 and batch 1
BATCHES = ((1, 1, 1), (1, 4, 16))
_RECURRENT = re.compile(r"\.(gh|xh)\w*_product_MatMul")
_N_SEQUENCES = 12


class Case(NamedTuple):
    """A model that was quantized by a recipe."""

    model: str
    n_cells: int
    recipe: str
    bundle: Bundle
    is_limited: bool = True


def examples() -> Iterator[Case]:
    """Quantize the examples whose data are here, torch or not."""
    for name, example in EXAMPLES.items():
        try:
            sequences, model = example.sequences("train")[:_N_SEQUENCES], example.load_trained()
        except (FileNotFoundError, ModuleNotFoundError) as error:
            tell(f"{name}: left out, {error}")
            continue
        for recipe in RECIPES:
            bundle = quantize(
                model, sequences, recipe=recipe, name=name, schema=example.schema(),
                outputs=example.outputs, resets=example.resets, accept_failure=True,
            )  # fmt: skip
            yield Case(name, example.architecture.n_layers, recipe, bundle)


def kinds(folder: Path) -> Iterator[Case]:
    """Quantize a network of each kind of cell."""
    for kind in KINDS:
        for n_layers in LIMITS:
            path = write_network(folder / "net.onnx", kind, n_layers=n_layers, n_hidden=64)
            for recipe in RECIPES:
                # The candidate of a cell that resets first reads r h, so its products are two.
                is_limited = kind != "GRU, reset first"
                yield Case(f"{kind} 64", n_layers, recipe, quantized(path, recipe), is_limited)


def check(case: Case, folder: Path) -> Iterator[str]:
    """Print a line for each graph of a model; give what is wrong with it."""
    manifest = case.bundle.manifest
    precision = manifest.default_precision
    names = [precision] if case.recipe != RECIPES[0] else list(manifest.precisions)
    parts = [manifest.precisions[p].graphs[use] for p in names for use in ("step", "active")]
    files = [folder / part for part in parts]
    for file, part in zip(files, parts, strict=True):
        file.write_bytes(case.bundle.parts[part])
    for batch in BATCHES:
        for file, built in zip(files, builder.build_all(files, batch), strict=True):
            where = (
                f"{case.model}, {case.n_cells} layers, {case.recipe}, {file.name}, batch {batch}"
            )
            tell(f"{where}: {built.error or f'{len(built.layers)} layers, {built.n_int8} in INT8'}")
            yield from (f"{where}: {fault}" for fault in faults(case, file, built, batch))


def faults(
    case: Case, file: Path, built: builder.Built, batch: tuple[int, int, int]
) -> Iterator[str]:
    """Say what is not as it should be."""
    if built.error:
        yield built.error
        return
    if not file.name.startswith("int8"):
        return
    nodes = [node.name for node in onnx.load(file).graph.node if node.op_type == "MatMul"]
    recurrent = [name for name in nodes if _RECURRENT.search(name)]
    if not recurrent:
        yield "no recurrent product found"
    yield from (f"{name} is not in INT8" for name in recurrent if not built.is_int8(name))
    limit = LIMITS[case.n_cells]
    is_counted = case.recipe == "int8" and case.is_limited and batch == BATCHES[0]
    if is_counted and len(built.layers) > limit:
        yield f"expected at most {limit} engine layers"


def tell(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Check all, and end with what is wrong."""
    if not builder.is_there():
        builder.get()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = chain(kinds(folder), examples())
        found = [fault for case in cases for fault in check(case, folder)]
    for fault in found:
        tell(f"WRONG {fault}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
