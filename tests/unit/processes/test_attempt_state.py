"""What became of an attempt is read from its files, in every state that an engine's end can leave them in."""

import fcntl
import os
from pathlib import Path

import pytest

from jobs.processes.attempt_dir import AttemptDirectory, AttemptState, ever_ran, inspect


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        ({}, AttemptState.NEVER_RAN),
        ({"lock": "", "in": "x"}, AttemptState.NEVER_RAN),
        ({"lock": "shim 12"}, AttemptState.NEVER_RAN),
        ({"lock": "shim 12\n"}, AttemptState.LOST),
        ({"lock": "shim 12\nclaude 13\nexit "}, AttemptState.LOST),
        ({"lock": "shim 12\nclaude 13\nexit 0\n"}, AttemptState.ENDED),
        # As the engine before this one wrote it.
        ({"lock": "", "pid": "12"}, AttemptState.NEVER_RAN),
        ({"lock": "", "pid": "12\n"}, AttemptState.LOST),
        ({"lock": "", "pid": "12\n", "rc": ""}, AttemptState.LOST),
        ({"lock": "", "pid": "12\n", "rc": "0\n"}, AttemptState.ENDED),
    ],
)
def test_the_files_tell(tmp_path: Path, files: dict[str, str], finding: AttemptState):
    directory = AttemptDirectory.create(tmp_path / "1")
    for name, text in files.items():
        (tmp_path / "1" / name).write_text(text)
    assert inspect(directory) is finding
    assert ever_ran(directory) is (finding is not AttemptState.NEVER_RAN)


def test_whoever_holds_the_lock_lives_whatever_else_the_files_say(tmp_path: Path):
    directory = AttemptDirectory.create(tmp_path / "1")
    (tmp_path / "1" / "lock").write_text("shim 12\nexit 0\n")
    handle = os.open(tmp_path / "1" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert inspect(directory) is AttemptState.LIVES
    os.close(handle)
    assert inspect(directory) is AttemptState.ENDED


def test_a_directory_that_was_never_made_never_ran(tmp_path: Path):
    assert inspect(AttemptDirectory(tmp_path / "none")) is AttemptState.NEVER_RAN


def test_an_attempt_whose_directory_was_opened_to_others_is_judged_by_its_files(tmp_path: Path):
    directory = AttemptDirectory.create(tmp_path / "1")
    (tmp_path / "1").chmod(0o755)
    assert not ever_ran(directory)
    (tmp_path / "1" / "lock").write_text("shim 7\n")
    (tmp_path / "1").chmod(0o777)
    assert ever_ran(directory)


def test_an_attempt_whose_directory_became_a_link_ran(tmp_path: Path):
    (tmp_path / "1").symlink_to(tmp_path)
    assert ever_ran(AttemptDirectory(tmp_path / "1"))
