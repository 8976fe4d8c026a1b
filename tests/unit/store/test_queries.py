"""The file of named statements, and that every statement in it is used."""

import re
from pathlib import Path

import pytest

import jobs.store
from jobs.store.queries import SQL, parse

PACKAGE = Path(jobs.store.__file__).parent


def test_a_statement_is_found_by_its_name_without_its_comments() -> None:
    parsed = parse("-- The file.\n\n-- name: one\n-- Why.\nSELECT 1;\n\n-- name: two\n-- Why.\nSELECT\n2;\n")

    assert parsed == {"one": "SELECT 1;", "two": "SELECT\n2;"}


@pytest.mark.parametrize(
    "section",
    [
        "-- name: one\n-- Why.\nSELECT 2;",
        "-- name: two\nSELECT 2;",
        "-- name: two\n-- Why.\n",
        "-- name: two\n",
    ],
)
def test_a_name_that_is_taken_or_a_section_that_lacks_something_is_refused(section: str) -> None:
    with pytest.raises(ValueError, match=r"queries\.sql"):
        parse(f"\n-- name: one\n-- Why.\nSELECT 1;\n\n{section}")


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        SQL["nothing of the kind"]


def test_every_name_that_is_used_exists_and_every_name_that_exists_is_used() -> None:
    sources = "".join(path.read_text() for path in PACKAGE.glob("*.py"))
    used = set(re.findall(r'(?:SQL\[|_read\(|_first\()"(\w+)"', sources))

    assert used == set(SQL)


def test_no_statement_stands_in_python() -> None:
    verbs = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE)\b")

    assert [path.name for path in PACKAGE.glob("*.py") if verbs.search(path.read_text())] == []
