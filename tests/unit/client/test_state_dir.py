"""The state directory: found, made, and refused where others could have a hand in it."""

import os
import stat
from pathlib import Path

import pytest
from platformdirs import user_state_path

from server.client.state_dir import StateDirError, StatePaths, absolute, prepare, state_dir


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("named", ["here", "./here", "a/../b"])
def test_a_named_directory_that_each_working_directory_would_take_for_another_is_refused(named: str):
    with pytest.raises(StateDirError, match=r"relative path.*Set CLAUDE_JOBS_HOME to an absolute path"):
        state_dir({"CLAUDE_JOBS_HOME": named})


def test_a_tilde_in_the_named_directory_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert state_dir({"CLAUDE_JOBS_HOME": "~/state"}) == str(tmp_path / "state")


@pytest.mark.parametrize(
    "environ",
    [
        {"HOME": "/h"},
        {"HOME": "/h", "CLAUDE_JOBS_HOME": ""},
        {"HOME": "/h", "XDG_STATE_HOME": "/x//y/"},
        {"HOME": "/h", "XDG_STATE_HOME": "relative"},
        {"HOME": "/h", "XDG_STATE_HOME": " "},
        {"HOME": "relative"},
        {"HOME": ""},
        {},
    ],
)
def test_without_a_name_it_is_the_directory_that_platformdirs_names(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert Path(state_dir(environ)) == user_state_path("claude-jobs")


@pytest.mark.parametrize("path", ["/a", "/a/", "/a//b/./c/.", "/a/../b", "/", "x", "./x/..", ".", ""])
def test_a_path_is_made_absolute_as_pathlib_does_it(path: str):
    assert absolute(path) == str(Path(path).absolute())


def test_a_new_state_directory_is_this_users_alone_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        prepare(tmp_path / "a" / "b" / "state")
    finally:
        os.umask(before)

    made = [tmp_path / "a" / "b" / "state", tmp_path / "a" / "b", tmp_path / "a"]
    assert [mode(path) for path in made] == [0o700, 0o700, 0o700]


def test_a_umask_that_takes_the_owners_bits_does_not_keep_a_state_directory_from_being_made(tmp_path: Path):
    before = os.umask(0o777)
    try:
        prepare(tmp_path / "a" / "state")
    finally:
        os.umask(before)

    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "state")] == [0o700, 0o700]


def test_without_any_home_directory_it_is_said_which_variable_to_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", _no_such_user)

    with pytest.raises(StateDirError, match="CLAUDE_JOBS_HOME"):
        state_dir({})
    with pytest.raises(StateDirError, match="CLAUDE_JOBS_HOME"):
        state_dir({"CLAUDE_JOBS_HOME": "~/state"})
    with pytest.raises(StateDirError, match="no such user"):
        state_dir({"CLAUDE_JOBS_HOME": "~nobody-of-this-name/state"})


def _no_such_user(uid: int) -> None:
    raise KeyError(uid)


def test_a_path_that_is_too_long_is_said_to_be_too_long(tmp_path: Path):
    with pytest.raises(StateDirError, match="too long"):
        prepare(tmp_path / ("x" * 300) / "state")
    with pytest.raises(StateDirError, match="too long"):
        prepare(tmp_path.joinpath(*["x" * 200] * 30))


def test_a_directory_that_others_may_only_read_is_closed_to_them(tmp_path: Path):
    (tmp_path / "state").mkdir(mode=0o755)

    prepare(tmp_path / "state")

    assert mode(tmp_path / "state") == 0o700


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702, 0o1777])
def test_a_directory_that_others_can_write_to_is_refused_with_the_way_to_mend_it(tmp_path: Path, bits: int):
    home = tmp_path / "state"
    home.mkdir()
    home.chmod(bits)

    with pytest.raises(StateDirError, match=f"chmod 700 '{home}'"):
        prepare(home)

    assert mode(home) == bits


def test_a_symbolic_link_is_refused_and_what_it_points_to_is_left_alone(tmp_path: Path):
    (tmp_path / "target").mkdir(mode=0o755)
    (tmp_path / "state").symlink_to(tmp_path / "target")

    with pytest.raises(StateDirError, match="symbolic link"):
        prepare(tmp_path / "state")

    assert mode(tmp_path / "target") == 0o755


def test_a_dangling_link_is_refused(tmp_path: Path):
    (tmp_path / "state").symlink_to(tmp_path / "nowhere")

    with pytest.raises(StateDirError, match="symbolic link"):
        prepare(tmp_path / "state")


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare(tmp_path / "state")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)

    with pytest.raises(StateDirError, match=f"belongs to user {mine}"):
        prepare(tmp_path / "state")


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path):
    (tmp_path / "state").touch()

    with pytest.raises(StateDirError, match="cannot be made or opened"):
        prepare(tmp_path / "state")


def test_a_short_state_directory_holds_its_own_socket(tmp_path: Path):
    assert StatePaths(Path("/s")).socket == Path("/s/engine.sock")


@pytest.fixture
def long_home(tmp_path: Path) -> Path:
    return tmp_path / ("d" * 60) / ("e" * 60) / "state"


def test_a_long_state_directory_gets_a_short_socket_path_in_a_directory_of_its_own(long_home: Path):
    paths = prepare(long_home)
    try:
        assert len(os.fsencode(paths.socket)) < 100
        assert mode(paths.socket.parent) == 0o700
        assert paths.database.parent == long_home
    finally:
        paths.socket.parent.rmdir()


def test_two_long_state_directories_never_share_a_socket(long_home: Path):
    assert StatePaths(long_home).socket != StatePaths(long_home.parent / "other").socket


def test_the_socket_path_does_not_depend_on_the_environment(long_home: Path, monkeypatch: pytest.MonkeyPatch):
    before = StatePaths(long_home).socket
    monkeypatch.setenv("TMPDIR", str(long_home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long_home))

    assert StatePaths(long_home).socket == before


def test_a_planted_socket_directory_is_refused(long_home: Path, tmp_path: Path):
    short = StatePaths(long_home).socket.parent
    (tmp_path / "theirs").mkdir()
    short.symlink_to(tmp_path / "theirs")
    try:
        with pytest.raises(StateDirError, match="symbolic link"):
            prepare(long_home)
    finally:
        short.unlink()
