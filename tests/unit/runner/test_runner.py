"""A job as a process: how each kind of end is settled, what it was given, and what is gone afterwards."""

import errno
import json
import math
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest

from jobs.claude.ndjson import PIECE, Line, LineDecoder, OutputTail
from jobs.errors import DiskFullError, StoreError
from jobs.ids import hash_token
from jobs.maintenance.db_recovery import read_job
from jobs.model import Job, JobStatus, Reason, Tree
from jobs.processes import process as process_module
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.process_table import process_table
from jobs.runner import launch as launcher_module
from jobs.runner import launch_plan as planner_module
from jobs.runner import supervise as supervisor_module
from jobs.runner.manifest import read_end_manifest
from jobs.runner.retry_policy import MAX_REFUSED
from jobs.spec import TASK_PREVIEW, TaskRequest
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from tests.support.noted import shim_of
from tests.support.reachable import names_in
from tests.unit.jobs.support import LONG, QUICK_STUB, TORTURE_STUB, Parts, parts

pytestmark = pytest.mark.anyio

QUICK, TORTURE = {"cli": QUICK_STUB}, {"cli": TORTURE_STUB}


class Build(Protocol):
    """Builds the parts of one engine that starts processes."""

    async def __call__(self, **settings: Any) -> Parts: ...


@pytest.fixture
async def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Build]:
    monkeypatch.setattr(supervisor_module, "TICK", 0.02)
    async with AsyncExitStack() as stack:

        async def built(**settings: Any) -> Parts:
            return await stack.enter_async_context(parts(tmp_path, processes=True, **settings))

        yield built


def recorder(tmp_path: Path, *, then: str = f'exec "{QUICK_STUB}" "$@" <"$0.in"') -> Path:
    """A `claude` that notes its arguments, its input and its environment, a file each a start, and then answers."""
    script = tmp_path / "recorder"
    script.write_text(
        '#!/bin/sh\nn=$(ls "$0".argv.* 2>/dev/null | wc -l)\nprintf "%s\\n" "$@" >"$0.argv.$n"\n'
        f'env >"$0.env.$n"\ncat >"$0.in"\ncp "$0.in" "$0.in.$n"\n{then}\n'
    )
    script.chmod(0o700)
    return script


def message(script: Path, start: int) -> str:
    lines = Path(f"{script}.in.{start}").read_text().splitlines()
    return str(json.loads(lines[1])["message"]["content"])


def attempt_directory(engine: Parts, job: Job, number: int = 1) -> Path:
    return engine.trees / job.root_id / job.id / str(number)


async def appears(path: Path) -> None:
    with anyio.fail_after(LONG):
        while not path.exists():  # noqa: ASYNC110 - another process makes it
            await anyio.sleep(0.01)


async def ends(attempt: Path) -> None:
    """Wait until the shim has noted how `claude` ended."""
    with anyio.fail_after(LONG):
        while AttemptDirectory(attempt).exit_code() is None:  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)


async def speaks(output: Path) -> None:
    """Wait until the process itself has written: the file is there before its program is."""
    with anyio.fail_after(LONG):
        while not (output.exists() and output.stat().st_size):  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)


async def answers(output: Path) -> None:
    """Wait until the model's answer has begun: a process that is lost before has nothing to go on from."""
    with anyio.fail_after(LONG):
        while not (output.exists() and b"message_start" in output.read_bytes()):  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)


async def vanishes(group: int) -> None:
    with anyio.fail_after(LONG):
        while any(entry.group == group for entry in process_table().entries().values()):  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)


async def one(engine: Parts, task: str, **asked: Any) -> Job:
    """Run one job to its end."""
    (found,) = await several(engine, task, **asked)
    return found


async def several(engine: Parts, *tasks: str, **asked: Any) -> list[Job]:
    requests = [TaskRequest(task=task, **asked) for task in tasks]
    ids = await engine.manager.execute_batch_async(requests, client_context=engine.client_context)
    return await engine.over(*ids)


