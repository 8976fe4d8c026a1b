"""Hooks from outside: what a command, a URL and the desktop are told, when, and that no job waits for them."""

import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_account_limits import Api
from tests.support.engines import MAIN, House, house
from tests.support.receiver import Receiver, receiving
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(300)

SECONDS = 60.0
KEY = "sk-ant-api03-a-key-that-no-hook-may-see"
HOLD = "stub:wait=/nonexistent"
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
NOTICE = re.compile(r"n[0-9a-z]{8,17}")


class Listener:
    """A command for a hook that keeps each message with the environment that it came with.

    Args:
        base: An empty directory.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / "told"
        script = base / "listen.sh"
        # One file a call: two calls at once do not mix.
        script.write_text(
            f"#!/bin/sh\nset -u\nfile=$(mktemp {base}/call.XXXXXX)\n"
            "{ cat; pwd; umask; env; } >$file\n"
            f"echo $file >>{self.path}\n"
        )
        script.chmod(0o755)
        self.command = str(script)

    def calls(self) -> list[tuple[dict[str, Any], str, str, dict[str, str]]]:
        """What it was told: the message, its directory, its umask and its environment."""
        found = []
        for name in self.path.read_text().split() if self.path.exists() else ():
            message, directory, umask, *lines = Path(name).read_text().splitlines()
            found.append((json.loads(message), directory, umask, dict(line.split("=", 1) for line in lines)))
        return found

    def messages(self, count: int = 1, *, event: str | None = None) -> list[dict[str, Any]]:
        """Wait until it was told so often, and return what."""

        def found() -> list[dict[str, Any]]:
            return [told for told, *_ in self.calls() if event in (None, told["event"])]

        until_now(lambda: len(found()) >= count, SECONDS, f"{count} messages; there are {self.calls()}")
        return found()


def configure(made: House, **settings: Any) -> None:
    made.paths.home.mkdir(mode=0o700, exist_ok=True)
    made.paths.config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    if made.control("status"):
        # An engine that runs reads the file again before it answers.
        made.run("settings")


@pytest.fixture
def made() -> Iterator[House]:
    with house(ANTHROPIC_API_KEY=KEY, DISPLAY=":7", MY_OWN="x") as made:
        yield made


@pytest.fixture
def listener(made: House) -> Listener:
    return Listener(made.base)


def test_a_command_is_told_the_end_of_a_job_exactly_as_documented(made: House, listener: Listener):
    configure(made, on_end=listener.command)
    os.umask(mask := os.umask(0o022))
    with made.pump() as pump:
        job = pump.json("claude_run_async", task=f"stub:cost=0.25 keep {KEY} to yourself")["jobId"]
        [told] = listener.messages()
    assert NOTICE.fullmatch(told.pop("noticeId"))
    assert UTC.fullmatch(told.pop("at"))
    assert 0 <= told.pop("elapsedSeconds") < SECONDS
    assert told == {
        "event": "tree_ended",
        "id": job,
        "rootId": job,
        "task": "stub:cost=0.25 keep [redacted] to yourself",
        "status": "completed",
        "jobs": {"completed": 1},
        "costUsd": 0.25,
        "inputTokens": 10,
        "outputTokens": 20,
        "reason": "completed",
        "next": f"claude-jobs result {job}",
    }
    [(_, directory, umask, env)] = listener.calls()
    assert directory == made.environ["HOME"]
    assert int(umask, 8) == mask
    given = {name: value for name, value in env.items() if name.startswith("CLAUDE_JOBS_")}
    assert given == {
        "CLAUDE_JOBS_EVENT": "tree_ended",
        "CLAUDE_JOBS_ID": job,
        "CLAUDE_JOBS_STATUS": "completed",
        "CLAUDE_JOBS_COST_USD": "0.25",
        "CLAUDE_JOBS_HOME": str(made.paths.home),
    }
    # What the shell sets for itself comes on top.
    shells = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert env.keys() - given.keys() - shells <= {"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "DISPLAY"}
    assert env["DISPLAY"] == ":7"
    assert KEY not in "".join(path.read_text() for path in made.base.glob("call.*"))


def test_a_batch_is_told_once_as_a_whole_and_a_retry_once_more(made: House, listener: Listener):
    configure(made, on_end=listener.command)
    with made.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=["one", "stub:exit=3"])
        [first] = listener.messages()
        assert {name: first[name] for name in ("id", "status", "jobs", "reason")} == {
            "id": batch["batchId"],
            "status": "failed",
            "jobs": {"completed": 1, "failed": 1},
            "reason": "unknown_error",
        }
        assert "exited with 3" in first["error"]
        pump.json("claude_retry", jobId=batch["jobIds"][1])
        second = listener.messages(2)[1]
    assert (second["id"], second["status"]) == (batch["batchId"], "completed")
    assert second["noticeId"] != first["noticeId"]


def test_a_tree_that_is_cancelled_is_told_of_once_all_of_it_is_over(made: House, listener: Listener):
    configure(made, on_end=listener.command)
    with made.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=[HOLD] * 3)
        running(pump, batch["jobIds"][0])
        pump.json("claude_kill_job", jobId=batch["batchId"])
        [told] = listener.messages()
        assert (told["status"], told["jobs"]) == ("cancelled", {"cancelled": 3})


def test_a_command_may_use_claude_jobs_as_the_person(made: House, listener: Listener):
    answer = made.base / "answer"
    command = f'{sys.executable} {MAIN} result "$CLAUDE_JOBS_ID" >{answer} 2>&1; {listener.command}'
    configure(made, on_end=command)
    with made.pump() as pump:
        pump.json("claude_run_async", task="stub:say=forty-two")
        listener.messages()
    assert answer.read_text() == "forty-two\n"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_a_url_gets_the_same_object_until_it_takes_it_and_no_redirect_is_followed(made: House, receiver: Receiver):
    receiver.answers = [500, 302]
    configure(made, on_end=receiver.url)
    with made.pump() as pump:
        job = pump.json("claude_run_async", task="x")["jobId"]
        until_now(lambda: len(receiver.got) >= 3, SECONDS, "three requests")
    assert [(command, path) for command, path, *_ in receiver.got] == [("POST", "/hooks/a-secret-path")] * 3
    assert {headers["Content-Type"] for *_, headers, _ in receiver.got} == {"application/json"}
    bodies = [body for *_, body in receiver.got]
    assert bodies[0] == bodies[1] == bodies[2]
    assert (bodies[0]["event"], bodies[0]["id"]) == ("tree_ended", job)
    log = made.paths.log.read_text()
    assert "it answered 500; it is tried again in 1 s" in log
    assert "it answered 302, which is not followed" in log
    for command in (["settings"], ["settings", "--json"], ["engine", "status"], ["doctor"]):
        assert "a-secret-path" not in made.run(*command).stdout
    assert "a-secret-path" not in log


def alive(marker: str) -> list[int]:
    """Processes whose command line has this."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_hook_that_hangs_keeps_no_job_and_no_stop_waiting_and_is_told_by_the_next_engine(
    made: House, listener: Listener
):
    nap = f"1000.{os.getpid()}"
    configure(made, on_end=f"touch {made.base}/hangs; sleep {nap}; true")
    with made.pump() as pump:
        first = pump.json("claude_run_async", task="x")["jobId"]
        until_now((made.base / "hangs").exists, SECONDS, "the hook")
        # Jobs and the engine go on; another kind of notice too.
        assert pump.text("claude_run", task="stub:say=meanwhile", outputFormat="text") == "meanwhile"
        began = time.monotonic()
        assert made.run("engine", "stop").returncode == 0
        made.wait_for_the_engine_to_go()
        assert time.monotonic() - began < 20
    until_now(lambda: not alive(f"sleep {nap}".replace(" ", "\0")), SECONDS, "the end of the hook")
    configure(made, on_end=listener.command)
    made.start_engine()
    told = listener.messages(2)
    assert told[0]["id"] == first


