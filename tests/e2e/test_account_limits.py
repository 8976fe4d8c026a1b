"""A usage limit holds back the jobs of its account and no others, and everybody who asks hears of it."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import MAIN, SHELL_STUB, House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(300)

SECONDS = 60.0
OVERAGE = Path(__file__).parents[1] / "fixtures" / "streams" / "rejected_but_overage_in_use.ndjson"
KEY = "sk-ant-api03-a-key-that-no-file-may-hold"
PAUSED = re.compile(
    r"paused until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* because the five-hour limit is reached; (\d+) jobs? waits?"
)
TOLD = re.compile(
    r"until (?:\d+ \w+ )?\d\d:\d\d:\d\d \(in \d+[smh]\) because the five-hour limit is reached; (\d+) jobs? waits?"
)
"""The same in a terminal: on its clock."""

HOUR = 3600.0


class Api:
    """What the stub of one account's jobs is answered: a stream in a file, which a test may change.

    A job that goes on in its session has no such file in its message, and completes.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.task = f"stub:replay={path}"
        self.name = "five_hour"
        self.answer()

    def limit(self, seconds: float) -> None:
        """Refuse every request from now on, with a limit that ends in so many seconds."""
        info = {"status": "rejected", "resetsAt": time.time() + seconds, "rateLimitType": self.name}
        self._say(
            {"type": "rate_limit_event", "rate_limit_info": info},
            _result("You've hit your 5-hour limit", is_error=True, api_error_status=429),
        )

    def answer(self) -> None:
        """Answer every request from now on."""
        message = {"id": "m1", "role": "assistant", "content": [{"type": "text", "text": "done"}]}
        self._say({"type": "assistant", "message": message}, _result("done", is_error=False))

    def _say(self, *frames: Mapping[str, Any]) -> None:
        draft = self.path.with_suffix(".new")
        draft.write_text("".join(f"{json.dumps(frame)}\n" for frame in frames))
        draft.replace(self.path)


def _result(words: str, **fields: Any) -> Mapping[str, Any]:
    return {"type": "result", "subtype": "success", "result": words, "num_turns": 1, "total_cost_usd": 0.0, **fields}


@pytest.fixture
def made() -> Iterator[House]:
    with house(ANTHROPIC_API_KEY=KEY) as made:
        yield made


@pytest.fixture
def api(made: House) -> Api:
    return Api(made.base / "api")


def start(pump: Pump, *tasks: str) -> list[str]:
    return list(pump.json("claude_run_batch_async", tasks=list(tasks))["jobIds"])


def status_of(pump: Pump, job_id: str) -> Any:
    return pump.json("claude_status", jobId=job_id)


def wait_for_the_pause(pump: Pump, job_id: str, jobs: int) -> None:
    """Wait until a job waits for its account's limit, with so many jobs in all."""

    def is_paused() -> bool:
        found = PAUSED.fullmatch(status_of(pump, job_id).get("paused", ""))
        return found is not None and int(found[1]) == jobs

    until_now(is_paused, SECONDS, "the pause")


def completes(pump: Pump, *job_ids: str) -> None:
    """Wait until each of these jobs has completed."""

    def are_over() -> bool:
        return all(status_of(pump, job_id)["status"] == "completed" for job_id in job_ids)

    until_now(are_over, SECONDS, f"the end of {job_ids}")


