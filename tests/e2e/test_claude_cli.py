"""What `jobs.claude` relies on, held against the shipped binary: launched by our own code, answered by a script."""

import json
import signal
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.claude.binary import CliFeatures, ask_version, features_of
from jobs.claude.command import Command, LaunchContext, McpServer, build
from jobs.claude.ndjson import OutputTail
from jobs.claude.outcome import OutcomeReader
from jobs.model import JobStatus, Outcome, Reason
from jobs.processes.attempt_dir import SERVERS, AttemptDirectory
from jobs.processes.kill import Reaper, Target, find_processes
from jobs.processes.process import Process, launch
from jobs.processes.process_table import process_table
from jobs.processes.spawning import DirectSpawner
from jobs.spec import JobSpec
from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.support import SYSTEM_PATH

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

Serve = Callable[[Story], ScriptedApi]
TOKEN = "cj1_this-must-stand-nowhere"
HELLO = Story.model_validate({"default": "x", "roles": {"x": [{"text": "Hello."}]}})


class Bench:
    """A home, a project and the real binary, for attempts one after the other."""

    def __init__(self, cli: Path, features: CliFeatures, api: ScriptedApi, root: Path) -> None:
        self.cli, self.api, self.root = cli, api, root
        self.home, self.work = root / "home", root / "work"
        self.home.mkdir()
        self.work.mkdir()
        self.marker = f"e2e:{uuid.uuid4().hex}"
        self.attempts = 0
        self.features = features

    def command(self, task: str, *, session: str | None = None, continues: str | None = None, **fields: Any) -> Command:
        launch_context = LaunchContext(
            cli=str(self.cli),
            features=self.features,
            servers_file=str(self.attempt_directory(self.attempts + 1) / SERVERS),
            session_id=session or str(uuid.uuid4()),
            continues=continues,
            server=McpServer(command="/bin/false"),
            token=TOKEN,
            client_env=isolated_environment(self.home, self.api.url, path=SYSTEM_PATH),
            marker=self.marker,
        )
        return build(JobSpec(task=task, cwd=str(self.work), **fields), launch_context)

    def attempt_directory(self, number: int) -> Path:
        return self.root / "attempts" / str(number)

    async def start(self, command: Command) -> Process:
        self.attempts += 1
        directory = AttemptDirectory.create(self.attempt_directory(self.attempts))
        return await launch(directory, command, str(self.work), DirectSpawner())

    async def run(self, command: Command) -> Outcome:
        process = await self.start(command)
        with anyio.fail_after(90):
            code = await process.wait()
        return await read(process, code)


async def read(process: Process, code: int | None, stop_reason: Reason | None = None) -> Outcome:
    reader = OutcomeReader()
    async for lines in OutputTail(process.directory).rest():
        for line in lines:
            assert line.frame is not None, line.text
            reader.feed(line.frame)
    return reader.conclude(exit_code=code, stderr=process.directory.error_tail(), stop_reason=stop_reason)


@pytest.fixture
def bench(claude_cli: Path, scripted: Serve, tmp_path: Path) -> Callable[[Story], Bench]:
    features = features_of(ask_version(claude_cli, SYSTEM_PATH))
    return lambda story: Bench(claude_cli, features, scripted(story), tmp_path)


async def test_a_job_runs_and_its_token_stands_nowhere_but_in_its_stdin_file(
    bench: Callable[[Story], Bench],
) -> None:
    stand = bench(HELLO)
    outcome = await stand.run(stand.command("Say hello."))
    assert (outcome.reason, outcome.result) == (Reason.COMPLETED, "Hello.")
    assert outcome.usage.turns == 1
    holders = {path.name for path in stand.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()}
    assert holders == {"in"}
    assert not any(TOKEN in json.dumps(request.body) for request in stand.api.requests)


@pytest.mark.parametrize("task", ["/cost", "@/etc/hostname", '--settings={"env":{}}', "-p", "!touch canary"])
async def test_a_task_that_looks_like_a_command_stays_text(bench: Callable[[Story], Bench], task: str) -> None:
    stand = bench(HELLO)
    assert (await stand.run(stand.command(task))).result == "Hello."
    [request] = stand.api.requests
    assert request.conversation.opening == task
    assert list(stand.work.iterdir()) == []


async def test_every_option_that_we_may_pass_is_understood(bench: Callable[[Story], Bench]) -> None:
    stand = bench(HELLO)
    command = stand.command(
        "x",
        model="sonnet",
        effort="low",
        permission_mode="default",
        max_budget_usd=1.0,
        allowed_tools=("Read", "Bash(git *)"),
        disallowed_tools=("WebFetch",),
        append_system_prompt="--settings={} is text",
    )
    assert (await stand.run(command)).reason is Reason.COMPLETED
    [request] = stand.api.requests
    assert "--settings={} is text" in json.dumps(request.body["system"])
    assert {"WebFetch", "Task", "SendMessage", "ScheduleWakeup"}.isdisjoint(request.tool_names)
    assert "Read" in request.tool_names