@contextmanager
def killed_engine(made: House) -> Iterator[None]:
    """Kill the engine with SIGKILL, and start the next one after the block."""
    made.kill_engine()
    made.wait_for_the_engine_to_go()
    yield
    made.start_engine()


def test_an_end_before_a_kill_of_the_engine_is_told_by_the_next_one(made: House, listener: Listener):
    go = made.base / "go"
    configure(made, on_end=f"touch {made.base}/tried; test -e {go} && {listener.command}")
    with made.pump() as pump:
        job = pump.json("claude_run_async", task="x")["jobId"]
        until_now((made.base / "tried").exists, SECONDS, "the first try")
    with killed_engine(made):
        go.touch()
    [told] = listener.messages()
    assert told["id"] == job
    # It is in the store no more, so no engine tells it again.
    until_now(lambda: waiting_notices(made) == 0, SECONDS, "an empty outbox")


def waiting_notices(made: House) -> int:
    with closing(sqlite3.connect(made.paths.database)) as connection:
        return int(connection.execute("SELECT count(*) FROM notice").fetchone()[0])


def test_a_job_that_ends_while_no_engine_runs_is_told_by_the_next_one(made: House, listener: Listener):
    configure(made, on_end=listener.command)
    gate = made.base / "gate"
    with made.pump() as pump:
        job = pump.json("claude_run_async", task=f"stub:wait={gate}")["jobId"]
        status = running(pump, job)
        directory = attempt_directory(made, status)
        until_now((directory / "out").exists, SECONDS, "the start")
        pump.process.kill()
    with killed_engine(made):
        gate.touch()
        until_now(lambda: "exit 0" in (directory / "lock").read_text(), SECONDS, "the end of the job")
    assert [told["id"] for told in listener.messages()] == [job]


