"""What became of an attempt is read from its files, in every state that an engine's end can leave them in."""

import fcntl
import os
from pathlib import Path

import pytest

from jobs.claude.directory import AttemptDirectory
from jobs.claude.finding import Finding, ever_ran, examine


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        ({}, Finding.NEVER_RAN),
        ({"lock": "", "in": "x"}, Finding.NEVER_RAN),
        ({"lock": "", "pid": "12"}, Finding.NEVER_RAN),
        ({"lock": "", "pid": "12\n"}, Finding.LOST),
        ({"lock": "", "pid": "12\n", "rc": ""}, Finding.LOST),
        ({"lock": "", "pid": "12\n", "rc": "0\n"}, Finding.ENDED),
    ],
)
def test_the_files_tell(tmp_path: Path, files: dict[str, str], finding: Finding):
    directory = AttemptDirectory.create(tmp_path / "1")
    for name, text in files.items():
        (tmp_path / "1" / name).write_text(text)
    assert examine(directory) is finding
    assert ever_ran(directory) is (finding is not Finding.NEVER_RAN)


def test_whoever_holds_the_lock_lives_whatever_else_the_files_say(tmp_path: Path):
    directory = AttemptDirectory.create(tmp_path / "1")
    (tmp_path / "1" / "rc").write_text("0\n")
    handle = os.open(tmp_path / "1" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert examine(directory) is Finding.LIVES
    os.close(handle)
    assert examine(directory) is Finding.ENDED


def test_a_directory_that_was_never_made_never_ran(tmp_path: Path):
    assert examine(AttemptDirectory(tmp_path / "none")) is Finding.NEVER_RAN


def test_only_the_attempt_itself_can_have_opened_its_directory_to_others(tmp_path: Path):
    directory = AttemptDirectory.create(tmp_path / "1")
    (tmp_path / "1").chmod(0o755)
    assert ever_ran(directory)
