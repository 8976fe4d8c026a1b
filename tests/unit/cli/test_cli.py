"""The command line, command by command, before a real engine that runs the stub."""

import errno
import json
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from server import __version__
from server.client.tool_client import Connection
from tests.support.engines import MAIN, House
from tests.support.waiting import until_now
from tests.unit.conftest import Invoke

NOT_FOUND = "No job or batch has the id 'j404', or one that begins so. `claude-jobs list` shows the jobs."


def spawned(invoke: Invoke, *tasks: str) -> Any:
    result = invoke("batch", "--detach", "--json", *tasks)
    assert result.exit_code == 0, result.output
    batch = json.loads(result.stdout)
    return batch | {"jobIds": [job["jobId"] for job in batch["jobs"]]}


@pytest.fixture
def any_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every id is one."""
    monkeypatch.setattr("server.client.tool_client.Client.ids_from", lambda _self, beginning: [beginning])


def test_run_prints_the_answer_and_nothing_else_on_stdout(invoke: Invoke):
    result = invoke("run", "stub:say=hello")
    assert (result.exit_code, result.stdout) == (0, "hello\n")
    assert result.stderr.startswith("job j")


def test_a_run_whose_engine_is_killed_brings_its_answer_and_starts_one_job(invoke: Invoke, quarters: House):
    gate, ledger = quarters.base / "gate", quarters.base / "ledger"
    done: list[Result] = []
    run = threading.Thread(
        target=lambda: done.append(invoke("run", f"stub:wait={gate} stub:say=kept stub:ledger={ledger}"))
    )
    run.start()
    until_now(ledger.exists, 60.0, "the job")
    quarters.kill_engine()
    gate.touch()
    run.join(60)
    assert (done[0].exit_code, done[0].stdout) == (0, "kept\n"), done[0].stderr
    assert ledger.read_text().count("begin") == 1


@pytest.mark.parametrize("command", ["run", "batch", "send"])
def test_a_submission_has_a_key_of_its_own_so_that_repeating_the_call_starts_nothing_twice(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str
):
    job_id = invoke("run", "--detach", "stub:say=x").stdout.strip()
    invoke("wait", job_id)
    asked: list[Any] = []
    ask = Connection.request

    def twice(self: Connection, method: str, params: Any, on_progress: Any = None) -> Any:
        answer = ask(self, method, params, on_progress)
        if "idempotencyKey" in params.get("arguments", {}):
            asked.append(params["arguments"]["idempotencyKey"])
            assert ask(self, method, params, on_progress) == answer
        return answer

    monkeypatch.setattr(Connection, "request", twice)
    arguments = [job_id, "stub:say=x"] if command == "send" else ["stub:say=x"]
    for _ in range(2):
        assert invoke(command, *arguments).exit_code == 0
    assert len(asked) == len(set(asked)) == 2


def test_run_prints_json_where_it_is_asked_for(invoke: Invoke):
    answer = json.loads(invoke("run", "--json", "stub:say=hello stub:cost=0.5").stdout)
    assert (answer["result"], answer["total_cost_usd"]) == ("hello", 0.5)


def test_a_run_that_fails_says_so_in_a_line_and_ends_with_status_1(invoke: Invoke):
    result = invoke("run", "stub:exit=3")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Job failed" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "x", "--cwd", "no/such/place"), "does not exist"),
        (("run", "x", "--permission-mode", "root"), "--permission-mode: "),
        (("status", "j404"), NOT_FOUND),
        (("result", "j404"), NOT_FOUND),
        (("wait", "j404"), NOT_FOUND),
        (("wait", "--subtree", "j404"), NOT_FOUND),
        (("tree", "j404"), NOT_FOUND),
        (("tree", "--follow", "j404"), NOT_FOUND),
        (("transcript", "j404"), NOT_FOUND),
        (("list", "--before", "j404"), NOT_FOUND),
        (("list", "--under", "j404"), NOT_FOUND),
        (("kill", "j404"), NOT_FOUND),
        (("retry", "j404"), NOT_FOUND),
        (("prune", "j404"), NOT_FOUND),
        (("send", "j404", "x"), NOT_FOUND),
        (("run", "--parent", "j404", "x"), NOT_FOUND),
    ],
)
def test_what_cannot_be_done_is_said_in_words(invoke: Invoke, arguments: tuple[str, ...], words: str):
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr.replace("\n", " ")
    assert result.stdout == ""


def test_batch_draws_its_jobs_until_they_are_over(invoke: Invoke):
    result = invoke("batch", "first stub:say=one", "second stub:say=two")
    assert result.exit_code == 0
    assert all(word in result.stdout for word in ("batch b", "first", "second", "one", "two"))


def test_a_detached_run_prints_its_id_and_leaves(invoke: Invoke):
    job_id = invoke("run", "--detach", "stub:say=later").stdout.strip()
    assert invoke("wait", job_id).stdout == f"{job_id}  completed  later\n"


@pytest.mark.parametrize("command", ["batch", "wait"])
def test_a_job_that_did_not_complete_is_an_exit_status(invoke: Invoke, command: str):
    tasks = ("stub:say=fine", "stub:exit=3")
    arguments = tasks if command == "batch" else (spawned(invoke, *tasks)["batchId"],)
    assert invoke(command, *arguments).exit_code == 1
    assert invoke("batch", "stub:say=fine").exit_code == 0


def test_what_a_job_may_spend_and_take_is_said_with_the_task(invoke: Invoke):
    refused = invoke("run", "--detach", "--max-budget-usd", "0", "x")
    assert refused.exit_code == 2
    assert "--max-budget-usd" in refused.stderr
    job_id = invoke("run", "--detach", "--timeout", "0.2", "stub:wait=/nonexistent").stdout.strip()
    assert invoke("wait", job_id).stdout.startswith(f"{job_id}  timeout  ")


def test_a_job_that_may_have_no_jobs_below_it_gets_none(invoke: Invoke):
    job_id = invoke("run", "--detach", "--max-jobs", "0", "stub:wait=/nonexistent").stdout.strip()
    refused = invoke("run", "--detach", "--parent", job_id, "stub:say=x")
    assert refused.exit_code == 1
    assert "may have 0 jobs below it" in refused.stderr
    invoke("kill", job_id)
    below = invoke("run", "--detach", "--max-jobs", "-1", "x")
    assert (below.exit_code, "below 0" in below.stderr) == (2, True)


def test_a_detached_batch_prints_its_ids_and_leaves(invoke: Invoke):
    batch = spawned(invoke, "stub:say=one", "stub:say=two")
    assert (batch["batchId"][0], len(batch["jobIds"])) == ("b", 2)
    invoke("wait", batch["batchId"])


def test_wait_prints_a_line_a_job(invoke: Invoke):
    batch = spawned(invoke, "stub:say=one", "stub:exit=1")
    lines = invoke("wait", batch["batchId"]).stdout.splitlines()
    assert lines[0] == f"{batch['jobIds'][0]}  completed  one"
    assert lines[1].startswith(f"{batch['jobIds'][1]}  failed  ")
    assert invoke("wait", *batch["jobIds"]).stdout.splitlines() == lines


@pytest.mark.usefixtures("any_id")
def test_waiting_for_the_first_success_goes_on_past_a_failure(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    replies = iter(
        [
            {"done": [{"jobId": "j1", "status": "failed", "excerpt": "no"}], "pending": 2, "cursor": "1"},
            {"done": [{"jobId": "j2", "status": "completed", "excerpt": "yes"}], "pending": 1, "cursor": "3"},
        ]
    )
    monkeypatch.setattr(
        "server.client.tool_client.Client.call_json",
        lambda _, tool, *__: next(replies) if tool == "claude_wait" else [],
    )
    assert invoke("wait", "j1", "j2", "j3", "--mode", "first_success").stdout == "j1  failed  no\nj2  completed  yes\n"


def test_status_prints_a_job_or_a_batch(invoke: Invoke):
    batch = spawned(invoke, "stub:cost=0.25", "stub:cost=0.5")
    invoke("wait", batch["batchId"])
    whole = json.loads(invoke("status", "--json", batch["batchId"]).stdout)
    assert (whole["counts"], whole["costUsd"]) == ({"completed": 2}, 0.75)
    one = json.loads(invoke("status", "--json", batch["jobIds"][0]).stdout)
    assert (one["status"], one["recursionDepth"], one["costUsd"]) == ("completed", 1, 0.25)


def test_status_is_a_line_for_each_thing_it_says(invoke: Invoke):
    batch = spawned(invoke, "stub:cost=0.25", "stub:cost=0.5")
    invoke("wait", batch["batchId"])
    whole = invoke("status", batch["batchId"]).stdout.splitlines()
    assert ["counts", "completed", "2"] in [line.split() for line in whole]
    one = invoke("status", batch["jobIds"][0]).stdout.splitlines()
    assert ["recursion", "depth", "1"] in [line.split() for line in one]
    assert not [line for line in one if "None" in line or "null" in line]


def test_tree_draws_a_batch_and_the_newest_jobs(invoke: Invoke):
    batch = spawned(invoke, "plant stub:say=grown")
    invoke("wait", batch["batchId"])
    for arguments in (("tree", batch["batchId"]), ("tree",), ("tree", "-f", batch["batchId"])):
        drawn = invoke(*arguments).stdout
        assert batch["jobIds"][0] in drawn
        assert "plant" in drawn


def test_result_prints_a_page(invoke: Invoke):
    job_id = spawned(invoke, "stub:say=abcdefghij")["jobIds"][0]
    invoke("wait", job_id)
    page = invoke("result", job_id, "--offset", "0", "--limit", "5")
    assert page.stdout == "abcde\n"
    assert f"characters 0 to 5 of 10; the next: `claude-jobs result {job_id} --offset 5 --limit 5`" in page.stderr


def test_a_long_answer_is_printed_to_its_end(invoke: Invoke, quarters: House):
    answer = "x" * 90_000
    done = invoke("run", f"stub:say={answer}")
    assert (done.exit_code, done.stdout) == (0, f"{answer}\n")
    job_id = done.stderr.split()[1]
    assert invoke("result", job_id).stdout == f"{answer}\n"
    assert json.loads(invoke("run", "--json", f"stub:say={answer}").stdout)["result"] == answer
    sent = invoke("send", job_id, f"stub:say={answer}")
    assert (sent.exit_code, sent.stdout) == (0, f"{answer}\n"), sent.stderr


def test_list_prints_the_newest_first_and_how_to_read_on(invoke: Invoke):
    oldest, older, newer = (spawned(invoke, name)["jobIds"][0] for name in ("oldest", "older", "newer"))
    page = invoke("list", "--limit", "2")
    lines = page.stdout.splitlines()
    assert [line.split()[1] for line in lines] == [newer, older]
    assert ["newer" in lines[0], "older" in lines[1]] == [True, True]
    assert page.stderr == f"more: claude-jobs list --before {older}\n"
    listed = json.loads(invoke("list", "--limit", "2", "--json").stdout)
    assert [line["jobId"] for line in listed["jobs"]] == [newer, older]
    assert listed["more"] == f"claude-jobs list --before {older}"
    rest = invoke("list", "--before", older, "--limit", "1000")
    assert rest.stdout.splitlines()[0].split()[1] == oldest
    assert rest.stderr == ""


def test_kill_ends_a_job_and_is_an_exit_status_where_there_is_none(invoke: Invoke):
    job_id = spawned(invoke, "stub:wait=/nonexistent")["jobIds"][0]
    assert invoke("kill", job_id).stdout == f"Job {job_id} killed\n"
    assert invoke("wait", job_id).stdout.startswith(f"{job_id}  cancelled  ")
    again = invoke("kill", job_id)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == f"{job_id} is over already, so nothing was cancelled.\n"


def test_the_dashboard_counts_cancelled_jobs_by_themselves(invoke: Invoke):
    def counts() -> list[int]:
        words = invoke("dashboard").stdout.splitlines()[0].split()
        assert words[1::2] == ["live,", "completed,", "failed,", "cancelled"]
        return [int(word) for word in words[::2]]

    before = counts()
    batch = spawned(invoke, "stub:wait=/nonexistent", "stub:exit=3", "stub:say=x")
    invoke("kill", batch["jobIds"][0])
    invoke("wait", batch["batchId"])
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [0, 1, 1, 1]


def test_a_batch_of_more_jobs_than_are_drawn_is_judged_by_all_of_them(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.cli.follow.MOST_JOBS", 1)
    assert invoke("batch", "stub:exit=3", "stub:say=fine").exit_code == 1


def test_a_tree_of_more_jobs_than_are_drawn_is_followed_to_its_end(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.cli.follow.MOST_JOBS", 1)
    batch = spawned(invoke, "stub:sleep=1", "stub:say=fine")
    invoke("wait", batch["jobIds"][1])
    assert invoke("tree", "-f", batch["batchId"]).exit_code == 0
    status = json.loads(invoke("status", "--json", batch["batchId"]).stdout)
    assert status["counts"] == {"completed": 2}


@pytest.mark.usefixtures("any_id")
@pytest.mark.parametrize("command", ["wait", "result", "tree", "list", "status", "status --json"])
def test_no_command_lets_a_terminal_escape_through(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str):
    evil = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31mred\x1b[0m\u202e\r\x08[bold]"
    job = {"jobId": "j1", "parentJobId": None, "status": "completed", "task": evil, "excerpt": evil}
    line = job | {"recursionDepth": 0, "startTime": "now", "batchId": "b1"}
    answers: dict[str, Any] = {"claude_wait": {"done": [job], "pending": 0, "cursor": "1"}, "claude_list_jobs": [line]}
    answers["claude_status"] = line
    monkeypatch.setattr(
        "server.client.tool_client.Client.call", lambda _self, tool, *_: json.dumps(answers.get(tool, evil))
    )
    monkeypatch.setattr("server.client.tool_client.Client.call_json", lambda _self, tool, *_: answers[tool])
    shown = invoke(*command.split(), *([] if command == "list" else ["j1"])).stdout
    assert "red" in shown
    assert "[bold]" in shown
    assert not {"\x1b", "\x07", "\x08", "\x9b", "\r", "\u202e"} & set(shown)


@pytest.mark.usefixtures("any_id")
def test_an_answer_comes_out_character_by_character(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    answer = (
        "all:\n\tmake :bug: [red]x[/red]\n"
        + "long " * 100
        + "\n\U0001f468\u200d\U0001f469 \u0646\u0645\u06cc\u200c\u062e"
    )
    monkeypatch.setattr("server.client.tool_client.Client.call", lambda *_: answer)
    monkeypatch.setattr("server.client.tool_client.Client.call_json", lambda *_: {"status": "completed"})
    assert invoke("result", "j1").stdout == answer + "\n"


def test_what_stands_beside_an_answer_is_no_markup_either(invoke: Invoke):
    assert "'j:bug:[b]'" in invoke("status", "j:bug:[b]").stderr


def test_engine_status_shows_what_an_engine_of_the_version_before_tells(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
):
    told = {"ok": True, "pid": 77, "version": "0.1.0", "socket": "/s", "jobs": {"running": 1}, "rescue": None}
    monkeypatch.setattr("server.cli.engine.control", lambda *_: told)
    shown = invoke("engine", "status")
    assert (shown.exit_code, shown.exception) == (0, None)
    assert shown.stdout == "Engine 0.1.0, pid 77, socket /s\nJobs: 1 running\n"


def test_engine_status_says_which_engine_serves(invoke: Invoke, quarters: House):
    invoke("run", "stub:say=x")
    status = json.loads(invoke("engine", "status", "--json").stdout)
    assert (status["running"], status["version"]) == (True, __version__)
    assert status["socket"] == str(quarters.paths.socket)
    assert status["jobs"]["completed"] >= 1
    assert str(status["pid"]) in invoke("engine", "status").stdout


def test_without_an_engine_status_and_stop_say_so(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    invoke("list")
    monkeypatch.setenv("CLAUDE_JOBS_HOME", str(tmp_path / "empty"))
    status = invoke("engine", "status")
    assert (status.exit_code, "No engine runs" in status.stdout) == (3, True)
    assert json.loads(invoke("engine", "status", "--json").stdout) == {"running": False}
    assert invoke("engine", "stop").stdout == "No engine runs.\n"


def test_a_working_directory_that_is_gone_is_a_line_that_says_so(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert invoke("list").exit_code == 0  # which starts the engine
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = invoke("list")
    assert result.exit_code == 1
    assert result.stderr == "The working directory has been removed. Change to one that is there, and try again.\n"
    assert invoke("engine", "status").exit_code == 0


@pytest.mark.parametrize("command", ["list", "engine status", "prune", "doctor"])
def test_what_the_system_refuses_is_a_line_and_no_traceback(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str
):
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "not allowed", "/state/engine.sock")

    monkeypatch.setattr("server.client.engine_socket.open_socket", refuse)
    result = invoke(*command.split())
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "not allowed: '/state/engine.sock'" in (result.stdout if command == "doctor" else result.stderr)


def test_a_reader_that_has_read_enough_is_no_complaint(invoke: Invoke, quarters: House):
    job_id = invoke("run", "--detach", f"stub:say={'x' * 100_000}").stdout.strip()
    invoke("wait", job_id)
    program = shlex.join([sys.executable, str(MAIN), "result", job_id])
    done = subprocess.run(
        ["/bin/bash", "-c", f"{program} | head -c 5; exit ${{PIPESTATUS[0]}}"],
        env=dict(quarters.environ),
        cwd=quarters.work,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "xxxxx", "")


def test_no_complaint_repeats_a_secret(invoke: Invoke):
    said = invoke("status", "sk-ant-api03-not-a-real-one-at-all").stderr
    assert "the id '[redacted]'" in said


def test_a_settings_file_that_cannot_be_used_is_said_without_what_is_secret_in_it(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, home: Path
):
    (home / "config.toml").write_text("[mcp_servers.gh]\nenv = {GITHUB_TOKEN = 'ghp_secret'}\n")
    monkeypatch.setenv("CLAUDE_JOBS_HOME", str(home))
    for command in ("engine", "list"):
        result = invoke(command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "mcp_servers: it lacks a value at gh.command" in result.stderr
        assert "ghp_secret" not in result.stderr
    assert "ghp_secret" not in (home / "engine.log").read_text()


def test_version_and_help(invoke: Invoke):
    assert invoke("--version").stdout == f"{__version__}\n"
    shown = invoke("--help").stdout
    commands = "run batch send status tree wait result transcript list kill mcp doctor demo engine"
    assert all(command in shown for command in commands.split())


def test_the_installed_command_runs_from_a_directory_with_packages_of_its_own(quarters: House):
    for name in ("server", "jobs"):
        (quarters.work / f"{name}.py").write_text("raise SystemExit('the wrong package')\n")
    done = quarters.run("run", "stub:say=right")
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
