"""Ids on the command line, from outside: what scripts get, what people may shorten, and what the shell completes."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import MAIN, SECONDS, House, house

ENOUGH = 9
"""Characters of an id that nobody else's begins with in a test: 40 random bits."""


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as one:
        one.start_engine()
        yield one


def in_json(made: House, *arguments: str) -> Any:
    return json.loads(made.run(*arguments, "--json").stdout)


@pytest.fixture
def batch(made: House) -> dict[str, Any]:
    """A batch of which one job answers and one fails, once both are over."""
    started: dict[str, Any] = in_json(made, "batch", "stub:say=fine", "stub:exit=3")
    return started


def test_a_detached_command_prints_its_id_alone_for_the_next_command_to_take(made: House):
    for command, kind in ((("run", "stub:say=x"), "j"), (("batch", "stub:say=x", "stub:say=y"), "b")):
        done = made.run(command[0], "--detach", *command[1:])
        [identity] = done.stdout.split()
        assert (done.returncode, identity[0]) == (0, kind)
        assert f"claude-jobs kill {identity}" in done.stderr
        assert made.run("wait", identity).returncode == 0
        assert made.run("send", "--detach", in_json(made, "list")["jobs"][0]["jobId"], "stub:say=z").returncode == 0


def test_the_beginning_of_an_id_is_enough_for_every_command(made: House, batch: dict[str, Any]):
    short = batch["batchId"][:ENOUGH]
    fine, failed = (job["jobId"][:ENOUGH] for job in batch["jobs"])
    assert in_json(made, "status", short)["batchId"] == batch["batchId"]
    assert [job["jobId"] for job in in_json(made, "tree", short)["jobs"]] == [job["jobId"] for job in batch["jobs"]]
    assert len(in_json(made, "wait", short)["done"]) == 2
    assert len(in_json(made, "wait", fine, failed)["done"]) == 2
    assert len(in_json(made, "wait", "--subtree", short)["done"]) == 2
    assert made.run("result", fine).stdout == "fine\n"
    assert len(in_json(made, "list", "--under", short)["jobs"]) == 2
    assert made.run("transcript", fine).returncode == 0
    assert made.run("send", fine, "stub:say=again").stdout == "again\n"
    assert in_json(made, "retry", failed)["retried"] == [batch["jobs"][1]["jobId"]]
    made.run("wait", short)
    assert in_json(made, "prune", "--dry-run", short)["trees"] == [batch["batchId"]]
    assert in_json(made, "kill", short)["killed"][0]["id"] == batch["batchId"]


def test_a_beginning_of_many_ids_lists_them_and_one_of_none_says_where_to_look(made: House, batch: dict[str, Any]):
    done = made.run("kill", "j")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is the beginning of more than one id" in done.stderr
    assert batch["jobs"][0]["jobId"] in done.stderr
    for unknown in ("nosuch", "j404", "", "%", "j" + "0" * 16):
        done = made.run("kill", unknown)
        assert (done.returncode, done.stdout) == (1, "")
        assert "`claude-jobs list`" in done.stderr


def test_a_job_that_is_over_is_not_said_to_be_unknown(made: House, batch: dict[str, Any]):
    fine = batch["jobs"][0]["jobId"]
    done = made.run("kill", fine, batch["batchId"])
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{fine} is over already" in done.stderr


def test_one_unknown_id_among_several_cancels_nothing(made: House):
    job_id = made.run("run", "--detach", "stub:wait=/nonexistent").stdout.strip()
    assert made.run("kill", job_id, "j404").returncode == 1
    assert in_json(made, "status", job_id)["status"] in {"queued", "running"}
    other = made.run("run", "--detach", "stub:wait=/nonexistent").stdout.strip()
    assert made.run("kill", job_id, other).stdout.split("\n")[:2] == [f"Job {job_id} killed", f"Job {other} killed"]


def test_the_result_of_a_batch_is_the_answers_of_its_jobs(made: House, batch: dict[str, Any]):
    fine, failed = (job["jobId"] for job in batch["jobs"])
    done = made.run("result", batch["batchId"])
    assert (done.returncode, done.stdout) == (1, f"==> {fine} <==\nfine\n\n")
    assert done.stderr.startswith(f"{failed}: Job failed")
    found = in_json(made, "result", batch["batchId"])["results"]
    assert [(one["jobId"], "result" in one) for one in found] == [(fine, True), (failed, False)]
    assert made.run("result", fine, fine).stdout == "fine\n"


def test_retrying_what_has_not_failed_is_no_success(made: House):
    live = made.run("run", "--detach", "stub:wait=/nonexistent").stdout.strip()
    done = made.run("retry", live)
    assert (done.returncode, done.stdout) == (1, f"{live}  not over yet\n")
    made.run("kill", live)
    over = made.run("batch", "--detach", "stub:say=x").stdout.strip()
    made.run("wait", over)
    none = made.run("retry", over)
    assert (none.returncode, none.stdout) == (1, "")
    assert "nothing there has failed" in none.stderr.lower()


