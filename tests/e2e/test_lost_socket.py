"""An engine whose socket, lock file or state directory is removed or replaced while it runs."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.client.state_dir import StatePaths
from tests.support.engines import House, house
from tests.support.waiting import until_now

HOLD = "stub:wait=/nonexistent"
REBOUND_SECONDS = 5.0


@pytest.fixture
def own() -> Iterator[House]:
    """A house whose engine the test may end."""
    with house() as made:
        yield made


def running_engine(house: House) -> int:
    """Start the engine and return its process id."""
    with house.pump():
        pass
    status = house.control("status")
    assert status is not None
    return int(status["pid"])


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_removed_socket_is_bound_again_and_commands_reach_the_same_engine(own: House):
    pid = running_engine(own)
    own.paths.socket.unlink()
    socket = own.paths.socket
    # It is made under the engine's narrow mask, and has its own mode a moment later.
    until_now(lambda: socket.exists() and socket.stat().st_mode & 0o777 == 0o600, REBOUND_SECONDS, "the socket")
    assert f"pid {pid}" in own.run("engine", "status").stdout
    own.paths.socket.unlink()
    done = own.run("list")
    assert done.returncode == 0, done.stderr
    assert "No jobs." in done.stderr
    status = own.control("status")
    assert status is not None
    assert status["pid"] == pid


def test_a_removed_short_socket_directory_is_made_again():
    with house() as made:
        state = made.base / ("long" * 30) / "state"
        environ = {**made.environ, "CLAUDE_JOBS_HOME": str(state)}
        long = House(base=made.base / ("long" * 30), environ=environ)
        long.work.mkdir(parents=True)
        try:
            pid = running_engine(long)
            assert long.paths.socket.parent != state
            shutil.rmtree(long.paths.socket.parent)
            until_now(long.paths.socket.exists, REBOUND_SECONDS, "the socket")
            assert long.paths.socket.parent.stat().st_mode & 0o777 == 0o700
            assert f"pid {pid}" in long.run("engine", "status").stdout
        finally:
            long.close()
            shutil.rmtree(long.paths.socket.parent, ignore_errors=True)


def test_an_engine_that_cannot_bind_again_is_named_by_status_and_ended_by_stop(own: House):
    pid = running_engine(own)
    os.kill(pid, signal.SIGSTOP)
    own.paths.socket.unlink()
    status = own.run("engine", "status")
    assert status.returncode == 1
    assert f"pid {pid}" in status.stderr
    assert "claude-jobs engine stop" in status.stderr
    stop = own.run("engine", "stop")
    assert stop.returncode == 0, stop.stderr
    assert f"pid {pid}" in stop.stdout
    assert not lives(pid)
    assert own.engine_is_gone()
    assert own.run("engine", "status").returncode == 3


def test_a_stopped_engine_is_said_to_be_stopped_and_how_to_continue_it(own: House):
    pid = running_engine(own)
    os.kill(pid, signal.SIGSTOP)
    try:
        done = own.run("list")
        assert done.returncode == 1
        assert f"kill -CONT {pid}" in done.stderr
        assert "Traceback" not in done.stderr
        assert "one installation" not in done.stderr
    finally:
        os.kill(pid, signal.SIGCONT)
    assert own.run("list").returncode == 0


def test_a_process_that_only_has_the_number_in_the_lock_file_is_never_signalled(own: House):
    pid = running_engine(own)
    stranger = os.getpid()
    own.paths.engine_lock.write_text(f"{stranger}\n")
    os.kill(pid, signal.SIGSTOP)
    own.paths.socket.unlink()
    try:
        stop = own.run("engine", "stop")
        assert stop.returncode == 1
        assert str(own.paths.engine_lock) in stop.stderr
        assert lives(pid)
    finally:
        os.kill(pid, signal.SIGCONT)
    until_now(own.paths.socket.exists, REBOUND_SECONDS, "the socket")


def test_without_its_lock_file_an_engine_takes_the_lock_again_and_stays_the_only_one(own: House):
    pid = running_engine(own)
    own.paths.engine_lock.unlink()
    until_now(own.paths.engine_lock.exists, REBOUND_SECONDS, "the lock file")
    until_now(lambda: not own.engine_is_gone(), REBOUND_SECONDS, "the lock")
    second = own.run("engine")
    assert second.returncode == 1
    assert f"pid {pid}" in second.stderr


def test_an_engine_whose_directory_was_moved_away_leaves_its_successors_socket_alone(own: House):
    first = running_engine(own)
    own.paths.home.rename(own.base / "moved")
    second = running_engine(own)
    assert second != first
    until_now(lambda: not lives(first), 20.0, "the end of the first engine")
    status = own.control("status")
    assert status is not None
    assert status["pid"] == second
    assert StatePaths(own.base / "moved").log.exists()


def test_an_engine_whose_directory_was_removed_ends_its_jobs_and_leaves(own: House):
    ledger = own.base / "ledger"
    with own.pump() as pump:
        pump.json("claude_run_async", task=f"{HOLD} stub:ledger={ledger}")
        until_now(ledger.exists)
    pid = running_engine(own)
    shutil.rmtree(own.paths.home)
    until_now(lambda: not lives(pid), 20.0, "the end of the engine")
    assert not own.paths.home.exists()
    assert not stub_processes(own)


def stub_processes(house: House) -> list[int]:
    """Processes that still have a file of this house on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(house.paths.home) in line:
                found.append(int(entry.name))
    return found
