import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.processes.attempt_dir import AttemptDirectory, UnsafeDirectoryError
from jobs.processes.fork_server import NOT_PRIVATE, RUNS, RefusedError, open_files


def made(path: Path, stdin: bytes = b"x") -> list[int]:
    """Make the files of an attempt, as a launch does."""
    return open_files(os.fsencode(path), b"{}\n", stdin)


def close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def directory(tmp_path: Path) -> AttemptDirectory:
    return AttemptDirectory.create(tmp_path / "job" / "1")


def test_a_directory_and_its_files_are_private(directory: AttemptDirectory) -> None:
    before = os.umask(0)
    try:
        close(made(directory.path, stdin=b"secret"))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.path.iterdir()}
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert modes == dict.fromkeys(("job.json", "in", "lock", "out", "err"), 0o600)


def test_a_directory_that_is_there_is_taken_again(directory: AttemptDirectory) -> None:
    close(made(directory.path))
    assert (AttemptDirectory.create(directory.path).path / "in").read_bytes() == b"x"


def test_a_directory_that_is_not_private_gets_no_files(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o750)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(RefusedError) as refused:
            made(tmp_path / name)
        assert refused.value.number == NOT_PRIVATE
    assert list((tmp_path / "open").iterdir()) == []


def test_what_was_opened_before_a_refusal_is_closed(directory: AttemptDirectory) -> None:
    (directory.path / "err").symlink_to("out")
    before = os.listdir("/dev/fd")  # noqa: PTH208 - a Path would open it
    with pytest.raises(OSError, match="symbolic link"):
        made(directory.path)
    assert os.listdir("/dev/fd") == before  # noqa: PTH208 - the same
    assert not directory.lock_held()


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafeDirectoryError):
        AttemptDirectory.create(tmp_path / "link")


@pytest.mark.parametrize(
    ("mode", "could"), [(0o750, "read"), (0o755, "read"), (0o770, "write to"), (0o777, "write to")]
)
def test_a_directory_that_was_opened_to_others_is_made_private_again(
    directory: AttemptDirectory, mode: int, could: str
) -> None:
    (directory.path / "lock").write_text("exit 7\n")
    assert directory.note == ""
    directory.path.chmod(mode)
    assert directory.exit_code() == 7
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert f"could {could} {directory.path} (mode {mode:04o})" in directory.note


def test_a_directory_that_cannot_be_made_private_names_the_command(
    directory: AttemptDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.path.chmod(0o755)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    with pytest.raises(UnsafeDirectoryError, match=f"chmod 700 '{directory.path}'"):
        directory.exit_code()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_a_file_that_belongs_to_another_user_is_not_read(directory: AttemptDirectory) -> None:
    for name in ("lock", "rc", "out"):
        (directory.path / name).write_text("exit 7\n")
        os.chown(directory.path / name, 65534, 65534)
    assert directory.exit_code() is None
    assert directory.read_output(0, 10) == b""


def test_a_file_replaced_by_a_link_is_not_followed(directory: AttemptDirectory, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("exit 7\nshim 7\n")
    for name in ("lock", "out", "err", "in"):
        (directory.path / name).symlink_to(tmp_path / "other")
    assert directory.exit_code() is None
    assert directory.shim_pid() is None
    assert directory.error_tail() == ""
    assert directory.read_output(0, 10) == b""
    with pytest.raises(OSError, match="symbolic link"):
        made(directory.path)
    with pytest.raises(OSError, match="symbolic link"):
        directory.add_line("out", b"x")
    assert (tmp_path / "other").read_text() == "exit 7\nshim 7\n"


def test_a_named_pipe_in_a_files_place_does_not_hang_the_reader(directory: AttemptDirectory) -> None:
    for name in ("lock", "out", "err"):
        os.mkfifo(directory.path / name)
    assert directory.exit_code() is None
    assert directory.error_tail() == ""
    assert directory.read_output(0, 10) == b""


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (b"exit 0\n", 0),
        (b"shim 1\nclaude 12\nexit 143\n", 143),
        (b"clauexit 1\nexit 143\n", 143),
        (b"", None),
        (b"exit 14", None),
        (b"exit x\n", None),
        (b"exit \n", None),
        (b"exit -1\n", None),
        (b"shim 1\nexit\n", None),
    ],
)
def test_an_exit_code_counts_once_its_line_is_whole(
    directory: AttemptDirectory, written: bytes, code: int | None
) -> None:
    assert directory.exit_code() is None
    (directory.path / "lock").write_bytes(written)
    assert directory.exit_code() == code


def test_the_files_of_an_attempt_that_an_earlier_engine_launched_are_read(directory: AttemptDirectory) -> None:
    (directory.path / "lock").touch()
    for name, text in {"pid": "12\n", "claude": "13\n", "rc": "14"}.items():
        (directory.path / name).write_text(text)
    assert (directory.shim_pid(), directory.claude_pid(), directory.exit_code()) == (12, 13, None)
    (directory.path / "rc").write_text("143\n")
    assert directory.exit_code() == 143


def test_a_line_is_added_to_a_file_that_is_there_and_begins_anew_after_one_that_was_cut_off(
    directory: AttemptDirectory,
) -> None:
    with pytest.raises(FileNotFoundError):
        directory.add_line("job.json", b"{}")
    directory.write_note("job.json", b"{}\n")
    directory.add_line("job.json", b"1")
    with (directory.path / "job.json").open("ab") as file:
        file.write(b"cut o")
    directory.add_line("job.json", b"2")
    assert (directory.path / "job.json").read_bytes() == b"{}\n1\ncut o\n2\n"


def test_the_end_of_a_long_stderr_is_read(directory: AttemptDirectory) -> None:
    (directory.path / "err").write_bytes(b"x" * 100_000 + b"\xff the end\n")
    assert directory.error_tail(10) == "the end"
    assert directory.error_tail(100_010) == "x" * 100_000 + "\ufffd the end"


def test_output_is_read_from_a_byte_on(directory: AttemptDirectory) -> None:
    assert (directory.read_output(0, 5), directory.output_size()) == (b"", 0)
    (directory.path / "out").write_bytes(b"0123456789")
    assert (directory.read_output(3, 4), directory.output_size()) == (b"3456", 10)
    assert directory.read_output(20, 4) == b""


def test_the_lock_is_held_until_its_descriptor_is_closed(directory: AttemptDirectory) -> None:
    assert not directory.lock_held()
    descriptors = made(directory.path)
    assert directory.lock_held()
    with pytest.raises(RefusedError) as refused:
        made(directory.path, stdin=b"another one's")
    assert (refused.value.number, (directory.path / "in").read_bytes()) == (RUNS, b"x")
    close(descriptors)
    assert not directory.lock_held()


def test_two_observers_do_not_take_each_other_for_the_process(directory: AttemptDirectory) -> None:
    close(made(directory.path))
    with (directory.path / "lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not directory.lock_held()


def test_a_removed_stdin_file_may_be_removed_again(directory: AttemptDirectory) -> None:
    close(made(directory.path))
    directory.remove_stdin()
    directory.remove_stdin()
    assert not (directory.path / "in").exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_lock_that_cannot_be_read_now_is_taken_to_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    directory = AttemptDirectory.create(tmp_path / "a")
    assert not directory.lock_held()
    with monkeypatch.context() as short:
        short.setattr(os, "open", refusing(number))
        assert directory.lock_held()
    assert not AttemptDirectory(tmp_path / "never made").lock_held()


def refusing(number: int) -> Callable[..., int]:
    """An `open` that the system refuses."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse
