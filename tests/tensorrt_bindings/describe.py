"""Prints the public API of the importable ``tensorrt`` as JSON.

Signatures are what pybind11 writes at the head of docstrings.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from typing import Any

import tensorrt

_SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((.*)\) -> (.+)$")
_PARAMETER = re.compile(r"^(\w+)(?:: ([^=]*?))?(?: = (.*))?$")
_NAMESPACES = re.compile(r"\b(?:tensorrt_bindings\.|tensorrt\.|nvinfer1::|nvonnxparser::)+")


def described() -> dict[str, Any]:
    api: dict[str, Any] = {"version": tensorrt.__version__, "classes": {}, "enums": {}}
    for name, thing in vars(tensorrt).items():
        if inspect.isclass(thing) and not name.startswith("_"):
            if hasattr(thing, "__members__"):
                api["enums"][name] = members_of(thing)
            else:
                bases = [
                    base.__name__ for base in thing.__mro__[1:] if hasattr(tensorrt, base.__name__)
                ]
                api["classes"][name] = {"bases": bases, "members": describe_class(thing)}
    return api


def describe_class(cls: type) -> dict[str, Any]:
    found = {}
    for name in dir(cls):
        if name.startswith("_") and name != "__init__":
            continue
        raw = inspect.getattr_static(cls, name)
        if isinstance(raw, property):
            signatures = parse(getattr(raw.fget, "__doc__", None))
            type_name = signatures[0]["returns"] if signatures else ""
            found[name] = {"is_settable": raw.fset is not None, "type": type_name}
        elif inspect.isclass(raw) and hasattr(raw, "__members__"):
            found[name] = {"enum": members_of(raw)}
        elif callable(getattr(cls, name)):
            found[name] = {"signatures": parse(getattr(cls, name).__doc__)}
        else:
            kind = type(raw).__name__
            found[name] = {"constant": f"{cls.__name__}.{kind}" if hasattr(cls, kind) else kind}
    return found


def members_of(enum: Any) -> dict[str, int]:
    return {name: int(value) for name, value in enum.__members__.items()}


def parse(doc: str | None) -> list[dict[str, Any]]:
    signatures = []
    for line in (doc or "").splitlines():
        match = _SIGNATURE.match(line.strip())
        if match and "*args" not in match[1]:
            parameters = [parameter(part) for part in split(match[1])]
            signatures.append({"parameters": parameters, "returns": plain(match[2])})
    return signatures


def split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{<") - (char in ")]}>")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def parameter(text: str) -> dict[str, Any]:
    match = _PARAMETER.match(text)
    name, kind, default = match.groups() if match else (text, "", None)
    return {"name": name, "type": plain(kind or ""), "is_optional": default is not None}


def plain(type_name: str) -> str:
    return _NAMESPACES.sub("", type_name)


if __name__ == "__main__":
    json.dump(described(), sys.stdout, indent=1)
