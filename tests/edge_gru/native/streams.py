"""What a stream predicts, as a hash of its bits: the same on every machine and kernel.

python streams.py pack FOLDER       bundles of every cell in every recipe; needs `quantization`
python streams.py hash FOLDER N     a line for each bundle and kernel here: N steps of two streams
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np

from edge_gru.bundle import load
from edge_gru.engines.golden import replay
from edge_gru.engines.native import NativeEngine
from edge_gru.engines.tensors import GOLDEN
from edge_gru.native import KERNELS

RECIPES = ("fp32", "fp16", "rec-nearest", "rec-hilo", "int8", "int8-hilo", "w4")
N_HIDDEN = 37  # no whole number of vectors


def pack(folder: Path) -> None:
    """Pack two cells of every kind in every recipe."""
    path = Path(__file__).parents[1] / "engines" / "conftest.py"
    spec = importlib.util.spec_from_file_location("engines_conftest", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    folder.mkdir(parents=True)
    for kind in made.CELLS:
        for recipe in RECIPES:
            bundle = made.bundle_of(kind, recipe=recipe, n_hidden=N_HIDDEN)
            (folder / f"{kind}-{recipe}.egb").write_bytes(bundle.to_bytes())


def hashes(folder: Path, n_steps: int) -> None:
    """Print what each bundle predicts."""
    for path in sorted(folder.glob("*.egb")):
        source = load(path).source
        x = np.random.default_rng(1).normal(size=(n_steps, source.manifest.n_in))
        found = {}
        for kernel in KERNELS:
            engine = NativeEngine(source, n_streams=2, precision=None, kernel=kernel)
            if not replay(engine, source.part(GOLDEN)).passed:
                raise SystemExit(f"{path.stem}: {kernel} does not reproduce the golden vectors")
            engine.reset()
            samples = x.astype(np.float32)
            y = [engine.run_sequence(samples), engine.run_sequence(samples[::-1].copy(), 1)]
            states = [
                engine.save_state(k).values[name]
                for k in (0, 1)
                for name in engine.manifest.state_sizes
            ]
            found[kernel] = hashlib.sha256(b"".join(a.tobytes() for a in (*y, *states))).hexdigest()
        if len(set(found.values())) > 1:
            raise SystemExit(f"{path.stem}: kernels differ: {found}")
        sys.stdout.write(f"{path.stem} {found[KERNELS[0]]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    verb, name, *more = sys.argv[1:]
    if verb == "pack":
        pack(Path(name))
    else:
        hashes(Path(name), int(more[0]))
