"""Each setting, set to a value that changes something, and what it changes as a user sees it.

A setting that has no case here, or in a test that is named here, fails the walk at the end.
"""

import json
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from tests.support.engines import ROOT, House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

SECONDS = 60.0
HOLD = "stub:wait=/nonexistent"

TELLING = f"""#!{sys.executable} -IS
# A `claude` that answers with how it was started, and does what its task says.
import json, os, signal, sys, time
if "--version" in sys.argv:
    print("2.1.330 (Claude Code)")
    sys.exit()
initialize, message = json.loads(sys.stdin.readline()), json.loads(sys.stdin.readline())
do, _, path = message["message"]["content"].split()[-1].partition("=")
def note(*_):
    time.sleep(4)
    open(path, "w").close()
    sys.exit()
if do == "slow-end":
    signal.signal(signal.SIGTERM, note)
    open(path + ".ready", "w").close()
    time.sleep(100)
if do == "silent-until":
    open(path + ".started", "a").write("x")
    while not os.path.exists(path): time.sleep(0.05)
if do == "chatter":
    sys.stderr.write("x" * 300_000)
    sys.stderr.flush()
    time.sleep(100)
told = {{"argv": sys.argv, "env": sorted(os.environ), "servers": initialize["request"].get("mcpServers", {{}})}}
frame = {{"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "total_cost_usd": 0}}
print(json.dumps(frame | {{"usage": {{}}, "session_id": "S", "result": json.dumps(told)}}), flush=True)
if do == "stay":
    time.sleep(100)
"""


