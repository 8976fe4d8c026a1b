"""A file is parsed once a change, and what cannot be read is an empty one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.claude.json_files import derived

made: list[Mapping[str, Any]] = []


def count(values: Mapping[str, Any]) -> int:
    made.append(values)
    return len(values)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made.clear()
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"a": 1, "b": 2}))
    return path


def test_a_file_that_did_not_change_is_not_parsed_again(file: Path):
    assert [derived(file, count) for _ in range(3)] == [2, 2, 2]
    assert len(made) == 1


def test_files_of_many_accounts_are_not_parsed_again_either(file: Path):
    files = [file.with_name(f"{number}.json") for number in range(500)]
    for one in files:
        one.write_text("{}")
    for one in files * 2:
        derived(one, count)
    assert len(made) == 500


@pytest.mark.parametrize("replaced", [False, True])
def test_a_change_counts_at_once_also_one_that_keeps_the_files_size_and_time(file: Path, replaced: bool):
    before = file.stat()
    assert derived(file, count) == 2
    written = file.with_name("new") if replaced else file
    written.write_text(json.dumps({"a": "x" * (before.st_size - 9)}))
    os.utime(written, ns=(before.st_atime_ns, before.st_mtime_ns))
    written.rename(file)
    assert file.stat().st_size == before.st_size
    assert derived(file, count) == 1


def test_a_file_that_is_gone_is_an_empty_one(file: Path):
    assert derived(file, count) == 2
    file.unlink()
    assert derived(file, count) == 0
