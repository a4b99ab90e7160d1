"""Breaks the TensorRT engine in every small way, and lists what no test sees.

    mutants.py [MODULE...]

Deletes statements, turns conditions and comparisons around, swaps neighbouring arguments, pairs and
operators, changes constants, lets handlers miss what they are for. Every mutant runs in a fork that
has everything imported but the engine, until the first test fails. It also reaches what tools that
wrap functions leave out: code under decorators, as everything that lends and gives back is.
"""

from __future__ import annotations

import ast
import copy
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import hypothesis  # noqa: F401 - imported once, before any fork
import onnxruntime  # noqa: F401 - likewise
import pytest

import quantization.pack  # noqa: F401 - likewise

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
PACKAGE = "edge_gru.engines.tensorrt"
LIMIT_S = 180.0
ENGINE = ("test_engine.py", "test_failures.py")
TESTS = {
    "binding": ("test_binding.py", *ENGINE),
    "board": ("test_board.py",),
    "build": ("test_build.py", *ENGINE),
    "cache": ("test_cache.py", "test_plans.py"),
    "cudart": ("test_cudart.py", *ENGINE),
    "device": ("test_cudart.py", *ENGINE),
    "engine": ENGINE,
    "folder": ("test_cache.py", "test_plans.py"),
    "plans": ("test_plans.py", *ENGINE),
    "runner": ENGINE,
    "runtime": ENGINE,
    "settings": ("test_settings.py", *ENGINE),
}
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.BitXor: ast.BitAnd,
}  # fmt: skip
STATEMENTS = (
    ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Raise, ast.Delete,
    ast.For, ast.If, ast.While, ast.Continue,
)  # fmt: skip

Change = tuple[str, ast.AST]


def main(modules: list[str]) -> int:
    """Run them; the exit code is 1 if any survived that ``MUTANTS.md`` does not explain."""
    notes = HERE / "MUTANTS.md"
    explained = notes.read_text() if notes.exists() else ""
    n_unexplained = 0
    for module in modules or TESTS:
        path = ROOT / PACKAGE.replace(".", "/") / f"{module}.py"
        tree = ast.parse(path.read_text())
        if is_killed(module, path, compile(tree, str(path), "exec")):
            raise SystemExit(f"{module}: its tests fail as it is")
        n_mutants = n_survived = 0
        for line, what, code in mutants(tree, path):
            n_mutants += 1
            if is_killed(module, path, code):
                continue
            n_survived += 1
            is_explained = f"`{what}`" in explained
            n_unexplained += not is_explained
            print(f"{module}.py:{line}: {'' if is_explained else 'UNEXPLAINED '}{what}", flush=True)
        print(f"{module}: {n_mutants} mutants, {n_survived} survived", flush=True)
    return int(n_unexplained > 0)


def mutants(tree: ast.Module, path: Path) -> Iterator[tuple[int, str, CodeType]]:
    """Yield the code of one mutant after the other; ``tree`` is as it was in between."""
    for node, field, index, child, parents in sites(tree, []):
        for what, new in changes(node, field, child, parents):
            put(node, field, index, new)
            mutant = ast.fix_missing_locations(copy.deepcopy(tree))
            put(node, field, index, child)
            yield getattr(child, "lineno", 0), what, compile(mutant, str(path), "exec")


Site = tuple[ast.AST, str, "int | None", ast.AST, list[ast.AST]]


def sites(node: ast.AST, parents: list[ast.AST]) -> list[Site]:
    found: list[Site] = []
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if isinstance(child, ast.AST):
                found.append((node, field, index, child, [*parents, node]))
                found += sites(child, [*parents, node])
    return found


def put(node: ast.AST, field: str, index: int | None, new: ast.AST) -> None:
    if index is None:
        setattr(node, field, new)
    else:
        getattr(node, field)[index] = new