async def test_an_answer_is_stored_with_its_cost_tokens_turns_and_session(build: Build):
    engine = await build()
    job = await one(engine, "stub:say=42 stub:cost=0.25")
    attempt = await engine.store.attempt(job.id, 1)
    assert attempt is not None
    assert (job.status, job.reason, job.attempt, job.excerpt) == (JobStatus.COMPLETED, Reason.COMPLETED, 1, "42")
    assert (job.usage.cost_usd, job.usage.input_tokens, job.usage.output_tokens, job.usage.turns) == (0.25, 10, 20, 1)
    assert (attempt.result, attempt.exit_code, attempt.session_id) == ("42", 0, job.session_id)
    assert attempt.frame is not None
    assert attempt.frame["session_id"] == job.session_id
    assert job.started_at is not None
    assert job.ended_at is not None


ENDS = [
    pytest.param(TORTURE, "stub:do=exit stub:arg=1", JobStatus.FAILED, Reason.STARTUP, "told to fail", id="exits-1"),
    pytest.param(QUICK, "stub:exit=3", JobStatus.FAILED, Reason.UNKNOWN_ERROR, "exited with 3", id="exits-3-later"),
    pytest.param(QUICK, "stub:exit=0", JobStatus.FAILED, Reason.TRUNCATED, "without a result", id="no-result"),
]


@pytest.mark.parametrize(("cli", "task", "status", "reason", "said"), ENDS)
async def test_each_end_has_its_reason_and_an_explanation(
    build: Build, cli: dict, task: str, status: JobStatus, reason: Reason, said: str
):
    engine = await build(**cli)
    job = await one(engine, task)
    assert (job.status, job.reason) == (status, reason)
    assert said in (job.error or "")


async def test_garbage_on_its_output_does_not_hide_the_answer(build: Build):
    engine = await build(**TORTURE)
    job = await one(engine, "stub:do=garbage")
    attempt = await engine.store.attempt(job.id, 1)
    assert job.status is JobStatus.COMPLETED
    assert attempt is not None
    assert attempt.result == "done"


async def test_a_line_of_100_megabytes_does_not_hide_the_answer(build: Build):
    engine = await build(**TORTURE)
    job = await one(engine, "stub:do=bigline")
    decoder = LineDecoder()
    with (attempt_directory(engine, job) / "out").open("rb") as output:
        lines = [line for piece in iter(partial(output.read, PIECE), b"") for line in decoder.feed(piece)]
    assert job.status is JobStatus.COMPLETED
    assert [line.dropped for line in lines if line.dropped] == [100 * 1024 * 1024 + 1]


async def test_a_claude_that_is_missing_fails_the_job_and_says_how_to_get_one(build: Build, tmp_path: Path):
    engine = await build(cli=tmp_path / "no-claude")
    job = await one(engine, "x")
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.STARTUP)
    assert "Correct CLAUDE_JOBS_CLI" in (job.error or "")


@pytest.mark.parametrize("text", ["", "no program\x00", "#!/no/such/interpreter\n"])
async def test_a_claude_that_cannot_be_executed_fails_the_job_and_leaves_no_stdin(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setattr(planner_module, "NOT_EXECUTED_SECONDS", 0.01)
    script = tmp_path / "claude"
    script.write_text(text)
    script.chmod(0o700)
    engine = await build(cli=script)
    job = await one(engine, "x")
    assert job.status is JobStatus.FAILED
    assert not (attempt_directory(engine, job) / "in").exists()


def refusals(monkeypatch: pytest.MonkeyPatch, number: int, times: float) -> None:
    """Let the system refuse so many launches, after the stdin file was written."""
    launch, left = process_module.launch, [times]

    async def refuse(directory: Any, command: Any, *arguments: Any, **more: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            directory.create(directory.path)
            directory.write_note("in", command.stdin)
            raise OSError(number, os.strerror(number))
        return await launch(directory, command, *arguments, **more)

    monkeypatch.setattr(launcher_module, "launch", refuse)


async def end_noted(directory: Path) -> None:
    """Wait for what is written beside an attempt's files once its end is in the store."""
    with anyio.fail_after(60):
        while read_end_manifest(AttemptDirectory(directory)) is None:  # noqa: ASYNC110 - it sets no event
            await anyio.sleep(0.01)


async def pass_pauses(engine: Parts) -> None:
    """Let no pause last, as the engine's poke finds it over."""
    while True:
        engine.clock.moved += 60
        engine.scheduler.reschedule()
        await anyio.sleep(0.01)


HASH = re.compile("[0-9a-f]{64}")
"""How a store keeps a token."""


async def test_a_refused_launch_leaves_no_stdin_and_no_token(build: Build, monkeypatch: pytest.MonkeyPatch):
    engine = await build()
    refusals(monkeypatch, errno.E2BIG, math.inf)
    job = await one(engine, "x")
    assert (job.status, job.reason, job.attempt) == (JobStatus.FAILED, Reason.STARTUP, 1)
    assert os.strerror(errno.E2BIG) in (job.error or "")
    directory = attempt_directory(engine, job)
    await end_noted(directory)
    assert {path.name for path in directory.iterdir()} == {"job.json"}
    assert not [name for name in names_in(engine.store) if HASH.fullmatch(name)]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EMFILE])
