from __future__ import annotations

from pathlib import Path

import pytest

from edge_gru.engines.tensorrt.settings import PREFIX, Settings
from edge_gru.errors import EngineUnavailableError


def test_nothing_set_is_the_default() -> None:
    assert Settings.read({}) == Settings(
        Path("/var/cache/edge-gru/tensorrt"), "block", 64 << 20, 3, "none", uses_graphs=True
    )


def test_everything_can_be_set() -> None:
    given = {
        "WAIT": "spin",
        "WORKSPACE": "7",
        "LEVEL": "0",
        "DETAIL": "all",
        "GRAPHS": "off",
        "CACHE": "/here",
    }
    read = Settings.read({PREFIX + name: value for name, value in given.items()})
    assert read == Settings(Path("/here"), "spin", 7 << 20, 0, "all", uses_graphs=False)


def test_empty_values_are_as_good_as_none() -> None:
    names = ("WAIT", "WORKSPACE", "LEVEL", "DETAIL", "GRAPHS", "CACHE")
    assert Settings.read(dict.fromkeys((PREFIX + n for n in names), "")) == Settings.read({})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WAIT", "sleep", "one of block, spin, yield, auto, got 'sleep'"),
        ("GRAPHS", "1", "one of on, off, got '1'"),
        ("DETAIL", "DETAILED", "one of none, names, all, got 'DETAILED'"),
        ("WORKSPACE", "0", "a number from 1 to 65536, got '0'"),
        ("WORKSPACE", "65537", "a number from 1 to 65536, got '65537'"),
        ("WORKSPACE", "64M", "a number from 1 to 65536, got '64M'"),
        ("WORKSPACE", "-1", "a number from 1 to 65536, got '-1'"),
        ("WORKSPACE", "\u0663", "a number from 1 to 65536"),
        ("LEVEL", "6", "a number from 0 to 5, got '6'"),
        ("LEVEL", " 3", "a number from 0 to 5, got ' 3'"),
    ],
)
def test_wrong_value_names_the_variable(name: str, value: str, expected: str) -> None:
    with pytest.raises(EngineUnavailableError, match=f"expected {PREFIX}{name} to be {expected}"):
        Settings.read({PREFIX + name: value})


@pytest.mark.parametrize(("value", "level"), [("0", 0), ("5", 5)])
def test_levels_are_inclusive(value: str, level: int) -> None:
    assert Settings.read({f"{PREFIX}LEVEL": value}).optimization_level == level


@pytest.mark.parametrize(("value", "n_bytes"), [("1", 1 << 20), ("65536", 1 << 36)])
def test_workspace_is_inclusive(value: str, n_bytes: int) -> None:
    assert Settings.read({f"{PREFIX}WORKSPACE": value}).workspace_bytes == n_bytes


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/edge-gru/engines/tensorrt"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/xdg"}, "/xdg/edge-gru/engines/tensorrt"),
        ({"XDG_CACHE_HOME": "/xdg", "CACHE_DIRECTORY": "/var/cache/e"}, "/var/cache/e/tensorrt"),
        ({"CACHE_DIRECTORY": "/var/cache/e:/var/cache/f"}, "/var/cache/e/tensorrt"),
        ({"CACHE_DIRECTORY": "/var/cache/e", f"{PREFIX}CACHE": "/mine"}, "/mine"),
    ],
)
def test_cache_is_what_was_set_or_systemds_or_the_users(
    environment: dict[str, str], folder: str
) -> None:
    assert Settings.read(environment).cache == Path(folder)