def changes(node: ast.AST, field: str, child: ast.AST, parents: list[ast.AST]) -> Iterator[Change]:
    is_inside = any(isinstance(parent, ast.FunctionDef) for parent in parents)
    if is_inside and field in ("body", "orelse", "finalbody"):
        yield from deletions(child)
    if field == "test" and not isinstance(child, ast.Compare):
        yield f"not ({ast.unparse(child)})", ast.UnaryOp(ast.Not(), child)
    if isinstance(child, ast.ExceptHandler) and child.type is not None:
        other = copy.deepcopy(child)
        other.type = ast.Name("ZeroDivisionError", ast.Load())
        yield f"except something else than {ast.unparse(child.type)}", other
    if is_words([*parents, node, child]):
        return
    if isinstance(child, ast.Constant) and not isinstance(node, ast.Expr):
        yield from other_constants(node, child, is_inside=is_inside)
    yield from turned_around(child)


def deletions(child: ast.AST) -> Iterator[Change]:
    is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
    is_declaration = isinstance(child, ast.AnnAssign) and child.value is None
    is_log = ast.unparse(child).startswith("_log.")
    if isinstance(child, STATEMENTS) and not (is_text or is_declaration or is_log):
        yield f"delete {head(child)}", ast.copy_location(ast.Pass(), child)


def is_words(nodes: list[ast.AST]) -> bool:
    """Whether this is what a message says."""
    is_message = any(isinstance(node, (ast.Raise, ast.JoinedStr)) for node in nodes)
    return is_message or any(
        isinstance(node, ast.Call) and head(node).startswith("_log.") for node in nodes
    )


def other_constants(node: ast.AST, child: ast.Constant, *, is_inside: bool) -> Iterator[Change]:
    value = child.value
    where = f"in {head(node)}"
    if isinstance(value, bool):
        yield f"{value} -> {not value} {where}", ast.Constant(not value)
    elif isinstance(value, int):
        yield f"{value} -> {value + 1} {where}", ast.Constant(value + 1)
    elif isinstance(value, str) and is_inside:
        yield f"{value!r} -> another {where}", ast.Constant(value + "~")


def turned_around(child: ast.AST) -> Iterator[Change]:
    other = copy.deepcopy(child)
    if isinstance(other, ast.Compare) and type(other.ops[0]) in COMPARISONS:
        other.ops[0] = COMPARISONS[type(other.ops[0])]()
        yield f"{head(child)} -> {head(other)}", other
    elif isinstance(other, ast.BinOp) and type(other.op) in OPERATORS:
        other.op = OPERATORS[type(other.op)]()
        yield f"{head(child)} -> {head(other)}", other
    elif isinstance(other, ast.BoolOp):
        other.op = ast.Or() if isinstance(other.op, ast.And) else ast.And()
        yield f"{head(child)} -> {head(other)}", other
    elif isinstance(other, ast.Call):
        yield from swapped(other.args, child, other)
    elif isinstance(other, ast.Tuple) and len(other.elts) == 2:
        yield from swapped(other.elts, child, other)


def swapped(items: list[ast.expr], child: ast.AST, other: ast.AST) -> Iterator[Change]:
    for k in range(len(items) - 1):
        is_plain = not any(isinstance(item, ast.Starred) for item in items[k : k + 2])
        if is_plain and ast.dump(items[k]) != ast.dump(items[k + 1]):
            items[k], items[k + 1] = items[k + 1], items[k]
            yield f"{head(child)} -> {head(other)}", copy.deepcopy(other)
            items[k], items[k + 1] = items[k + 1], items[k]


def head(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0][:70]


def is_killed(module: str, path: Path, code: CodeType) -> bool:
    """Run the tests of a module with this code in its place; True if one fails, or hangs."""
    child = os.fork()
    if not child:
        os.setsid()
        run_tests(module, path, code)
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status != 0
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def run_tests(module: str, path: Path, code: CodeType) -> None:
    """In the fork: import the engine anew, with this code for one of its files; never return."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    loader = importlib.machinery.SourceFileLoader
    real = loader.get_code
    loader.get_code = lambda self, name: code if Path(self.path) == path else real(self, name)
    for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]
    os.fsync = lambda _: None
    tests = [str(HERE / name) for name in TESTS[module]]
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is imported already
    failed = 1
    try:
        failed = int(pytest.main([*options, *tests]))
    finally:
        os._exit(failed)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