async def test_a_system_that_starts_no_process_for_a_while_fails_no_job(
    build: Build, monkeypatch: pytest.MonkeyPatch, number: int
):
    engine = await build(max_starting=2)
    refusals(monkeypatch, number, 3)
    ids = await engine.run(*["x"] * 5)
    await engine.reaches(ids[0], JobStatus.RUNNING)
    first = await engine.reaches(ids[0], JobStatus.QUEUED)
    assert (first.status, first.reason) == (JobStatus.QUEUED, Reason.STARTUP)
    pause = engine.throttle.machine.pause
    assert pause is not None
    assert os.strerror(number) in pause.because
    engine.group.start_soon(pass_pauses, engine)
    assert {job.status for job in await engine.over(*ids)} == {JobStatus.COMPLETED}


async def test_a_system_that_starts_no_process_for_long_fails_the_job(build: Build, monkeypatch: pytest.MonkeyPatch):
    engine = await build()
    refusals(monkeypatch, errno.EAGAIN, math.inf)
    engine.group.start_soon(pass_pauses, engine)
    job = await one(engine, "x")
    assert (job.status, job.reason, job.attempt) == (JobStatus.FAILED, Reason.STARTUP, MAX_REFUSED + 1)


class FullAtTheLaunch(MemoryStore):
    """A database whose disk is full for a moment while a launch is prepared."""

    full = True

    async def task(self, job_id: str) -> str | None:
        if self.full:
            self.full = False
            raise DiskFullError("read the task")
        return await super().task(job_id)


async def test_a_storage_that_fails_for_a_moment_during_a_launch_fails_no_job(build: Build):
    engine = await build(store=FullAtTheLaunch())
    job = await one(engine, "x" * (TASK_PREVIEW + 1))
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)


async def test_a_job_that_has_spoken_lets_the_next_one_start_though_nobody_looks_at_the_gate(build: Build):
    engine = await build(max_starting=1)
    ids = await engine.run(*[f"stub:wait={engine.work}/go"] * 4)
    for job_id in ids:
        await engine.reaches(job_id, JobStatus.RUNNING)
    (engine.work / "go").touch()
    assert {job.status for job in await engine.over(*ids)} == {JobStatus.COMPLETED}


async def test_a_task_with_half_a_character_as_a_jobs_answer_may_bring_runs(build: Build):
    engine = await build()
    job = await one(engine, "look at \ud83d")
    assert (job.status, job.spec.task) == (JobStatus.COMPLETED, "look at ?")


async def test_a_working_directory_that_vanished_fails_the_job(build: Build):
    engine = await build(max_running=1)
    gone = engine.work / "gone"
    gone.mkdir()
    first, *_ = await engine.run(f"stub:wait={engine.work}/go")
    await engine.reaches(first, JobStatus.RUNNING)
    (job_id,) = await engine.manager.execute_batch_async(
        [TaskRequest(task="x", cwd=str(gone))], client_context=engine.client_context
    )
    gone.rmdir()
    (engine.work / "go").touch()
    (job,) = await engine.over(job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.STARTUP)


