"""What jobs do and wait for, as a person sees it in a terminal and in a pipe while commands look or wait."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.support import SYSTEM_PATH
from tests.support.engines import MAIN, House, Pump, house
from tests.support.seat import Seat, seated
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(300)

SECONDS = 60.0
COMMAND = "pytest -x\x1b[31m tests/\u6771\u4eac && echo " + "long " * 40


def frame(**fields: Any) -> str:
    return json.dumps(fields | {"session_id": "s"})


@contextmanager
def calling_house(**environ: str) -> Iterator[House]:
    """A house whose jobs call a tool, and answer once the file `gate` is there."""
    with house(**environ) as made:
        script, gate = made.base / "claude", made.base / "gate"
        use = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": COMMAND}}
        message = {"id": "m", "model": "stub", "content": [use], "usage": {"input_tokens": 900, "output_tokens": 100}}
        (made.base / "first").write_text(
            f"{frame(type='system', subtype='init', model='stub')}\n{frame(type='assistant', message=message)}\n"
        )
        usage = {"input_tokens": 900, "output_tokens": 100}
        answer = {"subtype": "success", "is_error": False, "result": "the answer", "num_turns": 1, "usage": usage}
        (made.base / "last").write_text(
            frame(type="result", total_cost_usd=0.25, terminal_reason="completed", permission_denials=[], **answer)
            + "\n"
        )
        script.write_text(
            f"#!/bin/sh\nIFS= read -r a; IFS= read -r b\ncat {made.base}/first\n"
            f"n=0; while ! [ -e {gate} ] && [ $n -lt 2400 ]; do n=$((n + 1)); sleep 0.05; done\ncat {made.base}/last\n"
        )
        script.chmod(0o755)
        yield House(base=made.base, environ={**made.environ, "CLAUDE_JOBS_CLI": str(script)}, pids=made.pids)


def calls(pump: Pump, count: int) -> None:
    """Wait until so many jobs are in their call."""

    def seen() -> bool:
        jobs = pump.json("claude_list_jobs")
        return sum(str(job.get("activity", "")).startswith("Bash: pytest -x") for job in jobs) == count

    until_now(seen, SECONDS, f"{count} calls")


def reads(seat: Seat, words: str) -> None:
    """Wait until a line of the screen holds words."""
    until_now(lambda: any(words in row for row in seat.rows), SECONDS, words)


def fits(seat: Seat, columns: int) -> None:
    for screen in seat.screens:
        assert max(map(cell_len, screen.rows)) <= columns, screen.rows
    assert "\x1b[31m" not in seat.written


@pytest.mark.parametrize(("lines", "columns"), [(20, 40), (24, 80), (40, 120)])
def test_a_tree_says_what_each_job_does_in_every_size(lines: int, columns: int):
    with calling_house() as made, made.pump() as pump:
        tasks = ["one", {"task": "two", "dependsOn": [0]}]
        batch = pump.json("claude_run_batch_async", tasks=tasks, treeBudgetUsd=5)
        calls(pump, 1)
        first = batch["jobIds"][0][:6]
        with seated(made, "tree", "-f", batch["batchId"], lines=lines, columns=columns, NO_COLOR="1") as seat:
            seat.wait_for("3s" if columns < 60 else "· 3s")
            rows = [row for row in seat.rows if first in row]
            (made.base / "gate").touch()
            assert seat.end() == 0
        fits(seat, columns)
    assert re.search(rf"^├── ◐ {first} one +Bash: pytest", rows[0])
    if columns >= 60:
        assert re.search(rf"^└── ◌ \w+ two +waiting for {first}$", rows[1])
        # Cost and time are at the right edge.
        assert re.search(r"\d+s$", rows[0])
        assert cell_len(rows[0]) == columns
        assert "$0.5000 of $5.00 · 2k tokens" in " ".join(" ".join(seat.rows[:3]).split())


def test_a_list_and_a_status_say_what_a_job_does():
    with calling_house() as made, made.pump() as pump:
        job_id = pump.json("claude_run_async", task="one", model="opus")["jobId"]
        calls(pump, 1)
        with seated(made, "list") as seat:
            assert seat.end() == 0
        assert re.search(rf"◐ {job_id[:6]}  running .*one  Bash: pytest -x", seat.rows[0])
        fits(seat, 80)
        assert "one  Bash: pytest -x" in made.run("list").stdout
        shown = dict(line.split(maxsplit=1) for line in made.run("status", job_id).stdout.splitlines())
        (made.base / "gate").touch()
        pump.settled(job_id)
    assert shown["now"].startswith("Bash: pytest -x tests/")
    assert shown["tokens"] == "900 in, 100 out"
    assert shown["model"] == "stub (asked for opus)"
    assert shown["turns"] == "1"


def test_what_a_person_paused_says_so_in_its_row_and_how_to_go_on_above_it():
    with calling_house(CLAUDE_JOBS_MAX_RUNNING="1") as made, made.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=["one", "two"])
        calls(pump, 1)
        made.run("pause", batch["batchId"])
        with seated(made, "tree", batch["batchId"]) as seat:
            assert seat.end() == 0
        shown = dict(line.split(maxsplit=1) for line in made.run("status", batch["jobIds"][1]).stdout.splitlines())
        (made.base / "gate").touch()
    assert re.search(r"└── ◌ \w+ two +paused by a person", seat.rows[-2]), seat.rows
    assert f"claude-jobs resume {batch['batchId']}" in " ".join(" ".join(seat.rows).split())
    assert shown["status"].startswith("queued, paused by a person")


def test_a_run_and_a_wait_show_what_happens_and_leave_the_answer_alone():
    with calling_house() as made, made.pump() as pump:
        with seated(made, "run", "the task", NO_COLOR="1") as seat:
            reads(seat, "the task  Bash: pytest -x")
            [job] = pump.json("claude_list_jobs")
            with seated(made, "wait", job["jobId"], NO_COLOR="1") as waiter:
                reads(waiter, f"◐ {job['jobId'][:6]} the task  Bash: pytest -x")
                (made.base / "gate").touch()
                assert waiter.end() == 0
            assert seat.end() == 0
        for each in (seat, waiter):
            fits(each, 80)
    assert seat.rows == [f"job {job['jobId']}", "the answer", ""]
    assert waiter.rows == [f"{job['jobId']}  completed  the answer", ""]


def test_a_wait_in_a_pipe_prints_only_what_ended():
    with calling_house() as made, made.pump() as pump:
        job_id = pump.json("claude_run_async", task="x")["jobId"]
        calls(pump, 1)
        (made.base / "gate").touch()
        done = made.run("wait", job_id)
    assert (done.stdout, done.stderr) == (f"{job_id}  completed  the answer\n", "")


def test_a_drawing_starts_again_below_after_the_command_was_stopped_and_goes_on():
    with calling_house() as made, made.pump() as pump:
        job_id = pump.json("claude_run_async", task="x")["jobId"]
        calls(pump, 1)
        with seated(made, "tree", "-f", job_id) as seat:
            seat.wait_for("Bash: pytest")
            seat.process.send_signal(signal.SIGSTOP)
            seat.process.send_signal(signal.SIGCONT)
            # It does not go up to overwrite what the shell has written meanwhile.
            until_now(lambda: "\x1b[?7h\r\x1b[J" in seat.written, SECONDS, "a drawing below the one before")
            (made.base / "gate").touch()
            assert seat.end() == 0


ASKING = Story.model_validate(
    {
        "default": "worker",
        "roles": {
            "worker": [
                {"tool_calls": [{"name": "Bash", "input": {"command": "install -m 600 /dev/null made-it"}}]},
                {"text": "It is over."},
            ]
        },
    }
)


@contextmanager
def asking_house(cli: Path) -> Iterator[House]:
    """A house in which the real Claude asks a person for permission, with its scripted model."""
    settings = {"CLAUDE_JOBS_CLI": str(cli), "CLAUDE_JOBS_PERMISSION_REQUESTS": "person"}
    with ScriptedApi(ASKING) as api, house(**settings) as made:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        yield House(base=made.base, environ={**made.environ, **client}, pids=made.pids)


def test_a_run_in_a_terminal_says_which_permission_it_waits_for_and_how_to_give_it(claude_cli: Path):
    with asking_house(claude_cli) as made, seated(made, "run", "Go on.") as seat:
        seat.wait_for("permit: claude-jobs approve ")
        seat.wait_for("asks: Bash: install")
        [command] = set(re.findall(r"permit: claude-jobs (approve \w+)", seat.written))
        tree = made.run("tree").stdout
        assert re.search(rf"asks: Bash: install -m 600 /dev/null made-it · claude-jobs {command}\n", tree)
        assert re.search(r"\n└── ◌ \w+ Go on\. .* asks: Bash: install", tree)
        assert made.run(*command.split()).returncode == 0
        assert seat.end() == 0
        assert seat.rows[-2:] == ["It is over.", ""]
        assert (made.work / "made-it").exists()


def test_a_run_in_a_pipe_says_so_once_and_its_output_is_the_answer_alone(claude_cli: Path):
    with asking_house(claude_cli) as made:
        made.start_engine()
        process = subprocess.Popen(
            [sys.executable, str(MAIN), "run", "Go on."],
            env=dict(made.environ),
            cwd=made.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stderr is not None
            told = ""
            while "permit: " not in told:
                line = process.stderr.readline()
                assert line, told
                told += line
            [request] = json.loads(made.run("approve", "--json").stdout)["requests"]
            assert f"permit: claude-jobs approve {request['requestId']} " in told
            made.run("approve", request["requestId"])
            answer, rest = process.communicate(timeout=SECONDS)
    assert (process.returncode, answer) == (0, "It is over.\n")
    assert "permit: " not in rest
    assert "\x1b" not in told + rest
