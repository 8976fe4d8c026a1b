"""The detached engine as a process: what it promises its clients over its life, with the stub as `claude`."""

import json
import os
import signal
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import __version__
from server.client.wire import Hello
from tests.support.engines import House, house
from tests.support.waiting import until_now

SECRET = "sk-fake-not-real-but-secret"
HOLD = "stub:wait=/nonexistent"


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    """A house whose engine the tests share."""
    with house() as made, made.pump():
        yield made


@pytest.fixture
def own() -> Iterator[House]:
    """A house whose engine the test may end."""
    with house() as made:
        yield made


def everything_in(directory: Path) -> bytes:
    """The bytes of the database and of what SQLite keeps beside it."""
    return b"".join(path.read_bytes() for path in directory.glob("jobs.db*"))


def origin_of(house: House, root: str) -> Path:
    return house.paths.trees / root / "origin.json"


def echoing_claude(base: Path) -> Path:
    """A `claude` whose answer is the base URL that it was given and whether it saw the engine's own variables."""
    path = base / "echo.sh"
    frame = {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "num_turns": 1,
        "total_cost_usd": 0,
        "usage": {},
    }
    line = json.dumps(frame | {"session_id": "S", "result": "URL ENGINE"})
    quoted = line.replace("URL", "'\"$ANTHROPIC_BASE_URL\"'").replace("ENGINE", "'\"${CLAUDE_JOBS_HOME-nothing}\"'")
    path.write_text(f"#!/bin/sh\nread -r a; read -r b\necho '{quoted}'\n")
    path.chmod(0o755)
    return path


def test_the_socket_the_log_and_the_database_are_closed_to_others(shared: House):
    modes = {name: stat.S_IMODE(getattr(shared.paths, name).stat().st_mode) for name in ("home", "socket", "log")}
    assert modes == {"home": 0o700, "socket": 0o600, "log": 0o600}


def test_status_as_json_has_pid_version_socket_and_counts(shared: House):
    with shared.pump() as pump:
        job = pump.settled(pump.json("claude_run_async", task="x")["jobId"])
    assert job["status"] == "completed"
    done = shared.run("engine", "status", "--json")
    status = json.loads(done.stdout)
    assert (status["version"], status["socket"]) == (__version__, str(shared.paths.socket))
    assert status["jobs"]["completed"] >= 1
    os.kill(status["pid"], 0)


def test_a_second_engine_is_refused_and_the_first_serves_on(shared: House):
    done = shared.run("engine")
    assert done.returncode == 1
    assert "already serves" in done.stderr
    assert "claude-jobs engine stop" in done.stderr.replace("\n", " ")
    assert shared.control("status")


def test_no_value_of_a_clients_environment_is_in_the_database_or_in_the_log(shared: House):
    with shared.pump({"ANTHROPIC_API_KEY": SECRET}) as pump:
        job_id = pump.json("claude_run_async", task=f"marked {HOLD}")["jobId"]
        client_context = origin_of(shared, job_id)
        until_now(client_context.exists)
        assert stat.S_IMODE(client_context.stat().st_mode) == 0o600
        assert SECRET in client_context.read_text()
        stdin = shared.paths.trees / job_id / job_id / "1" / "in"
        until_now(stdin.exists)
        assert stat.S_IMODE(stdin.stat().st_mode) == 0o600
        token = json.loads(stdin.read_bytes().splitlines()[0])["claude_jobs_token"]
        stored, logged = everything_in(shared.paths.home), shared.paths.log.read_bytes()
        assert b"marked" in stored
        for secret in (SECRET.encode(), token.encode()):
            assert secret not in stored
            assert secret not in logged
        pump.json("claude_kill_job", jobId=job_id)
        pump.settled(job_id)
    assert b"cj1_" not in shared.paths.log.read_bytes()
    until_now(lambda: not client_context.exists(), what="the end of the origin file")
    until_now(lambda: not stdin.exists(), what="the end of the file with the token")


def test_a_client_killed_in_the_middle_of_a_call_does_not_disturb_its_job(shared: House):
    gate = shared.base / "gate"
    with shared.pump() as watcher:
        with shared.pump() as pump:
            pump.send("tools/call", name="claude_run", arguments={"task": f"stub:wait={gate} stub:say=safe"})
            until_now(lambda: any(job.get("status") == "running" for job in watcher.json("claude_list_jobs", limit=1)))
            pump.process.send_signal(signal.SIGKILL)
            pump.process.wait()
        [job, *_] = watcher.json("claude_list_jobs", limit=1)
        assert job["status"] == "running"
        gate.touch()
        assert watcher.settled(job["jobId"])["status"] == "completed"
        assert '"safe"' in watcher.text("claude_result", jobId=job["jobId"])


