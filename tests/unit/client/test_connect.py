"""Reaching the engine: one is started where none runs, never two, and a failure says why."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from server.client.connect import connect
from server.client.engine_socket import EngineEndpoint, EngineUnreachableError, ensure_engine, lock, open_socket
from server.client.spawn_engine import EngineStartError, engine_command, engine_environment
from server.client.state_dir import StatePaths
from server.client.wire import Hello
from tests.unit.client.conftest import MakeEndpoint, noted


def at_once(count: int, act: Callable[[], object]) -> list[object]:
    """Run `act` in so many threads that begin together; return what each gave back or raised."""
    barrier = threading.Barrier(count)
    results: list[object] = []

    def one() -> None:
        barrier.wait(20)
        try:
            results.append(act())
        except Exception as error:  # noqa: BLE001 - the test looks at what was raised
            results.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def engine_pid(endpoint: EngineEndpoint) -> int:
    """The pid in the welcome of the engine at this endpoint."""
    connection, welcome = connect(endpoint, Hello(cwd="/"))
    connection.close()
    return welcome.pid


def kill_engine(paths: StatePaths) -> None:
    """End the engine that was started last and wait until the kernel has let go of its lock."""
    os.kill(noted(paths, "starts")[-1]["pid"], signal.SIGKILL)
    handle = lock(paths.engine_lock, timeout=10)
    assert handle is not None
    os.close(handle)


def test_fifty_at_once_start_exactly_one_engine(make_endpoint: MakeEndpoint, paths: StatePaths):
    endpoint = make_endpoint()

    pids = at_once(50, lambda: engine_pid(endpoint))

    assert len(pids) == 50
    assert set(pids) == {noted(paths, "starts")[0]["pid"]}
    assert len(noted(paths, "starts")) == 1


def test_an_engine_that_runs_is_not_started_again(make_endpoint: MakeEndpoint, paths: StatePaths):
    assert engine_pid(make_endpoint()) == engine_pid(make_endpoint("--die", "must not run"))
    assert len(noted(paths, "starts")) == 1


def test_what_a_killed_engine_left_behind_does_not_keep_the_next_from_starting(
    make_endpoint: MakeEndpoint, paths: StatePaths
):
    first = engine_pid(make_endpoint())
    kill_engine(paths)
    assert paths.socket.exists()
    assert paths.engine_lock.exists()

    assert engine_pid(make_endpoint()) != first


def test_a_socket_that_nobody_listens_on_is_no_engine(make_endpoint: MakeEndpoint, paths: StatePaths):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(paths.socket))

    assert engine_pid(make_endpoint()) == noted(paths, "starts")[0]["pid"]


def test_no_engine_is_started_while_one_that_is_leaving_holds_the_lock(make_endpoint: MakeEndpoint, paths: StatePaths):
    leaving = lock(paths.engine_lock)
    assert leaving is not None
    with pytest.raises(EngineUnreachableError, match="does not listen"):
        ensure_engine(make_endpoint(timeout=0.5))
    assert noted(paths, "starts") == []
    os.close(leaving)

    assert engine_pid(make_endpoint()) == noted(paths, "starts")[0]["pid"]


def test_an_engine_that_ends_while_starting_is_reported_with_its_last_lines(
    make_endpoint: MakeEndpoint, paths: StatePaths
):
    paths.log.write_text("a line of an earlier day\n")

    with pytest.raises(EngineStartError, match="ended while it was starting") as caught:
        ensure_engine(make_endpoint("--die", "the disk is full"))

    assert "the disk is full" in str(caught.value)
    assert str(paths.log) in str(caught.value)
    assert "earlier day" not in str(caught.value)


def test_ten_clients_of_an_engine_that_cannot_start_all_get_an_answer(make_endpoint: MakeEndpoint):
    endpoint = make_endpoint("--die", "the disk is full", timeout=2)

    errors = at_once(10, lambda: ensure_engine(endpoint))

    assert len(errors) == 10
    assert all(isinstance(error, EngineStartError) for error in errors)


def test_an_engine_that_never_listens_is_given_up(make_endpoint: MakeEndpoint):
    with pytest.raises(EngineStartError, match="does not answer"):
        ensure_engine(make_endpoint("--mute", timeout=1))


def test_a_program_that_does_not_exist_is_reported(make_endpoint: MakeEndpoint, paths: StatePaths):
    endpoint = EngineEndpoint(paths=paths, environ={}, command=("/nowhere/engine",), timeout=10)

    with pytest.raises(EngineStartError, match="No such file"):
        ensure_engine(endpoint)


def test_the_engine_stands_in_nobodys_tree(make_endpoint: MakeEndpoint, paths: StatePaths):
    secret_read, secret_write = os.pipe()
    os.set_inheritable(secret_read, True)
    try:
        ensure_engine(make_endpoint()).close()
    finally:
        os.close(secret_read)
        os.close(secret_write)
    birth = noted(paths, "starts")[0]

    assert birth["parent"] != os.getpid()
    assert birth["session"] not in {birth["pid"], os.getsid(0)}
    assert birth["group"] != os.getpgid(0)
    assert birth["cwd"] == "/"
    assert birth["descriptors"] == [0, 1, 2]
    assert paths.log.stat().st_mode & 0o777 == 0o600


def test_an_engine_that_a_job_starts_carries_nothing_of_the_job(make_endpoint: MakeEndpoint, paths: StatePaths):
    endpoint = make_endpoint(
        CLAUDE_JOBS_JOB="j1.1", CLAUDE_JOBS_TOKEN="cj1_x", ANTHROPIC_API_KEY="sk", CLAUDECODE="1", CLAUDE_JOBS_CLI="/c"
    )
    ensure_engine(endpoint).close()
    environ = noted(paths, "starts")[0]["environ"]

    assert environ["CLAUDE_JOBS_HOME"] == str(paths.home)
    # Not its settings either: an engine's are the person's.
    of_the_job = {"CLAUDE_JOBS_JOB", "CLAUDE_JOBS_TOKEN", "CLAUDE_JOBS_CLI", "ANTHROPIC_API_KEY", "CLAUDECODE"}
    assert environ.keys().isdisjoint(of_the_job)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
        "TZ",
        "USER",
        "XDG_STATE_HOME",
        "CLAUDE_JOBS_MAX_DEPTH",
        "CLAUDE_MAX_TOTAL_JOBS",
    ],
)
def test_a_setting_reaches_the_engine(name: str):
    assert engine_environment({name: "v"}, Path("/s"))[name] == "v"


@pytest.mark.parametrize(
    "name", ["PYTHONPATH", "CLAUDE_JOBS_JOB", "CLAUDE_JOBS_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "AWS_PROFILE", "SHELL"]
)
def test_what_is_no_setting_does_not_reach_the_engine(name: str):
    assert name not in engine_environment({name: "v"}, Path("/s"))


def test_the_engine_command_finds_this_package_from_anywhere(tmp_path: Path):
    (tmp_path / "server.py").write_text("raise SystemExit('the wrong package')")
    program = engine_command()[:-2]

    done = subprocess.run([*program, "mcp", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert engine_command()[-2:] == ("engine", "--detached")
    assert done.stdout.startswith("Usage: claude-jobs mcp")
    assert program[0] == sys.executable


def test_a_lock_is_held_by_one_and_freed_by_closing(paths: StatePaths):
    first = lock(paths.start_lock)
    assert first is not None
    assert lock(paths.start_lock) is None
    os.close(first)
    second = lock(paths.start_lock)
    assert second is not None
    os.close(second)


def test_connecting_where_no_engine_runs_is_an_error_of_the_system(paths: StatePaths):
    with pytest.raises(FileNotFoundError):
        open_socket(paths)