def test_of_fifty_trees_that_end_together_none_is_left_out_and_most_come_in_one_message(
    made: House, listener: Listener
):
    configure(made, on_end=listener.command)
    with made.pump() as pump:
        numbers = [pump.send("tools/call", name="claude_run_async", arguments={"task": "x"}) for _ in range(50)]
        ids = {json.loads(pump.answer(number)["content"][0]["text"])["jobId"] for number in numbers}
        until_now(lambda: total(listener.calls()) >= 50, 2 * SECONDS, "fifty ends")
    told = [message for message, *_ in listener.calls()]
    one_by_one = [message["id"] for message in told if message["event"] == "tree_ended"]
    together = [message for message in told if message["event"] == "several"]
    assert len(one_by_one) <= 20
    assert {*one_by_one, *(name for message in together for name in message["ids"])} == ids
    assert {event for message in together for event in message["events"]} == {"tree_ended"}
    assert sum(message["statuses"]["completed"] for message in together) == 50 - len(one_by_one)


def total(calls: Sequence[tuple[dict[str, Any], str, str, dict[str, str]]]) -> int:
    return sum(message.get("count", 1) for message, *_ in calls)


def test_a_permission_that_is_wanted_is_told_with_the_command_that_answers_it():
    with house(ANTHROPIC_API_KEY=KEY, CLAUDE_JOBS_PERMISSION_REQUESTS="person") as made:
        listener = Listener(made.base)
        configure(made, on_attention=listener.command)
        with made.pump() as pump:
            job = pump.json("claude_run_async", task=HOLD)["jobId"]
            directory = attempt_directory(made, running(pump, job))
            with pump_of_job(made, directory) as asker:
                asked = {"tool_name": "Bash", "input": {"command": f"curl -H 'x-api-key: {KEY}' example.com"}}
                number = asker.send("tools/call", name="claude_permit", arguments=asked)
                [told] = listener.messages()
                assert {name: told[name] for name in ("event", "id", "rootId", "task", "tool", "input")} == {
                    "event": "permission_wanted",
                    "id": job,
                    "rootId": job,
                    "task": HOLD,
                    "tool": "Bash",
                    "input": "command: curl -H 'x-api-key: [redacted]' example.com",
                }
                assert UTC.fullmatch(told["until"])
                answered = made.run(*told["next"].split()[1:])
                assert answered.returncode == 0, answered
                assert '"allow"' in asker.answer(number)["content"][0]["text"]
            pump.json("claude_kill_job", jobId=job)


def test_a_budget_that_is_used_up_is_told_once_for_all_jobs_that_it_ends(made: House, listener: Listener):
    configure(made, on_attention=listener.command)
    with made.pump() as pump:
        tasks = ["stub:cost=1.50", *["x"] * 4]
        batch = pump.json("claude_run_batch_async", tasks=tasks, treeBudgetUsd=1.25, maxConcurrent=1)
        reasons = [pump.settled(job)["reason"] for job in batch["jobIds"]]
        assert reasons == ["completed", *["budget_exhausted"] * 4]
        [told] = listener.messages()
        until_now(lambda: waiting_notices(made) == 0, SECONDS, "an empty outbox")
        assert len(listener.calls()) == 1
    assert {name: told[name] for name in ("event", "id", "rootId", "budgetUsd", "because", "costUsd")} == {
        "event": "budget_used_up",
        "id": batch["batchId"],
        "rootId": batch["batchId"],
        "budgetUsd": 1.25,
        "because": f"the $1.25 of tree {batch['batchId']} are used up",
        "costUsd": 1.5,
    }