OTHERS = {
    "directory": {"CLAUDE_CONFIG_DIR": "{base}/other"},
    "key": {"ANTHROPIC_API_KEY": "sk-ant-api03-another-key"},
    "token": {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "a-token"},
    "provider": {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_PROFILE": "work"},
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_account_that_meets_its_limit_stops_no_other_account(other: str):
    with house(ANTHROPIC_API_KEY=KEY, CLAUDE_JOBS_MAX_RUNNING="1") as made:
        api = Api(made.base / "api")
        environ = {name: value.format(base=made.base) for name, value in OTHERS[other].items()}
        with made.pump() as first, made.pump(environ) as second:
            api.limit(HOUR)
            held = start(first, *[api.task] * 3)
            wait_for_the_pause(first, held[0], 3)
            transient = start(second, "stub:say=a", "stub:say=b")
            completes(second, *transient)
            assert "paused" not in second.json("claude_wait", jobIds=transient)
            assert [status_of(first, job_id)["status"] for job_id in held] == ["queued"] * 3
            # No more than the first one met the limit.
            assert sum(status_of(first, job_id)["attempt"] for job_id in held) == 1


def test_the_jobs_of_an_account_go_on_after_the_reset(made: House, api: Api):
    with made.pump() as pump:
        api.limit(4.0)
        held = start(pump, *[api.task] * 3)
        wait_for_the_pause(pump, held[0], 3)
        api.answer()
        completes(pump, *held)


def test_a_job_that_completes_lifts_the_limit_of_its_account_once(made: House, api: Api):
    with made.pump() as pump:
        goes_on = [made.base / name for name in ("first", "second")]
        running = start(pump, *(f"stub:wait={path}" for path in goes_on))
        until_now(lambda: all(status_of(pump, one)["status"] == "running" for one in running), SECONDS, "their start")
        api.limit(HOUR)
        held = start(pump, api.task)
        wait_for_the_pause(pump, held[0], 1)
        goes_on[0].touch()
        completes(pump, running[0])
        completes(pump, *held)
        [again] = start(pump, api.task)
        wait_for_the_pause(pump, again, 1)
        goes_on[1].touch()
        completes(pump, running[1])
        # It began before the limit, and says nothing of one that was met again.
        assert PAUSED.fullmatch(status_of(pump, again)["paused"])


def test_the_time_in_which_its_own_jobs_wait_for_a_limit_does_not_end_a_job(made: House, api: Api):
    gate = made.base / "parent"
    with made.pump() as person:
        task = {"task": f"stub:wait={gate}", "timeoutSeconds": 10}
        waiter = running(person, person.json("claude_run_async", **task)["jobId"])
        with pump_of_job(made, attempt_directory(made, waiter)) as job:
            api.limit(16.0)
            call = job.send("tools/call", name="claude_run", arguments={"task": api.task})
            assert not job.answer(call).get("isError")
        gate.touch()
        assert person.settled(waiter["jobId"])["reason"] == "completed"


def test_another_login_lets_the_jobs_of_the_old_one_go_on():
    with house() as made:
        state = made.base / "home" / ".claude.json"
        state.write_text(json.dumps({"oauthAccount": {"accountUuid": "one"}, "numStartups": 1}))
        api = Api(made.base / "api")
        with made.pump() as pump:
            api.limit(HOUR)
            held = start(pump, api.task, api.task)
            wait_for_the_pause(pump, held[0], 2)
            api.answer()
            state.write_text(json.dumps({"oauthAccount": {"accountUuid": "two"}, "numStartups": 2}))
            completes(pump, *held)


def test_a_pause_outlives_the_engine_and_ends_with_engine_stop(made: House, api: Api):
    with made.pump() as pump:
        api.limit(HOUR)
        held = start(pump, api.task)
        wait_for_the_pause(pump, held[0], 1)
        api.answer()
        kept = made.paths.home / "pauses.json"
        until_now(kept.exists, SECONDS, "the file")
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        for kill in (signal.SIGKILL, signal.SIGTERM):
            engine = made.control("status")
            assert engine is not None
            os.kill(engine["pid"], kill)
            until_now(made.engine_is_gone, SECONDS, "the engine's end")
            wait_for_the_pause(pump, held[0], 1)
            assert status_of(pump, held[0])["attempt"] == 1
        assert made.run("engine", "stop").returncode == 0
        completes(pump, *held)
        assert not kept.exists()


def test_engine_stop_ends_a_pause_where_no_engine_runs(made: House, api: Api):
    with made.pump() as pump:
        api.limit(HOUR)
        [held] = start(pump, api.task)
        wait_for_the_pause(pump, held, 1)
    until_now((made.paths.home / "pauses.json").exists, SECONDS, "the file")
    made.kill_engine()
    made.wait_for_the_engine_to_go()
    api.answer()
    assert made.run("engine", "stop").stdout == "No engine runs.\n"
    with made.pump() as pump:
        completes(pump, held)


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    "no JSON": lambda path: path.write_bytes(b"\xff{"),
    "another shape": lambda path: path.write_text('[{"until": "x"}]'),
    "numbers that are no times": lambda path: path.write_text(
        '{"a": [{"until": 1e300, "because": "x"}, {"until": -1, "because": "x"}]}'
    ),
    "nested": lambda path: path.write_text("[" * 60_000),
    "huge": lambda path: os.truncate(os.open(path, os.O_WRONLY | os.O_CREAT), 8 * 1024**3),
    "a pipe": os.mkfifo,
    "a directory": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_of_pauses_that_is_none_keeps_nobody_from_running(made: House, api: Api, damage: str):
    made.paths.home.mkdir(mode=0o700)
    DAMAGES[damage](made.paths.home / "pauses.json")
    with made.pump() as pump:
        completes(pump, *start(pump, api.task))
        # Nor from noting the next limit.
        api.limit(HOUR)
        wait_for_the_pause(pump, start(pump, api.task)[0], 1)


@pytest.mark.parametrize("choice", ["use", "wait"])
def test_usage_beyond_the_limit_is_used_or_waited_for_as_the_setting_says(choice: str):
    with house(CLAUDE_JOBS_EXTRA_USAGE=choice) as made, made.pump() as pump:
        completes(pump, *start(pump, f"stub:replay={_overage(made)}"))
        [after] = start(pump, "stub:say=after")
        if choice == "use":
            completes(pump, after)
        else:
            wait_for_the_pause(pump, after, 1)


def test_extra_usage_that_is_allowed_in_a_pause_ends_the_pause_but_no_other_limit(api: Api, made: House):
    made.paths.home.mkdir(mode=0o700)
    file = made.paths.home / "config.toml"
    file.write_text('extra_usage = "wait"\n')
    with made.pump() as pump:
        completes(pump, *start(pump, f"stub:replay={_overage(made)}"))
        [after] = start(pump, "stub:say=after")
        wait_for_the_pause(pump, after, 1)
        file.write_text('extra_usage = "use"\n')
        completes(pump, after)
        api.limit(HOUR)
        wait_for_the_pause(pump, start(pump, api.task)[0], 1)


def _overage(made: House) -> Path:
    # With an end that a limit can have.
    stream = made.base / "overage.ndjson"
    stream.write_text(re.sub(r'"resetsAt":\d+', f'"resetsAt":{time.time() + HOUR:.0f}', OVERAGE.read_text()))
    return stream


def test_nothing_that_is_kept_or_said_of_a_limit_holds_the_key(made: House, api: Api):
    # A job may write any text.
    api.name = f"five_hour {KEY}"
    with made.pump() as pump:
        api.limit(HOUR)
        [held] = start(pump, api.task)
        until_now(lambda: "paused" in status_of(pump, held), SECONDS, "the pause")
        until_now((made.paths.home / "pauses.json").exists, SECONDS, "the file")
        said = [made.run(*command).stdout for command in (("engine", "status", "--json"), ("doctor",), ("dashboard",))]
        holding = {
            path.name for path in made.paths.home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
        }
    # The environment in which the job runs, for as long as its tree lives, and what the job wrote itself.
    assert holding == {"origin.json", "out"}
    assert not any(KEY in one for one in said)


def test_every_tool_and_command_says_until_when_why_and_how_many_wait(made: House, api: Api):
    with made.pump() as pump:
        api.limit(HOUR)
        batch = pump.json("claude_run_batch_async", tasks=[api.task] * 20)
        first = batch["jobIds"][0]
        wait_for_the_pause(pump, first, 20)
        said = {
            "claude_wait": pump.text("claude_wait", batchId=batch["batchId"], timeoutSeconds=0),
            "claude_status": pump.text("claude_status", jobId=batch["batchId"]),
            "claude_list_jobs": pump.text("claude_list_jobs"),
            "claude_dashboard": pump.text("claude_dashboard"),
            "claude_recursion_stats": pump.text("claude_recursion_stats"),
        }
        for command in (
            ("list",),
            ("tree",),
            ("tree", batch["batchId"]),
            ("status", first),
            ("dashboard",),
            ("doctor",),
            ("engine", "status"),
        ):
            done = made.run(*command)
            said[" ".join(command)] = done.stdout + done.stderr
        for name, text in said.items():
            found = (PAUSED if name.startswith("claude_") else TOLD).search(" ".join(text.split()))
            assert found is not None, (name, text)
            assert found[1] == "20", (name, text)


def test_who_starts_jobs_in_a_pause_is_told_when_they_start(made: House, api: Api):
    with made.pump() as pump, made.pump({"ANTHROPIC_API_KEY": "sk-ant-api03-another-key"}) as other:
        over = pump.json("claude_run_async", task="stub:say=a")["jobId"]
        completes(pump, over)
        api.limit(HOUR)
        [held] = start(pump, api.task)
        wait_for_the_pause(pump, held, 1)
        told = "no job starts before " + status_of(pump, held)["paused"].split()[2] + ": the five-hour limit is reached"
        assert pump.json("claude_run_async", task="x")["paused"] == told
        assert pump.json("claude_run_batch_async", tasks=["x", "y"])["paused"] == told
        assert pump.json("claude_send", jobId=over, task="more")["paused"] == told
        assert "paused" not in other.json("claude_run_async", task="x")


def test_who_waits_for_jobs_is_told_of_the_pause_and_a_model_to_come_back(made: House, api: Api):
    with made.pump() as pump:
        api.limit(HOUR)
        [held] = start(pump, api.task)
        wait_for_the_pause(pump, held, 1)
        reply = pump.json("claude_wait", jobIds=[held], timeoutSeconds=0)
        until = reply["paused"].split()[2]
        assert "end your turn" in reply["next"]
        assert until in reply["next"]
        waiting = {"jobIds": [held], "timeoutSeconds": 1}
        pump.ask("tools/call", name="claude_wait", arguments=waiting, _meta={"progressToken": "t"})
        notes = [told["params"]["message"] for told in pump.told if told["method"] == "notifications/progress"]
        assert PAUSED.search(notes[0]), notes


def test_a_job_that_waits_in_a_pause_makes_one_call_and_not_hundreds(made: House, api: Api):
    with made.pump({"CLAUDE_JOBS_WAIT_SECONDS": "0.2"}) as pump:
        parent = running(pump, pump.json("claude_run_async", task=f"stub:wait={made.base / 'gate'}")["jobId"])
        with pump_of_job(made, attempt_directory(made, parent)) as job:
            api.limit(4.0)
            [child] = job.json("claude_run_batch_async", tasks=[api.task])["jobIds"]
            until_now(lambda: status_of(pump, child).get("waitingFor") == "limit", SECONDS, "the pause")
            assert status_of(pump, child)["waitingBecause"] == "the five-hour limit is reached"
            api.answer()
            resets = status_of(pump, child)["waitingUntil"]
            reply = job.json("claude_wait", jobIds=[child])
            assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) >= resets
            # It goes on, and the next waits are as short as ever.
            while reply["pending"]:
                reply = job.json("claude_wait", jobIds=[child], cursor=reply["cursor"])
            assert status_of(pump, child)["status"] == "completed"


@pytest.mark.parametrize("command", ["run", "batch", "wait", "tree"])
def test_a_command_that_goes_on_says_what_it_waits_for(made: House, api: Api, command: str):
    with made.pump() as pump:
        api.limit(HOUR)
        [held] = start(pump, api.task)
        wait_for_the_pause(pump, held, 1)
    arguments = {
        "run": ["run", api.task],
        "batch": ["batch", api.task],
        "wait": ["wait", held],
        "tree": ["tree", "-f", held],
    }
    log = made.base / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(MAIN), *arguments[command]],
            env=made.environ,
            cwd=made.work,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            until_now(lambda: TOLD.search(log.read_text()) is not None, SECONDS, f"words of {command}")
        finally:
            process.kill()
            process.wait()


