"""Ctrl-C and SIGTERM in a command, from outside: what it says, its exit status, and what becomes of the jobs."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support.engines import MAIN, House, house
from tests.support.waiting import until_now

GOES_ON = re.compile(r"(\w+) goes on\.\n  follow: claude-jobs tree -f \1\n  cancel: claude-jobs kill \1\n")


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as one:
        yield one


@contextmanager
def running(made: House, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, str(MAIN), *arguments],
        env=dict(made.environ),
        cwd=made.work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def lines_up_to(stream: IO[str] | None, words: str) -> str:
    """Read what a command says until it has said these words."""
    assert stream is not None
    said = ""
    while words not in said:
        line = stream.readline()
        assert line, said
        said += line
    return said


@contextmanager
def at_work(made: House, tmp_path: Path, command: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a command that waits for a job, and go on once the job runs."""
    ledger = tmp_path / "ledger"
    task = f"stub:wait=/nonexistent stub:ledger={ledger}"
    over = made.run("run", "stub:say=x").stderr.split()[1]
    arguments = (over, task) if command == "send" else (task,)
    with running(made, command, *arguments) as process:
        until_now(ledger.exists, 60.0, "the job")
        yield process


def status_of(made: House, identity: str) -> str:
    told = json.loads(made.run("status", "--json", identity).stdout)
    return str(told["status"] if "status" in told else " ".join(told["counts"]))


@pytest.mark.parametrize("command", ["run", "batch", "send"])
def test_one_interrupt_leaves_the_jobs_and_says_how_to_follow_and_cancel(made: House, tmp_path: Path, command: str):
    with at_work(made, tmp_path, command) as process:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    found = GOES_ON.search(said)
    assert found, said
    assert process.returncode == 130
    assert status_of(made, found[1]) == "running"
    assert made.run("kill", found[1]).returncode == 0


@pytest.mark.parametrize("command", ["run", "batch", "send"])
def test_a_second_interrupt_cancels_what_the_command_started(made: House, tmp_path: Path, command: str):
    with at_work(made, tmp_path, command) as process:
        process.send_signal(signal.SIGINT)
        said = lines_up_to(process.stderr, "Press Ctrl-C again")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
    found = GOES_ON.search(said)
    assert found, said
    assert f"{found[1]} killed" in rest
    assert process.returncode == 130
    until_now(lambda: status_of(made, found[1]) == "cancelled", 60.0, "the end of the jobs")


def test_interrupting_a_wait_leaves_the_jobs_of_another_command_alone(made: House):
    job_id = made.run("run", "--detach", "stub:wait=/nonexistent").stdout.strip()
    with running(made, "wait", job_id) as process:
        until_now(lambda: is_connected(made, process.pid), 60.0, "the connection")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "again" not in said
    assert status_of(made, job_id) in {"running", "queued"}
    made.run("kill", job_id)


def is_connected(made: House, pid: int) -> bool:
    status = made.control("status")
    return status is not None and status["connections"] > 1


def test_a_termination_leaves_the_jobs_and_says_so_too(made: House, tmp_path: Path):
    with at_work(made, tmp_path, "run") as process:
        process.terminate()
        said = process.communicate(timeout=60)[1]
    found = GOES_ON.search(said)
    assert found, said
    assert (process.returncode, "Traceback" in said) == (143, False)
    assert status_of(made, found[1]) == "running"
    made.run("kill", found[1])


@pytest.mark.parametrize("module", ["typer", "rich", "json"])
def test_an_interrupt_while_modules_are_imported_is_silent(made: House, tmp_path: Path, module: str):
    # Presses Ctrl-C exactly when the command comes to import it.
    (tmp_path / f"{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
    done = subprocess.run(
        [sys.executable, str(MAIN), "list"],
        env={**made.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


@pytest.mark.parametrize("command", [("list",), ("list", "--json"), ("tree",), ("--help",), ("engine", "status")])
def test_output_that_cannot_be_written_is_a_line(made: House, command: tuple[str, ...]):
    # Without a job some of them have nothing to write.
    made.run("run", "--detach", "x")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, str(MAIN), *command],
            env=dict(made.environ),
            cwd=made.work,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert re.fullmatch(r"The system refused: \[Errno 28\] [^\n]+\n", done.stderr), done.stderr


def test_interrupts_in_quick_succession_are_neither_silent_nor_lost(made: House, tmp_path: Path):
    with at_work(made, tmp_path, "run") as process:
        for _ in range(20):
            process.send_signal(signal.SIGINT)
            # Between two signals of one kind, not for something to happen: the system merges those that come at once.
            time.sleep(0.002)
        said = process.communicate(timeout=60)[1]
    assert GOES_ON.search(said), said
    assert " killed." in said