def played(*turns: Mapping[str, Any]) -> Story:
    return Story.model_validate({"default": "x", "roles": {"x": turns}})


async def test_an_answer_that_was_cut_off_at_its_most_tokens_is_whole(bench: Callable[[Story], Bench]) -> None:
    cut = {"text": "Once upon ", "stop_reason": "max_tokens"}
    stand = bench(played(cut, {"text": "a time."}))
    outcome = await stand.run(stand.command("x"))
    # The CLI itself reports the last part alone.
    assert (outcome.reason, outcome.result) == (Reason.COMPLETED, "Once upon a time.")
    assert "cut off and resumed" in outcome.detail


async def test_a_turn_that_the_api_paused_is_no_answer(bench: Callable[[Story], Bench]) -> None:
    stand = bench(played({"text": "I search.", "stop_reason": "pause_turn"}))
    assert (await stand.run(stand.command("x"))).reason is Reason.INTERRUPTED


async def test_a_context_that_is_full_is_told_from_an_answer_that_is_too_long(bench: Callable[[Story], Bench]) -> None:
    stand = bench(played({"text": "Half", "stop_reason": "model_context_window_exceeded"}))
    assert (await stand.run(stand.command("x"))).reason is Reason.PROMPT_TOO_LONG


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("UserPromptSubmit", "without a turn of the model. Operation stopped by hook: enough"),
        ("PostToolUse", "A hook of the settings stopped the work before its end."),
    ],
)
async def test_what_a_persons_hook_stops_is_no_answer(bench: Callable[[Story], Bench], event: str, told: str) -> None:
    call = {"name": "Bash", "input": {"command": "echo hi", "description": "greet"}}
    stand = bench(played({"text": "I look.", "tool_calls": [call]}, {"text": "Never said."}))
    stop = {"type": "command", "command": """echo '{"continue": false, "stopReason": "enough"}'"""}
    settings = stand.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"hooks": {event: [{"hooks": [stop]}]}}))
    outcome = await stand.run(stand.command("x", allowed_tools=("Bash(echo *)",)))
    assert (outcome.reason, outcome.result) == (Reason.INTERRUPTED, None)
    assert told in outcome.detail


async def test_a_session_is_resumed_forked_and_counted_by_attempt(bench: Callable[[Story], Bench]) -> None:
    usage = {"input_tokens": 100, "output_tokens": 10}
    stand = bench(Story.model_validate({"default": "x", "roles": {"x": [{"text": "Hello.", "usage": usage}]}}))
    session, copy = str(uuid.uuid4()), str(uuid.uuid4())
    first = await stand.run(stand.command("One.", session=session))
    again = await stand.run(stand.command("Two.", session=session, continues=session))
    forked = await stand.run(stand.command("Three.", session=copy, continues=session))
    assert [one.usage.input_tokens for one in (first, again, forked)] == [100, 100, 100]
    assert first.usage.cost_usd == pytest.approx(again.usage.cost_usd)
    assert [one.frame and one.frame["session_id"] for one in (first, again, forked)] == [session, session, copy]


async def test_a_session_that_is_not_there_and_one_in_use_are_told_apart(bench: Callable[[Story], Bench]) -> None:
    stand = bench(HELLO)
    session = str(uuid.uuid4())
    missing = await stand.run(stand.command("x", session=session, continues=session))
    assert missing.reason is Reason.NO_SESSION
    assert (await stand.run(stand.command("x", session=session))).reason is Reason.COMPLETED
    assert (await stand.run(stand.command("x", session=session))).reason is Reason.SESSION_IN_USE


async def test_a_job_that_is_cancelled_in_a_tool_leaves_nothing(bench: Callable[[Story], Bench]) -> None:
    ready = "touch ready; (setsid sleep 100 &) ; sleep 100"
    turn = {"tool_calls": [{"name": "Bash", "input": {"command": ready, "description": "wait"}}]}
    stand = bench(Story.model_validate({"default": "x", "roles": {"x": [turn, {"text": "Done."}]}}))
    process = await stand.start(stand.command("x", allowed_tools=("Bash",)))
    with anyio.fail_after(90):
        while not (stand.work / "ready").exists():  # noqa: ASYNC110 - the tool's command makes it
            await anyio.sleep(0.05)
        code = await Reaper().end(process, stand.marker)
    outcome = await read(process, code, stop_reason=Reason.CANCELLED)
    assert (outcome.status, outcome.exit_code) == (JobStatus.CANCELLED, 128 + signal.SIGTERM)
    assert find_processes(process_table(), [Target(marker=stand.marker, shim=process.identity)]) == []