async def test_an_environment_that_is_lost_fails_the_job_and_not_the_engine(build: Build, tmp_path: Path):
    engine = await build(max_running=1)
    first, second = await engine.run(f"stub:wait={engine.work}/go", "x")
    job = await engine.reaches(first, JobStatus.RUNNING)
    await speaks(attempt_directory(engine, job) / "out")
    engine.client_contexts.forget(job.root_id)
    (engine.work / "go").touch()
    _, lost = await engine.over(first, second)
    assert (lost.status, lost.reason) == (JobStatus.FAILED, Reason.STARTUP)
    assert "client's environment" in (lost.error or "")


async def test_a_job_beyond_its_time_is_ended_even_if_it_ignores_the_request(build: Build):
    engine = await build(**TORTURE)
    job = await one(engine, "stub:do=ignoreterm", timeout_seconds=0.3)
    assert (job.status, job.reason) == (JobStatus.TIMEOUT, Reason.DEADLINE)


async def test_a_job_that_never_stops_writing_is_ended_at_its_time(build: Build, monkeypatch: pytest.MonkeyPatch):
    class Endless(OutputTail):
        """There is always more while the process lives."""

        async def read(self) -> list[Line] | None:
            await anyio.lowlevel.checkpoint()
            return [] if self._directory.lock_held() else None

    monkeypatch.setattr(launcher_module, "OutputTail", Endless)
    engine = await build(**TORTURE)
    job = await one(engine, "stub:do=silent", timeout_seconds=0.3)
    assert (job.status, job.reason) == (JobStatus.TIMEOUT, Reason.DEADLINE)


async def is_watched(engine: Parts, job_id: str) -> None:
    """Wait until the job's time is counted: that begins with its process, a little after it is said to run."""
    with anyio.fail_after(LONG):
        while not await has_process(engine, job_id):  # noqa: ASYNC110 - nothing tells
            await anyio.sleep(0.01)


async def has_process(engine: Parts, job_id: str) -> bool:
    attempt = await engine.store.attempt(job_id, (await engine.job(job_id)).attempt)
    return attempt is not None and attempt.pid is not None


async def test_time_that_passed_on_the_clock_counts_and_not_the_number_of_looks(build: Build):
    engine = await build()
    (job_id,) = await engine.run(f"stub:wait={engine.work}/never")
    await is_watched(engine, job_id)
    engine.clock.moved = 1801.0
    (job,) = await engine.over(job_id)
    assert (job.status, job.reason) == (JobStatus.TIMEOUT, Reason.DEADLINE)


@pytest.mark.parametrize("set_by", [86_400.0, -86_400.0])
async def test_setting_the_time_of_day_neither_ends_a_job_early_nor_lets_it_run_on(build: Build, set_by: float):
    engine = await build()
    patient, late = await engine.run(f"stub:wait={engine.work}/go", f"stub:wait={engine.work}/never")
    for job_id in (patient, late):
        await is_watched(engine, job_id)
    engine.clock.set_by = set_by
    (engine.work / "go").touch()
    (job,) = await engine.over(patient)
    assert (job.status, (await engine.job(late)).status) == (JobStatus.COMPLETED, JobStatus.RUNNING)
    engine.clock.moved = 1801.0
    (job,) = await engine.over(late)
    assert (job.status, job.reason) == (JobStatus.TIMEOUT, Reason.DEADLINE)


@pytest.mark.parametrize("do", ["silent", "ignoreterm"])
async def test_a_cancelled_job_is_ended_and_its_siblings_go_on(build: Build, tmp_path: Path, do: str):
    engine = await build(**TORTURE)
    cancelled, sibling = await engine.run(f"stub:do={do} stub:ready={tmp_path}/ready", "stub:sleep=0.3")
    await appears(tmp_path / "ready")
    await engine.manager.cancel(cancelled)
    ended, beside = await engine.over(cancelled, sibling)
    assert (ended.status, ended.reason) == (JobStatus.CANCELLED, Reason.CANCELLED)
    assert beside.status is JobStatus.COMPLETED


