"""The statements of `queries.sql` by name."""

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

_HEADER = "-- name: "


def parse(text: str) -> Mapping[str, str]:
    """Split a file of named statements.

    Args:
        text: Statements, each after a line `-- name: xyz` and a comment that says why it is as it is.

    Returns:
        Name to statement, without its comments.

    Raises:
        ValueError: A name is there twice, or a statement has no comment or no text.
    """
    statements: dict[str, str] = {}
    for section in text.split(f"\n{_HEADER}")[1:]:
        name, *lines = section.splitlines()
        statement = "\n".join(line for line in lines if not line.startswith("--")).strip()
        if name in statements or not statement or not lines[0].startswith("-- "):
            raise ValueError(f"queries.sql: {name} needs a unique name, a comment that says why, and a statement")
        statements[name] = statement
    return MappingProxyType(statements)


SQL = parse(files("jobs.store").joinpath("queries.sql").read_text(encoding="utf-8"))
"""Every statement that the store runs."""
