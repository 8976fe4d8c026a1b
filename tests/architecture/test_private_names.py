"""Tests reach into nothing private: ruff sees `thing._name`, and this sees the other ways."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

_PRIVATE = re.compile(r"(^|\.)_(?!_)\w*$")
_BY_NAME = frozenset({"setattr", "delattr", "getattr", "hasattr", "patch", "object"})
"""Functions that take the name of an attribute as a text: the built-in ones, and those of pytest and of mocks."""


def reaches(source: str) -> Iterator[str]:
    """Yield the private names that a source imports, and those that it names in a text to read or replace them."""
    for node in ast.walk(ast.parse(source)):
        yield from filter(_PRIVATE.search, _named_by(node))


def _named_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.ImportFrom(module=module, names=names):
            yield from (module or "", *(alias.name for alias in names))
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.Call(func=ast.Name(id=function) | ast.Attribute(attr=function), args=args) if function in _BY_NAME:
            yield from map(_text, args)
        case ast.Subscript(value=ast.Call(func=ast.Name(id="vars")) | ast.Attribute(attr="__dict__"), slice=key):
            yield _text(key)
        case _:
            pass


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@pytest.mark.parametrize(
    "source",
    [
        "from jobs.settings import _merge",
        "from jobs import settings as module, _merge",
        "import mcp.client._transport",
        "from mcp.client._transport import Streams",
        'monkeypatch.setattr(module, "_PATIENCE", 1)',
        'monkeypatch.setattr("server.cli.follow._MOST", 1)',
        'getattr(runner, "_live")',
        'vars(connection)["_begin"]',
        'connection.__dict__["_begin"]',
    ],
)
def test_a_reach_into_something_private_is_seen(source: str):
    assert list(reaches(source))


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations",
        "from server import __version__",
        'monkeypatch.setattr(os, "statvfs", full)',
        'getattr(thing, "__name__")',
        'answer["_meta"]',
        'vars(connection)["begin"]',
    ],
)
def test_what_is_public_is_no_such_reach(source: str):
    assert not list(reaches(source))


def test_no_test_reaches_into_something_private():
    found = {str(path.relative_to(ROOT)): names for path in TESTS if (names := sorted(reaches(path.read_text())))}
    assert found == {}
