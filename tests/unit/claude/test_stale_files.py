"""Sockets and keys of a dead `claude` are removed, and nothing else."""

import socket
from pathlib import Path

import pytest

from jobs.claude.stale_files import ClientDirectories, remove_stale_files


def test_the_socket_and_the_keys_of_one_process_are_removed(tmp_path: Path):
    sockets, sessions = tmp_path / "s", tmp_path / "config" / "sessions"
    sockets.mkdir()
    sessions.mkdir(parents=True)
    for pid in (41, 412):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(sockets / f"{pid}.sock"))
        (sessions / f"{pid}.abc.key").touch()
    assert remove_stale_files(41, ClientDirectories(config=tmp_path / "config", sockets=(sockets,))) == 2
    assert [path.name for path in sockets.iterdir()] == ["412.sock"]
    assert [path.name for path in sessions.iterdir()] == ["412.abc.key"]
    assert remove_stale_files(41, ClientDirectories(sockets=(sockets,))) == 0


def test_a_link_and_a_directory_of_that_name_are_left_alone(tmp_path: Path):
    (tmp_path / "precious").touch()
    (tmp_path / "7.sock").symlink_to(tmp_path / "precious")
    (tmp_path / "8.sock").mkdir()
    here = ClientDirectories(sockets=(tmp_path,))
    assert remove_stale_files(7, here) + remove_stale_files(8, here) == 0
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, "/tmp"),
        ({"TMPDIR": "/t"}, "/t"),
        ({"TMPDIR": "/t", "CLAUDE_CODE_TMPDIR": "/c"}, "/c"),
        ({"CLAUDE_CODE_TMPDIR": "/c", "XDG_RUNTIME_DIR": "/x"}, "/x"),
    ],
)
def test_sockets_are_where_the_environment_has_claude_put_them(env: dict[str, str], place: str):
    assert ClientDirectories.of(env).sockets[0] == Path(place) / "cc-socks"
