"""Types of ``tensorrt`` for mypy, from its API as ``describe.py`` prints it.

Names, arguments and enum members are exact; a type that is not simple is Any. What answers None on
failure says so, which the bindings do not, so that mypy asks for the check.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from typing import Any

_SIMPLE = {"int": "int", "str": "str", "bool": "bool", "float": "float", "None": "None"}
_SAME = {
    "SupportsInt": "int", "typing.SupportsInt": "int", "IParserError": "ParserError",
    "List[str]": "list[str]", "list[str]": "list[str]",
}  # fmt: skip
_OR_NONE = {
    "create_network", "create_builder_config", "create_optimization_profile",
    "build_serialized_network", "create_timing_cache", "get_timing_cache", "serialize",
    "deserialize_cuda_engine", "create_execution_context",
}  # fmt: skip


def stub(api: dict[str, Any]) -> str:
    head = ["# mypy: ignore-errors", "import builtins"]
    return "\n".join([*head, "from typing import Any, overload", *_lines(api)]) + "\n"


def _lines(api: dict[str, Any]) -> Iterator[str]:
    yield "__version__: builtins.str"
    for name, members in api["enums"].items():
        yield from _enum(name, name, members)
    written: set[str] = set()
    waiting = dict(api["classes"])
    while waiting:
        for name, described in list(waiting.items()):
            if not set(described["bases"]) & set(waiting):
                yield from _class(api, name, waiting.pop(name))
                written.add(name)


def _enum(name: str, whole_name: str, members: dict[str, int]) -> Iterator[str]:
    yield f"class {name}:"
    for member in members:
        yield f"    {member}: {whole_name}"
    yield "    name: builtins.str"
    yield "    def __int__(self) -> builtins.int: ..."


def _class(api: dict[str, Any], name: str, described: dict[str, Any]) -> Iterator[str]:
    base = f"({described['bases'][0]})" if described["bases"] else ""
    yield f"class {name}{base}:"
    yield "    _stub: Any"
    if name == "IHostMemory":
        yield "    def __bytes__(self) -> builtins.bytes: ..."
        yield "    def __buffer__(self, flags: builtins.int, /) -> memoryview: ..."
    for member, facts in described["members"].items():
        if "enum" in facts:
            yield from (f"    {line}" for line in _enum(member, f"{name}.{member}", facts["enum"]))
        elif "constant" in facts:
            yield f"    {member}: {_type(api, facts['constant'])}"
        elif "signatures" in facts:
            yield from _method(api, member, facts["signatures"])
        else:
            yield "    @property"
            yield f"    def {member}(self) -> {_type(api, facts['type'])}: ..."
            if facts["is_settable"]:
                yield f"    @{member}.setter"
                yield f"    def {member}(self, value: {_type(api, facts['type'])}) -> None: ..."


def _method(api: dict[str, Any], name: str, signatures: list[dict[str, Any]]) -> Iterator[str]:
    if not signatures:
        result = "None" if name == "__init__" else "Any"
        yield f"    def {name}(self, *args: Any, **kwargs: Any) -> {result}: ..."
    for signature in signatures:
        if len(signatures) > 1:
            yield "    @overload"
        result = _type(api, signature["returns"]) + (" | None" if name in _OR_NONE else "")
        parameters = ["self"]
        has_default = False
        for parameter in signature["parameters"][1:]:
            clean = parameter["name"] + "_" * keyword.iskeyword(parameter["name"])
            has_default = has_default or parameter["is_optional"]  # some say it of the first alone
            default = " = ..." if has_default else ""
            parameters.append(f"{clean}: {_type(api, parameter['type'])}{default}")
        yield f"    def {name}({', '.join(parameters)}) -> {result}: ..."


def _type(api: dict[str, Any], name: str) -> str:
    name = _SAME.get(name, name)
    if name in _SIMPLE or name.startswith("list["):
        return name if name == "None" else f"builtins.{name}"
    owner, _, member = name.rpartition(".")
    if owner in api["classes"] and "enum" in api["classes"][owner]["members"].get(member, {}):
        return name
    known = {*api["classes"], *api["enums"]} - {"Dims"}  # for which any sequence of ints will do
    return name if name in known else "Any"