def test_a_line_of_more_than_16_mib_is_an_error_and_disturbs_nobody(shared: House):
    with shared.pump() as bystander, shared.bare_connection(30) as rude:
        rude.sendall(Hello(cwd="/").encode())
        assert rude.recv(65536)
        rude.sendall(b"x" * (17 * 1024 * 1024) + b"\n")
        answer = json.loads(rude.recv(65536))
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)
        assert bystander.json("claude_recursion_stats")["max_depth"] == 5


def test_each_job_runs_in_the_environment_of_the_client_that_asked(own: House):
    cli = {"CLAUDE_JOBS_CLI": str(echoing_claude(own.base))}
    started, joined = ({**cli, "ANTHROPIC_BASE_URL": f"http://127.0.0.1:1/{name}"} for name in ("starter", "other"))
    with own.pump(started) as starter, own.pump(joined) as other:
        for pump, name in ((other, "other"), (starter, "starter")):
            answer = pump.text("claude_run", task="who", outputFormat="text")
            assert answer == f"http://127.0.0.1:1/{name} nothing"
    with own.pump(cli) as plain:
        assert plain.text("claude_run", task="who", outputFormat="text") == " nothing"


def test_an_engine_that_is_stopped_leaves_and_the_next_client_starts_another(own: House):
    with own.pump() as pump:
        pump.text("claude_run", task="x")
    first = own.control("status")
    done = own.run("engine", "stop")
    assert first is not None
    assert f"pid {first['pid']}" in done.stdout
    own.wait_for_the_engine_to_go()
    assert own.run("engine", "status").returncode == 3
    assert not own.paths.socket.exists()
    assert b"Traceback" not in own.paths.log.read_bytes()
    with own.pump():
        second = own.control("status")
    assert second is not None
    assert second["pid"] != first["pid"]


def test_an_engine_that_nobody_needs_leaves_by_itself():
    with house(CLAUDE_JOBS_IDLE_SECONDS="0.5") as made:
        with made.pump() as pump:
            pump.text("claude_run", task="x")
            assert made.control("status") is not None
        made.wait_for_the_engine_to_go()
        assert b"no client and no job to run" in made.paths.log.read_bytes()
        assert b"Traceback" not in made.paths.log.read_bytes()


def test_sigterm_leaves_jobs_running_and_the_next_engine_takes_them_over():
    with house() as made:
        gate = made.base / "gate"
        with made.pump() as pump:
            task = f"stub:wait={gate} stub:say=survived stub:ledger={made.base / 'ledger'}"
            job_id = pump.json("claude_run_async", task=task)["jobId"]
            until_now((made.base / "ledger").exists)
        first = made.control("status")
        assert first is not None
        os.kill(first["pid"], signal.SIGTERM)
        made.wait_for_the_engine_to_go()
        with made.pump() as pump:
            second = made.control("status")
            assert second is not None
            assert second["pid"] != first["pid"]
            gate.touch()
            job = pump.settled(job_id)
            assert (job["status"], job["attempt"]) == ("completed", 1)
            assert '"survived"' in pump.text("claude_result", jobId=job_id)
        ledger = (made.base / "ledger").read_text().split()
        assert ledger[1::2] == ["begin", "end"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("CLAUDE_JOBS_MAX_CONCURRENT", "ten"), ("CLAUDE_JOBS_MAX_DEPTH", "-1"), ("toml", "max_depth = [")],
)
def test_settings_that_cannot_be_used_are_said_in_words(own: House, name: str, value: str):
    environ = {}
    if name == "toml":
        own.endpoint.paths.config.write_text(value)
    else:
        environ[name] = value
    done = own.run("engine", **environ)
    assert done.returncode == 1
    assert "settings" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_of_a_newer_version_is_refused_in_words(own: House):
    database = sqlite3.connect(own.endpoint.paths.database)
    database.execute("PRAGMA user_version = 999")
    database.close()
    # By way of a client: what the detached engine said last is in the client's error.
    done = own.run("list")
    assert done.returncode == 1
    assert "Upgrade claude-jobs" in done.stderr
    assert "Traceback" not in done.stderr
