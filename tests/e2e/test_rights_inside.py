"""A process inside a job that comes without the job's token does not get a person's rights."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from jobs.claude.command import MARKER
from tests.support.engines import MAIN, SECONDS, House, house
from tests.support.tokens import attempt_directory, pump_of_job, running

REFUSAL = "runs inside a job, so it may not act as a person"


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as built, built.pump():
        yield built


def below_a_mark(made: House, *command: str, wrapper: str = '"$@"') -> subprocess.CompletedProcess[str]:
    """Run `claude-jobs` below a shell that bears a job's mark."""
    return subprocess.run(
        ["/bin/sh", "-c", f"{wrapper}; exit $?", "sh", sys.executable, str(MAIN), *command],
        env={**made.environ, MARKER: "0:j0:1"},
        cwd=made.work,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("command", [("run", "x"), ("list",), ("kill", "jzzzzzzzzzzzzzzzz"), ("engine", "stop")])
def test_a_command_of_a_job_is_refused_and_told_what_to_use(made: House, command: tuple[str, ...]):
    done = below_a_mark(made, *command)
    assert done.returncode == 1
    assert REFUSAL in done.stderr
    assert "claude_run_async" in done.stderr


@pytest.mark.parametrize(
    "wrapper", [f'env -u {MARKER} "$@"', f'( setsid --wait env -u {MARKER} "$@" )', f'env {MARKER}= "$@"']
)
def test_a_command_that_put_off_the_mark_is_known_by_what_started_it(made: House, wrapper: str):
    done = below_a_mark(made, "run", "x", wrapper=wrapper)
    assert (done.returncode, REFUSAL in done.stderr) == (1, True)


def test_a_pump_without_a_token_inside_a_job_is_refused(made: House):
    done = below_a_mark(made, "mcp")
    assert done.returncode == 1
    assert REFUSAL in done.stderr


def test_a_pump_with_the_jobs_token_and_a_person_are_let_in(made: House):
    with made.pump() as person:
        job = running(person, person.json("claude_run_async", task="stub:wait=/nonexistent")["jobId"])
        with pump_of_job(made, attempt_directory(made, job)) as itself:
            assert itself.json("claude_status", jobId=job["jobId"])["status"] == "running"
        person.json("claude_kill_job", jobId=job["jobId"])
    assert made.run("list").returncode == 0