def test_a_usage_limit_is_told_when_it_pauses_jobs_and_when_they_go_on_also_over_a_kill(
    made: House, listener: Listener
):
    configure(made, on_attention=listener.command)
    api = Api(made.base / "api")
    api.limit(8)
    with made.pump() as pump:
        job = pump.json("claude_run_async", task=api.task)["jobId"]
        [began] = listener.messages(event="pause_began")
        assert {"because": began["because"], "next": began["next"]} == {
            "because": "the five-hour limit is reached",
            "next": "claude-jobs engine status",
        }
        assert UTC.fullmatch(began["until"])
        with killed_engine(made):
            api.answer()
        [ended] = listener.messages(event="pause_ended")
        assert ended["id"] == began["id"]
        assert pump.settled(job)["status"] == "completed"
        # The next engine knew that the beginning had been told; at most it told it again.
        assert {told["noticeId"] for told in listener.messages(event="pause_began")} == {began["noticeId"]}


def test_a_pause_by_a_person_is_told_when_it_begins_and_ends_also_over_a_kill(made: House, listener: Listener):
    configure(made, on_attention=listener.command)
    with made.pump() as pump:
        job = pump.json("claude_run_async", task=HOLD)["jobId"]
        running(pump, job)
        assert made.run("pause", job).returncode == 0
        [began] = listener.messages(event="pause_began")
        assert {name: began[name] for name in ("id", "because", "next")} == {
            "id": job,
            "because": "paused by a person",
            "next": f"claude-jobs resume {job}",
        }
        with killed_engine(made):
            pass
        assert made.run(*began["next"].split()[1:]).returncode == 0
        [ended] = listener.messages(event="pause_ended")
        assert ended["id"] == job
        assert {told["noticeId"] for told in listener.messages(event="pause_began")} == {began["noticeId"]}
        pump.json("claude_kill_job", jobId=job)


def test_a_daily_budget_that_is_used_up_is_told_once(made: House, listener: Listener):
    configure(made, on_attention=listener.command, daily_budget_usd=2.0)
    with made.pump() as pump:
        for _ in range(2):
            pump.text("claude_run", task="stub:cost=1.5")
        [told] = listener.messages()
        assert "2.0000 USD" in pump.refusal("claude_run_async", task="x")
    assert (told["event"], told["next"]) == ("budget_used_up", "claude-jobs engine status")
    assert "the daily budget of 2.0000 USD is used up, with 3.0000 USD spent" in told["because"]
    assert UTC.fullmatch(told["until"])
    assert len(listener.calls()) == 1


@pytest.fixture
def desktop(made: House) -> Callable[[], list[str]]:
    """A `notify-send` on the PATH of the engine; returns what it was called with."""
    programs, shown = made.base / "bin", made.base / "shown"
    programs.mkdir()
    fake = programs / "notify-send"
    fake.write_text(f'#!/bin/sh\nfor one; do printf "%s\\n" "$one"; done >>{shown}\n')
    fake.chmod(0o755)
    return lambda: shown.read_text().splitlines() if shown.exists() else []


def test_the_desktop_shows_a_notice_where_it_is_asked_to(made: House, desktop: Callable[[], list[str]]):
    there = House(base=made.base, environ={**made.environ, "PATH": f"{made.base}/bin:{made.environ['PATH']}"})
    configure(there, desktop_notices=True)
    with there.pump() as pump:
        job = pump.json("claude_run_async", task="<b>bold</b> & more")["jobId"]
        until_now(lambda: len(desktop()) >= 5, SECONDS, "the notice")
    assert (
        desktop()
        == [
            "--app-name=claude-jobs",
            "--",
            "claude-jobs: Jobs completed",
            "&lt;b&gt;bold&lt;/b&gt; &amp; more",
            "$0.00",
            f"claude-jobs result {job}",
        ][: len(desktop())]
    )


def test_a_desktop_without_such_a_program_fails_nothing_and_doctor_says_so(made: House, listener: Listener):
    bare = House(base=made.base, environ={**made.environ, "PATH": "/bin-that-is-not-there"})
    configure(made, desktop_notices=True, on_end=listener.command)
    with made.pump() as pump:
        pump.json("claude_run_async", task="x")
        listener.messages()
    assert "could not be shown" not in made.paths.log.read_text()
    [found] = [
        one for one in json.loads(bare.run("doctor", "--json").stdout)["findings"] if one["name"] == "desktop_notices"
    ]
    assert found["status"] == "note"
    assert "no program shows notices" in found["detail"]


