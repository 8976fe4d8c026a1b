"""The source of the packages, of which each file is parsed once for all the rules that read it."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("server", "jobs", "orchestration")


def sources(*packages: str) -> list[Path]:
    """Return the files of some packages, or of all three."""
    return [path for package in packages or PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    """Return the tree of a file; who reads it changes nothing in it."""
    return ast.parse(path.read_text(encoding="utf-8"))