async def test_a_cancel_between_the_claim_and_the_launch_is_not_lost(build: Build, monkeypatch: pytest.MonkeyPatch):
    engine = await build()
    launch = process_module.launch

    async def cancelled_meanwhile(directory: Any, command: Any, *arguments: Any, **more: Any) -> Any:
        (job,) = await engine.store.unfinished()
        await engine.manager.cancel(job.id)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        return await launch(directory, command, *arguments, **more)

    monkeypatch.setattr(launcher_module, "launch", cancelled_meanwhile)
    job = await one(engine, f"stub:wait={engine.work}/never")
    assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.CANCELLED)


class CancellingStore(LiveStore):
    """Cancels a job after its claim, when its tree is read for the launch."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())

    async def tree(self, root_id: str) -> Tree | None:
        for job in await self.unfinished():
            if job.status is JobStatus.RUNNING:
                await self.cancel_under(job.path, at=1.0)
        return await super().tree(root_id)


async def test_a_job_that_is_cancelled_after_its_claim_starts_no_process(build: Build, tmp_path: Path):
    cli = recorder(tmp_path)
    engine = await build(cli=cli, store=CancellingStore())
    job = await one(engine, "x")
    assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.CANCELLED)
    assert list(tmp_path.glob("recorder.*")) == []


async def test_a_long_task_reaches_the_process_whole_and_its_directory_can_bring_it_back(build: Build, tmp_path: Path):
    cli = recorder(tmp_path)
    engine = await build(cli=cli)
    task = f"{'ü' * 300_000} the end"
    job = await one(engine, task)
    [directory] = engine.trees.glob(f"*/{job.id}")
    await end_noted(directory / "1")
    found = read_job(directory)
    assert task in json.loads((tmp_path / "recorder.in.0").read_text().splitlines()[1])["message"]["content"]
    assert (len(job.spec.task), job.spec.task_chars) == (TASK_PREVIEW, len(task))
    assert found is not None
    assert (found.job.spec.task, found.job.status) == (task, JobStatus.COMPLETED)


async def test_a_process_that_a_signal_killed_is_resumed_and_its_siblings_go_on(build: Build):
    engine = await build()
    killed, sibling = await engine.run(f"stub:wait={engine.work}/never", "stub:sleep=0.3")
    job = await engine.reaches(killed, JobStatus.RUNNING)
    await answers(attempt_directory(engine, job) / "out")
    shim = shim_of(attempt_directory(engine, job))
    os.killpg(shim, signal.SIGTERM)
    ended, beside = await engine.over(killed, sibling)
    assert (ended.status, ended.attempt) == (JobStatus.COMPLETED, 2)
    first = await engine.store.attempt(killed, 1)
    assert first is not None
    assert (first.status, first.reason) == (JobStatus.QUEUED, Reason.LOST)
    assert beside.status is JobStatus.COMPLETED


async def test_a_failing_job_of_each_kind_leaves_its_siblings_undisturbed(build: Build):
    engine = await build(**TORTURE)
    tasks = ["stub:do=exit", "stub:do=garbage", "stub:do=ignoreterm", "stub:do=daemon", "stub:say=fine"]
    pids = f"stub:pids={engine.work}/pids"
    ids = await engine.run(*[f"{task} {pids}" for task in tasks])
    await engine.over(*ids[:2], *ids[3:])
    engine.clock.moved = 1801.0
    jobs = await engine.over(*ids)
    assert [job.reason for job in jobs] == [
        Reason.STARTUP,
        Reason.COMPLETED,
        Reason.DEADLINE,
        Reason.COMPLETED,
        Reason.COMPLETED,
    ]
    assert jobs[-1].excerpt == "fine"


async def test_the_token_is_good_while_the_job_runs_and_its_file_goes_with_it(build: Build):
    engine = await build()
    (job_id,) = await engine.run(f"stub:wait={engine.work}/go")
    job = await engine.reaches(job_id, JobStatus.RUNNING)
    stdin = attempt_directory(engine, job) / "in"
    await speaks(attempt_directory(engine, job) / "out")
    token = json.loads(stdin.read_text().splitlines()[0])["claude_jobs_token"]
    holder = await engine.store.caller(hash_token(token))
    assert holder is not None
    assert holder.id == job_id
    (engine.work / "go").touch()
    await engine.over(job_id)
    assert await engine.store.caller(hash_token(token)) is None
    with anyio.fail_after(LONG):
        while stdin.exists():  # noqa: ASYNC110 - it goes after the outcome is announced
            await anyio.sleep(0.01)
    assert token not in repr(vars(engine.store))


async def test_a_job_has_its_clients_environment_and_nothing_of_the_engines(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SECRET_OF_THE_ENGINE", "1")
    monkeypatch.setenv("CLAUDE_JOBS_HOME", "/nonexistent")
    script = recorder(tmp_path)
    engine = await build(cli=script)
    job = await one(engine, "x")
    found = dict(line.split("=", 1) for line in Path(f"{script}.env.0").read_text().splitlines())
    marker = found.pop("CLAUDE_JOBS_JOB")
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    ours = {
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_BUNDLED_SKILLS": "1",
        "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT": "0",
        "CLAUDE_CODE_MAX_RETRIES": "3",
    }
    assert {name: value for name, value in found.items() if name not in of_the_shell} == {**engine.client_env, **ours}
    assert marker.endswith(f":{job.id}:1")
    assert found["PWD"] == str(engine.work)


async def test_a_job_is_told_who_it_is_before_its_task_and_how_to_reach_the_engine(build: Build, tmp_path: Path):
    script = recorder(tmp_path)
    engine = await build(cli=script)
    job = await one(engine, "do the work")
    words = message(script, 0)
    assert words.startswith(f"[claude-jobs] You are job {job.id}")
    assert words.endswith("\n\ndo the work")
    first = json.loads(Path(f"{script}.in.0").read_text().splitlines()[0])
    server = first["request"]["mcpServers"]["claude-jobs"]
    assert (server["command"], server["args"]) == (
        "claude-jobs",
        ["mcp", "--job", str(attempt_directory(engine, job))],
    )
    assert f"--session-id={job.session_id}" in Path(f"{script}.argv.0").read_text().splitlines()


def kill_everything(directory: Path) -> None:
    os.killpg(shim_of(directory), signal.SIGKILL)


async def test_a_lost_attempt_is_resumed_once_in_its_session_and_told_so(build: Build, tmp_path: Path):
    script = recorder(tmp_path)
    engine = await build(cli=script)
    (job_id,) = await engine.run(f"stub:wait={engine.work}/never")
    job = await engine.reaches(job_id, JobStatus.RUNNING)
    await answers(attempt_directory(engine, job) / "out")
    kill_everything(attempt_directory(engine, job))
    (ended,) = await engine.over(job_id)
    first, second = [await engine.store.attempt(job_id, number) for number in (1, 2)]
    assert first is not None
    assert second is not None
    assert (ended.status, ended.attempt) == (JobStatus.COMPLETED, 2)
    assert (first.status, first.reason) == (JobStatus.QUEUED, Reason.LOST)
    assert first.session_id == second.session_id
    assert f"--resume={first.session_id}" in Path(f"{script}.argv.1").read_text().splitlines()
    assert message(script, 1).startswith("[claude-jobs] You were cut off.")


async def test_a_job_that_is_lost_again_and_again_fails_in_the_end(build: Build, tmp_path: Path):
    script = recorder(tmp_path, then="kill -9 -$(ps -o pgid= -p $$ | tr -d ' ')")
    engine = await build(cli=script)
    job = await one(engine, "x")
    assert (job.status, job.reason, job.attempt) == (JobStatus.FAILED, Reason.LOST, 2)


LOST = "kill -9 -$(ps -o pgid= -p $$ | tr -d ' ')"


async def test_a_job_that_was_lost_before_the_model_answered_begins_anew(build: Build, tmp_path: Path):
    script = recorder(tmp_path, then=f'[ $n = 0 ] && {LOST}\nexec "{QUICK_STUB}" "$@" <"$0.in"')
    engine = await build(cli=script)
    job = await one(engine, "the task itself")
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    assert message(script, 1).endswith("the task itself")
    sessions = {found.session_id for n in (1, 2) if (found := await engine.store.attempt(job.id, n))}
    assert len(sessions) == 2


async def test_a_job_whose_session_is_gone_begins_anew(build: Build, tmp_path: Path):
    answered = '{"type":"assistant","message":{"id":"m1","model":"stub","usage":{"input_tokens":1},"content":[]}}'
    unknown = (
        '{"type":"result","subtype":"error_during_execution","is_error":true,"num_turns":0,"total_cost_usd":0,'
        '"errors":["No conversation found with session ID: x"]}'
    )
    script = recorder(
        tmp_path,
        then=f"case $n in 0) echo '{answered}'; {LOST};; 1) echo '{unknown}'; exit 1;; "
        f'*) exec "{QUICK_STUB}" "$@" <"$0.in";; esac',
    )
    engine = await build(cli=script)
    job = await one(engine, "the task itself")
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 3)
    assert message(script, 2).endswith("the task itself")
    sessions = {found.session_id for n in (1, 2, 3) if (found := await engine.store.attempt(job.id, n))}
    assert len(sessions) == 2


async def test_a_job_that_puts_a_directory_in_its_stdins_place_is_swept_all_the_same(build: Build, tmp_path: Path):
    left = tmp_path / "left"
    daemon = f"setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $! >{left}"
    script = recorder(tmp_path, then=f'{daemon}\nexec "{QUICK_STUB}" "$@" <"$0.in"')
    engine = await build(cli=script)
    (job_id,) = await engine.run(f"stub:wait={engine.work}/go")
    job = await engine.reaches(job_id, JobStatus.RUNNING)
    await answers(attempt_directory(engine, job) / "out")
    stdin = attempt_directory(engine, job) / "in"
    stdin.unlink()
    stdin.mkdir()
    (engine.work / "go").touch()
    (job,) = await engine.over(job_id)
    assert job.status is JobStatus.COMPLETED
    await vanishes(int(left.read_text()))


class NoPids(MemoryStore):
    """A database that is full at the moment of a launch."""

    async def record_launch(self, job_id: str, attempt: int, *, pid: int, pid_start: float) -> None:
        raise StoreError("record a launch", "the disk is full")


async def test_a_process_that_cannot_be_recorded_is_followed_all_the_same(build: Build):
    engine = await build(store=NoPids())
    assert (await one(engine, "x")).status is JobStatus.COMPLETED


async def test_a_job_that_opens_its_directory_to_others_is_cancelled_like_any_other(build: Build, tmp_path: Path):
    engine = await build(**TORTURE)
    (job_id,) = await engine.run(f"stub:do=silent stub:ready={tmp_path}/ready")
    await appears(tmp_path / "ready")
    job = await engine.job(job_id)
    directory = attempt_directory(engine, job)
    shim = shim_of(directory)
    directory.chmod(0o755)
    await engine.manager.cancel(job_id)
    (ended,) = await engine.over(job_id)
    assert (ended.status, ended.reason) == (JobStatus.CANCELLED, Reason.CANCELLED)
    assert "it is private again" in (ended.error or "")
    await vanishes(shim)


@pytest.mark.parametrize(
    ("task", "status"), [("stub:say=kept", JobStatus.COMPLETED), ("stub:exit=0", JobStatus.FAILED)]
)
async def test_an_answer_is_kept_though_the_directory_belongs_to_another_user_by_now(
    build: Build, monkeypatch: pytest.MonkeyPatch, task: str, status: JobStatus
):
    engine = await build()
    (job_id,) = await engine.run(f"stub:wait={engine.work}/go {task}")
    job = await engine.reaches(job_id, JobStatus.RUNNING)
    await answers(attempt_directory(engine, job) / "out")

    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    (engine.work / "go").touch()
    (over,) = await engine.over(job_id)
    assert over.status is status
    assert f"belongs to user {mine}" in (over.error or "")