def test_doctor_names_a_command_that_is_not_there_and_tries_those_that_are(made: House, listener: Listener):
    def findings(*options: str) -> dict[str, tuple[str, str]]:
        said = json.loads(made.run("doctor", "--json", *options).stdout)["findings"]
        return {one["name"]: (one["status"], one["detail"]) for one in said}

    configure(made, on_end="no-such-program --at all", on_attention=f"FOO=1 {listener.command}")
    found = findings()
    assert found["on_end"] == ("note", "no-such-program --at all: there is no program no-such-program")
    assert found["on_attention"][0] == "ok"
    assert listener.calls() == []
    assert findings("--hooks")["on_attention"][1].endswith("a test message was taken")
    [told] = listener.messages()
    assert told["event"] == "test"
    configure(made, on_attention="echo no good; exit 3")
    assert findings("--hooks")["on_attention"] == ("error", "echo no good; exit 3: it exited with 3: no good")


def test_trying_a_hook_fails_where_its_program_is_not_there_and_says_what_to_do(made: House, listener: Listener):
    configure(made, on_end="no-such-program --at all")
    # Jobs can run all the same.
    assert made.run("doctor").returncode == 0
    tried = made.run("doctor", "--hooks", COLUMNS="300")
    assert tried.returncode == 1
    assert "error  on_end: no-such-program --at all: there is no program no-such-program" in tried.stdout
    assert "Correct on_end where `claude-jobs settings` says it is set" in tried.stdout
    as_json = made.run("doctor", "--hooks", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["jobsCanRun"]) == (1, True)
    configure(made, on_end=listener.command)
    assert made.run("doctor", "--hooks").returncode == 0
    [told] = listener.messages()
    assert told["event"] == "test"


def test_status_and_doctor_say_what_a_hook_could_not_be_told(made: House):
    configure(made, on_end="echo the mail server is away; false")
    with made.pump() as pump:
        pump.json("claude_run_async", task="x")
        until_now(lambda: "try 1 of notice" in made.paths.log.read_text(), SECONDS, "a try")
        says = "on_end could not be told of everything: 1 is tried again. The last time, it exited with 1: the mail"
        # Wide, so that no line is wrapped.
        assert says in made.run("engine", "status", COLUMNS="300").stdout
        assert says in made.run("doctor", COLUMNS="300").stdout.replace("\n         ", " ")


def test_a_running_engine_takes_a_hook_from_the_file_and_tells_nothing_of_before(made: House, listener: Listener):
    with made.pump() as pump:
        pump.text("claude_run", task="before")
        configure(made, on_end=listener.command)
        pump.text("claude_run", task="after")
        assert [told["task"] for told in listener.messages()] == ["after"]


@pytest.mark.parametrize("wrong", ["ftp://example.com/x", "http://", "https://me:secret@example.com/", "  "])
def test_a_hook_that_cannot_be_one_is_refused_without_its_value(made: House, wrong: str):
    said = made.run("settings", CLAUDE_JOBS_ON_END=wrong)
    assert said.returncode == 1
    assert "CLAUDE_JOBS_ON_END" in said.stderr
    assert "example.com" not in said.stderr.split("For example")[0]


def test_the_client_of_a_job_sets_no_hook(made: House, listener: Listener):
    with made.pump() as pump:
        job = pump.json("claude_run_async", task=HOLD)["jobId"]
        directory = attempt_directory(made, running(pump, job))
        pump.process.kill()
    made.kill_engine()
    made.wait_for_the_engine_to_go()
    hostile = House(base=made.base, environ={**made.environ, "CLAUDE_JOBS_ON_END": listener.command})
    with pump_of_job(hostile, directory) as inside:
        inside.json("claude_run_async", task="x")
        rows = {row["setting"]: row["value"] for row in json.loads(made.run("settings", "--json").stdout)["settings"]}
        assert rows["on_end"] is None
    with made.pump() as pump:
        pump.json("claude_kill_job", jobId=job)
        assert pump.settled(job)["status"] == "cancelled"
    assert listener.calls() == []


def test_the_end_of_a_pause_of_everything_is_told_also_where_no_job_waited(made: House, listener: Listener):
    configure(made, on_attention=listener.command)
    assert made.run("pause").returncode == 0
    listener.messages(event="pause_began")
    assert made.run("resume").returncode == 0
    listener.messages(event="pause_ended")