class Lived:
    """A house with a running engine, and a client in it.

    Args:
        made: The house.
        pump: The client.
    """

    def __init__(self, made: House, pump: Pump) -> None:
        self.made = made
        self.pump = pump
        self.telling = made.base / "telling"
        self.telling.write_text(TELLING)
        self.telling.chmod(0o755)

    def configured(self, **settings: Any) -> None:
        """Write the settings file, and return once the engine has read it."""
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items() if not isinstance(value, dict)]
        for name, tables in settings.items():
            if isinstance(tables, dict):
                lines += [f"[{name}.{key}]\ncommand = {json.dumps(value)}\n" for key, value in tables.items()]
        self.made.paths.config.write_text("".join(lines))
        self.made.run("settings")

    def told(self, task: str = "tell", *, environ: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
        """How the `claude` of a job was started, for a client with further variables."""
        with self.made.pump({"CLAUDE_JOBS_CLI": str(self.telling), **(environ or {})}) as pump:
            said = pump.text("claude_run", task=task, outputFormat="text", **arguments)
        found: dict[str, Any] = json.loads(said)
        return found

    def start(self, task: str, **environ: str) -> str:
        """Start one job for a client with further variables and return its id."""
        with self.made.pump({"CLAUDE_JOBS_CLI": str(self.telling), **environ}) as pump:
            return str(pump.json("claude_run_async", task=task)["jobId"])

    def status(self, job_id: str) -> str:
        return str(self.pump.json("claude_status", jobId=job_id)["status"])

    def is_running(self, job_id: str) -> None:
        until_now(lambda: self.status(job_id) == "running", SECONDS, "the start of a job")

    def kill(self, *ids: str) -> None:
        for one in ids:
            self.pump.json("claude_kill_job", jobId=one)


@pytest.fixture(scope="module")
def lived() -> Iterator[Lived]:
    """An engine whose settings are the defaults but for what it reads at its start only."""
    limits = {"MAX_DEPTH": "1", "MAX_CHILDREN": "2", "MAX_JOBS": "2", "MAX_CONCURRENT": '{"0": 5, "1": 1}'}
    other = {"MAX_RUNNING": "2", "GRACE_SECONDS": "0.2", "PERMISSION_REQUESTS": "person"}
    environ = {f"CLAUDE_JOBS_{name}": value for name, value in (limits | other).items()}
    with house(**environ) as made, made.pump() as pump:
        yield Lived(made, pump)


@pytest.fixture(autouse=True)
def defaults(lived: Lived) -> Iterator[None]:
    yield
    if lived.made.paths.config.exists():
        lived.made.paths.config.unlink()
        lived.made.run("settings")


@pytest.fixture
def another() -> Iterator[Callable[..., Lived]]:
    """Returns a function that makes a house whose engine has further settings, one a test."""
    houses: list[Any] = []

    def make(**settings: str) -> Lived:
        context = house(**{f"CLAUDE_JOBS_{name.upper()}": value for name, value in settings.items()})
        made = context.__enter__()
        client = made.pump()
        houses.extend((context, client))
        return Lived(made, client.__enter__())

    yield make
    for context in reversed(houses):
        context.__exit__(None, None, None)


def test_home(lived: Lived):
    assert (Path(lived.made.environ["CLAUDE_JOBS_HOME"]) / "jobs.db").exists()
    assert list(Path(lived.made.environ["HOME"]).iterdir()) == []


def test_cli(lived: Lived):
    assert lived.told()["argv"][0] == str(lived.telling)
    assert lived.pump.text("claude_run", task="stub:say=the-other", outputFormat="text") == "the-other"


def test_max_depth_and_max_children_and_max_jobs(lived: Lived):
    root = lived.pump.json("claude_run_async", task=HOLD)["jobId"]
    lived.is_running(root)
    refused = lived.pump.refusal
    assert "Too many children for one parent: 3/2" in refused("claude_run_batch", tasks=["a"] * 3, parentJobId=root)
    assert f"Too many total jobs for root {root}: 3/2" in refused("claude_run_batch", tasks=["a"] * 2, parentJobId=root)
    child = lived.pump.json("claude_run_async", task=HOLD, parentJobId=root)["jobId"]
    assert "Recursion depth limit exceeded: 2/1" in refused("claude_run_async", task="c", parentJobId=child)
    lived.kill(root)


def test_max_concurrent(lived: Lived):
    ids = lived.pump.json("claude_run_batch_async", tasks=[HOLD, HOLD])["jobIds"]
    lived.is_running(ids[0])
    lived.pump.json("claude_wait", jobIds=ids, timeoutSeconds=1)
    assert [lived.status(one) for one in ids] == ["running", "queued"]
    lived.kill(*ids)


def test_max_running(lived: Lived):
    ids = [lived.pump.json("claude_run_async", task=HOLD)["jobId"] for _ in range(3)]
    lived.is_running(ids[1])
    lived.pump.json("claude_wait", jobIds=ids, timeoutSeconds=1)
    assert [lived.status(one) for one in ids] == ["running", "running", "queued"]
    lived.kill(*ids)


def test_max_starting(another: Callable[..., Lived]):
    here = another(max_starting="1")
    spoken = here.made.base / "spoken"
    started = here.made.base / "spoken.started"
    ids = [here.start(f"silent-until={spoken}") for _ in range(2)]
    until_now(started.exists, SECONDS, "the first start")
    here.pump.json("claude_wait", jobIds=ids, timeoutSeconds=1)
    assert started.read_text() == "x"
    spoken.touch()
    assert here.pump.settled(ids[1])["status"] == "completed"


def test_memory_floor_bytes(another: Callable[..., Lived]):
    here = another(memory_floor_bytes=str(2**60))
    first, second = (here.pump.json("claude_run_async", task=HOLD)["jobId"] for _ in range(2))
    here.is_running(first)
    here.pump.json("claude_wait", jobIds=[second], timeoutSeconds=1)
    assert here.status(second) == "queued"


@pytest.mark.parametrize("setting", ["TIMEOUT_SECONDS", "TIMEOUT_MULTIPLIER"])
def test_timeout_seconds_and_timeout_multiplier(lived: Lived, setting: str):
    # At depth 1, where the older formula gives 0.3 s.
    with lived.made.pump({f"CLAUDE_JOBS_{setting}": "0.3" if setting == "TIMEOUT_SECONDS" else "0.001"}) as pump:
        [job] = pump.json("claude_run_batch_async", tasks=[HOLD])["jobIds"]
        assert pump.settled(job)["status"] == "timeout"


def test_silence_seconds(lived: Lived):
    lived.configured(silence_seconds=0.5)
    job = lived.pump.json("claude_run_async", task=HOLD)["jobId"]
    assert lived.pump.settled(job)["reason"] == "stalled"


def test_linger_seconds(lived: Lived):
    lived.configured(linger_seconds=0.5)
    began = time.monotonic()
    assert lived.told("stay")
    assert time.monotonic() - began < 60


def test_grace_seconds(lived: Lived):
    path = lived.made.base / "slow"
    job = lived.start(f"slow-end={path}")
    until_now(Path(f"{path}.ready").exists, SECONDS, "the start")
    lived.kill(job)
    lived.pump.settled(job)
    # It needs four seconds to end, fewer than by default.
    assert not path.exists()


def test_max_output_bytes(lived: Lived):
    lived.configured(max_output_bytes=100_000)
    assert lived.pump.settled(lived.start("chatter"))["reason"] == "output_limit"


@pytest.mark.parametrize("setting", ["daily_budget_usd", "monthly_budget_usd"])
def test_daily_budget_usd_and_monthly_budget_usd(lived: Lived, setting: str):
    lived.pump.text("claude_run", task="stub:cost=0.02")
    lived.configured(**{setting: 0.01})
    assert setting in lived.pump.refusal("claude_run_async", task="x")
    lived.configured(**{setting: 1000.0})
    assert lived.pump.text("claude_run", task="stub:say=on", outputFormat="text") == "on"


def test_permission_mode(lived: Lived):
    argv = lived.told(environ={"CLAUDE_JOBS_PERMISSION_MODE": "plan"})["argv"]
    assert "--permission-mode=plan" in argv


def test_pass_environment(lived: Lived):
    mine = {"MY_OWN": "1", "MY_OTHER": "2"}
    assert "MY_OWN" not in lived.told(environ=mine)["env"]
    found = lived.told(environ=mine | {"CLAUDE_JOBS_PASS_ENVIRONMENT": '["MY_OWN"]'})["env"]
    assert ("MY_OWN" in found, "MY_OTHER" in found) == (True, False)


def test_allow_bypass_permissions(lived: Lived):
    asked = {"task": "x", "permissionMode": "bypassPermissions"}
    assert "CLAUDE_ALLOW_BYPASS_PERMISSIONS" in lived.pump.refusal("claude_run", **asked)
    lived.configured(allow_bypass_permissions=True)
    assert "--permission-mode=bypassPermissions" in lived.told(permissionMode="bypassPermissions")["argv"]


def test_mcp_servers(lived: Lived):
    assert "gh" in lived.pump.refusal("claude_run", task="x", mcpServers=["gh"])
    lived.configured(mcp_servers={"gh": "gh-server"})
    assert lived.told(mcpServers=["gh"])["servers"]["gh"]["command"] == "gh-server"


def test_trusted_directories(lived: Lived):
    assert "--setting-sources=user" in lived.told()["argv"]
    lived.configured(trusted_directories=[str(lived.made.work)])
    assert "--setting-sources=user,project,local" in lived.told()["argv"]


def test_enabled_tools(lived: Lived):
    def has_task() -> bool:
        [denied] = [word for word in lived.told()["argv"] if word.startswith("--disallowedTools=")]
        return "Task" not in denied.partition("=")[2].split(",")

    assert not has_task()
    lived.configured(enabled_tools=["Task"])
    assert has_task()


def test_permission_requests(lived: Lived):
    assert "--permission-prompt-tool=mcp__claude-jobs__claude_permit" in lived.told()["argv"]


def test_max_task_chars(lived: Lived):
    lived.configured(max_task_chars=10)
    assert "10" in lived.pump.refusal("claude_run_async", task="eleven chars")


def test_excerpt_chars(lived: Lived):
    lived.configured(excerpt_chars=10)
    answer = "a" * 50
    batch = lived.pump.json("claude_run_batch", tasks=[f"stub:say={answer}", "stub:exit=3"])
    right = "aaaaaaaaa…"
    assert batch["jobs"][0]["excerpt"] == right
    # Why a job failed is told as it is.
    assert "exited with 3" in batch["jobs"][1]["excerpt"]
    waited = lived.pump.json("claude_wait", batchId=batch["batch_id"])
    assert waited["done"][0]["excerpt"] == right
    under = batch["batch_id"]
    listed = {row["jobId"]: row for row in lived.pump.json("claude_list_jobs", under=under)}
    assert listed[batch["job_ids"][0]]["excerpt"] == right
    tree = lived.pump.ask("resources/read", uri=f"tree://{under}")["contents"][0]["text"]
    assert json.loads(tree)["jobs"][0]["excerpt"] == right
    for command in (["wait", batch["job_ids"][0]], ["tree", under]):
        lines = lived.made.run(*command).stdout.splitlines()
        assert [line for line in lines if line.endswith(right)]


def test_result_chars(lived: Lived):
    lived.configured(result_chars=7)
    shown = lived.pump.text("claude_run", task="stub:say=0123456789", outputFormat="text")
    assert shown.startswith("0123456\n\n[characters 0 to 7 of 10")


def test_wait_seconds(lived: Lived):
    lived.configured(wait_seconds=0.3)
    job = lived.pump.json("claude_run_async", task=HOLD)["jobId"]
    began = time.monotonic()
    assert lived.pump.json("claude_wait", jobIds=[job])["pending"] == 1
    assert time.monotonic() - began < 60
    lived.kill(job)


def test_http_port(lived: Lived):
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    lived.configured(http_port=port)
    assert lived.made.run("web", "--no-open").stdout.startswith(f"http://127.0.0.1:{port}/open?")
    # A page that is served already stays where it is.
    lived.configured(http_port=port - 1)
    assert lived.made.run("web", "--no-open").stdout.startswith(f"http://127.0.0.1:{port}/open?")
    lived.made.run("web", "--off")


def test_log_level(lived: Lived):
    def lines() -> list[str]:
        return lived.made.paths.log.read_text().splitlines()

    lived.configured(log_level="ERROR")
    before = len(lines())
    lived.configured(log_level="ERROR", wait_seconds=100)
    assert lines()[before:] == []
    lived.configured(log_level="DEBUG", wait_seconds=100)
    lived.configured(log_level="DEBUG", wait_seconds=90)
    assert any("was read again" in line for line in lines()[before:])


def test_on_end_and_on_attention_and_desktop_notices(lived: Lived):
    ended, asked = lived.made.base / "ended", lived.made.base / "asked"
    lived.configured(on_end=f"cat >{ended}", on_attention=f"cat >{asked}", desktop_notices=True)
    lived.pump.text("claude_run", task="x")
    until_now(lambda: ended.exists() and "tree_ended" in ended.read_text(), SECONDS, "the notice of the end")
    job = lived.pump.json("claude_run_async", task=HOLD)["jobId"]
    directory = attempt_directory(lived.made, running(lived.pump, job))
    with pump_of_job(lived.made, directory) as asker:
        asker.send("tools/call", name="claude_permit", arguments={"tool_name": "Bash", "input": {}})
        until_now(
            lambda: asked.exists() and "permission_wanted" in asked.read_text(), SECONDS, "the notice of a question"
        )
    lived.kill(job)
    found = {one["name"] for one in json.loads(lived.made.run("doctor", "--json").stdout)["findings"]}
    assert {"on_end", "on_attention", "desktop_notices"} <= found


def test_end_jobs_on_stop_and_idle_seconds(another: Callable[..., Lived]):
    here = another()
    here.configured(end_jobs_on_stop=True)
    path = here.made.base / "go"
    job = here.start(f"silent-until={path}")
    until_now(Path(f"{path}.started").exists, SECONDS, "the start")
    here.made.run("engine", "stop")
    # The pump starts the next engine.
    assert here.pump.settled(job)["status"] == "cancelled"
    here.pump.process.kill()
    here.configured(idle_seconds=0.3)
    here.made.wait_for_the_engine_to_go()


@pytest.mark.parametrize("setting", [{"keep_days": "0.5"}, {"keep_bytes": "1"}])
def test_keep_days_and_keep_bytes(another: Callable[..., Lived], setting: dict[str, str]):
    here = another(**setting)
    ids = [here.pump.json("claude_run_async", task="x")["jobId"] for _ in range(2)]
    for job in ids:
        here.pump.settled(job)
    here.made.run("prune")
    assert all(job in here.made.run("list").stdout for job in ids)
    # One of them ended a day ago.
    here.made.run("engine", "stop")
    here.made.wait_for_the_engine_to_go()
    with closing(sqlite3.connect(here.made.paths.database)) as connection, connection:
        connection.execute("UPDATE job SET ended_at = ended_at - 86400 WHERE id = ?", (ids[0],))
    here.made.run("prune")
    listed = here.made.run("list").stdout
    assert [job in listed for job in ids] == [False, True]


ELSEWHERE = {
    "extra_usage": (
        "tests/e2e/test_account_limits.py",
        "test_usage_beyond_the_limit_is_used_or_waited_for_as_the_setting_says",
    ),
    "keep_processes": (
        "tests/fault/test_leftovers.py",
        "test_a_program_that_a_person_wants_to_keep_outlives_its_job_and_nothing_else_does",
    ),
    "permission_seconds": (
        "tests/e2e/test_rights_permissions.py",
        "test_a_question_that_nobody_answers_is_a_no",
    ),
}
"""Settings whose effect needs an account, a daemon or the real Claude, with the test that has it."""


def test_every_setting_has_a_case():
    cases = {name for test in globals() for name in test.removeprefix("test_").split("_and_")}
    assert set(Settings.model_fields) - cases == set(ELSEWHERE)


@pytest.mark.parametrize("setting", ELSEWHERE)
def test_a_case_elsewhere_sets_its_setting(setting: str):
    path, test = ELSEWHERE[setting]
    source = (ROOT / path).read_text()
    assert f"def {test}(" in source
    assert f"CLAUDE_JOBS_{setting.upper()}" in source