def test_a_wait_with_a_time_ends_at_it_with_status_3(made: House):
    live = made.run("run", "--detach", "stub:wait=/nonexistent").stdout.strip()
    before = time.monotonic()
    done = made.run("wait", "--timeout", "0.2", live)
    assert time.monotonic() - before < SECONDS / 2
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "Not over yet: 1.\n")
    assert in_json(made, "wait", "--timeout", "0", live) == {"done": [], "pending": 1}
    made.run("kill", live)


def test_a_list_is_of_a_status_and_below_an_id(made: House, batch: dict[str, Any]):
    fine, failed = (job["jobId"] for job in batch["jobs"])
    assert [job["jobId"] for job in in_json(made, "list", "--under", batch["batchId"])["jobs"]] == [failed, fine]
    found = in_json(made, "list", "--under", batch["batchId"], "--status", "failed")["jobs"]
    assert [job["jobId"] for job in found] == [failed]
    none = made.run("list", "--under", fine, "--status", "running")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "No such jobs.\n")
    assert made.run("list", "--status", "lost").returncode == 2


def test_one_tree_is_forgotten_whatever_its_age_and_no_other(made: House, batch: dict[str, Any]):
    other = made.run("run", "--detach", "stub:say=x").stdout.strip()
    live = made.run("run", "--detach", "stub:wait=/nonexistent").stdout.strip()
    made.run("wait", other)
    part = made.run("prune", batch["jobs"][0]["jobId"])
    assert (part.returncode, part.stdout) == (1, "")
    assert f"a part of the tree {batch['batchId']}" in part.stderr
    busy = made.run("prune", batch["batchId"], live)
    assert (busy.returncode, busy.stdout) == (1, "")
    assert f"`claude-jobs kill {live}`" in busy.stderr
    done = made.run("prune", batch["batchId"])
    assert (done.returncode, done.stdout) == (0, f"{batch['batchId']}\n")
    assert not (made.paths.trees / batch["batchId"]).exists()
    assert made.run("status", batch["batchId"]).returncode == 1
    assert made.run("status", other).returncode == 0
    none = made.run("prune")
    assert (none.returncode, none.stdout) == (0, "")
    assert none.stderr.startswith("Nothing to delete")
    made.run("kill", live)


def completed(made: House, words: str, **environ: str) -> list[str]:
    """Return what bash would offer at the end of these words."""
    done = subprocess.run(
        [sys.executable, str(MAIN)],
        env={
            **made.environ,
            "_CLAUDE_JOBS_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            **environ,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_ids(made: House, batch: dict[str, Any]):
    assert completed(made, "claude-jobs tran") == ["transcript"]
    assert completed(made, f"claude-jobs report {batch['batchId'][:ENOUGH]}") == [batch["batchId"]]
    assert completed(made, "claude-jobs batch --tree-b") == ["--tree-budget-usd"]
    assert completed(made, f"claude-jobs kill {batch['batchId'][:ENOUGH]}") == [batch["batchId"]]
    assert completed(made, f"claude-jobs list --under {batch['batchId'][:ENOUGH]}") == [batch["batchId"]]


def test_completion_starts_no_engine_and_makes_no_directory(made: House, tmp_path: Path):
    nowhere = tmp_path / "nowhere"
    assert completed(made, "claude-jobs kill j", CLAUDE_JOBS_HOME=str(nowhere)) == []
    assert not nowhere.exists()


def test_help_fits_into_80_columns_and_shows_examples(made: House):
    commands = ["run", "batch", "send", "retry", "tree", "list", "status", "wait", "result", "transcript", "kill"]
    for command in (*commands, "approve", "prune"):
        shown = made.run(command, "-h" if command in {"run", "list"} else "--help", COLUMNS="80")
        assert shown.returncode == 0
        assert max(map(len, shown.stdout.splitlines())) <= 80
        assert f"claude-jobs {command}" in shown.stdout.partition("Examples:")[2]
    top = made.run("-h", COLUMNS="80").stdout
    assert "130 interrupted" in top
    assert made.run(COLUMNS="80").stdout.strip() == made.run("--help", COLUMNS="80").stdout.strip() == top.strip()
    assert "Did you mean 'list'?" in made.run("lst").stderr


def test_where_there_is_nothing_each_command_says_so():
    with house() as empty:
        for command, key in (("list", "jobs"), ("tree", "jobs"), ("approve", "requests")):
            done = empty.run(command)
            assert (done.returncode, done.stdout) == (0, "")
            assert done.stderr.startswith("No job")
            assert in_json(empty, command) == {key: []}
        done = empty.run("prune")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "Nothing to delete; 0.0 MiB are kept.\n")