def test_a_result_that_waits_for_a_limit_says_until_when_and_why(made: House, api: Api):
    with made.pump() as pump:
        api.limit(HOUR)
        [held] = start(pump, api.task)
        wait_for_the_pause(pump, held, 1)
        words = pump.refusal("claude_result", jobId=held)
    assert words.startswith("Job error: Job is still running (queued); paused until ")
    assert PAUSED.search(words)
    refused = made.run("result", held)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert TOLD.search(refused.stderr)
    assert f"Run `claude-jobs wait {held}`" in refused.stderr


def test_of_a_storm_of_overload_a_person_hears_once(made: House):
    script, tries = made.base / "overloaded", made.base / "tries"
    frame = json.dumps(_result("API Error: 529 Overloaded", is_error=True, api_error_status=529))
    script.write_text(
        f"#!/bin/sh\necho try >>{tries}\nif [ \"$(wc -l <{tries})\" -lt 4 ]; then\necho '{frame}'; exit 1\n"
        f'fi\nexec {SHELL_STUB} "$@"\n'
    )
    script.chmod(0o755)
    done = made.run("batch", "stub:say=calm", CLAUDE_JOBS_CLI=str(script))
    assert done.returncode == 0, done.stderr
    assert tries.read_text().count("try") >= 4
    assert done.stderr.count("because the API answered") == 1, done.stderr


def test_a_cancelled_job_is_not_called_cancelled_twice(made: House):
    with made.pump() as pump:
        job_id = pump.json("claude_run_async", task="stub:wait=/nonexistent")["jobId"]
        pump.json("claude_kill_job", jobId=job_id)
        pump.settled(job_id)
        words = pump.refusal("claude_result", jobId=job_id)
    # The older server's callers match on its first words.
    assert words.startswith("Job error: Job cancelled: It was cancelled")
