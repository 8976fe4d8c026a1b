"""A directory's own settings are loaded only where the person trusted the directory."""

import json
import os
from pathlib import Path

import pytest

from jobs.claude.command import USER_ONLY, WITH_PROJECT
from jobs.claude.json_files import MOST
from jobs.permissions.rights import setting_sources


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("src/repo/sub", "src/other", "srcx"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def accept(home: Path, *directories: Path, accepted: object = True) -> None:
    projects = {str(one): {"hasTrustDialogAccepted": accepted} for one in directories}
    (home / ".claude.json").write_text(json.dumps({"projects": projects}))


def sources(home: Path, directory: Path, **env: str) -> str:
    return setting_sources(str(directory), {"HOME": str(home), **env}, ())


def test_nothing_is_trusted_without_a_persons_word(home: Path):
    assert sources(home, home / "src") == USER_ONLY
    accept(home, home / "src" / "other")
    assert sources(home, home / "src" / "repo") == USER_ONLY


def test_a_directory_accepted_in_claude_code_is_trusted_with_all_below_it(home: Path):
    accept(home, home / "src")
    assert [sources(home, home / one) for one in ("src", "src/repo/sub", "srcx")] == [
        WITH_PROJECT,
        WITH_PROJECT,
        USER_ONLY,
    ]


def test_the_decisions_are_read_where_the_client_keeps_them(home: Path, tmp_path_factory: pytest.TempPathFactory):
    other = tmp_path_factory.mktemp("config")
    accept(other, home / "src")
    assert sources(home, home / "src", CLAUDE_CONFIG_DIR=str(other)) == WITH_PROJECT
    assert sources(home, home / "src") == USER_ONLY
    assert setting_sources(str(home / "src"), {}, ()) == USER_ONLY


def test_the_home_directory_does_not_trust_everything_below_it(home: Path):
    accept(home, home, Path("/"))
    assert sources(home, home / "src") == USER_ONLY
    assert sources(home, home) == WITH_PROJECT


def test_a_link_into_a_trusted_directory_is_its_target(home: Path):
    accept(home, home / "src" / "repo")
    (home / "srcx" / "in").symlink_to(home / "src" / "repo")
    (home / "src" / "repo" / "out").symlink_to(home / "srcx")
    assert sources(home, home / "srcx" / "in") == WITH_PROJECT
    assert sources(home, home / "src" / "repo" / "out") == USER_ONLY


@pytest.mark.parametrize("accepted", [False, None, "true", 1])
def test_only_a_plain_yes_is_one(home: Path, accepted: object):
    accept(home, home / "src", accepted=accepted)
    assert sources(home, home / "src") == USER_ONLY


@pytest.mark.parametrize("content", ["", "[]", '{"projects": []}', "{", '{"projects": {}}', "[" * 100_000])
def test_a_file_that_is_not_as_expected_trusts_nothing(home: Path, content: str):
    (home / ".claude.json").write_text(content)
    assert sources(home, home / "src") == USER_ONLY


def test_a_pipe_in_the_files_place_holds_nobody(home: Path):
    os.mkfifo(home / ".claude.json")
    assert sources(home, home / "src") == USER_ONLY


def test_a_file_beyond_the_bound_is_not_read(home: Path):
    accept(home, home / "src")
    with (home / ".claude.json").open("a") as file:
        file.write(" " * MOST)
    assert sources(home, home / "src") == USER_ONLY


def test_our_own_setting_trusts_a_directory_with_all_below_it(home: Path):
    def trusted(directory: str) -> str:
        return setting_sources(str(home / directory), {}, [home / "src" / "repo"])

    assert [trusted(one) for one in ("src/repo", "src/repo/sub", "src", "srcx")] == [
        WITH_PROJECT,
        WITH_PROJECT,
        USER_ONLY,
        USER_ONLY,
    ]
