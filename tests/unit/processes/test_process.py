import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from jobs.claude.command import MARKER
from jobs.claude.ndjson import OutputTail
from jobs.claude.outcome import OutcomeReader
from jobs.model import Outcome, Reason
from jobs.processes import fork_server, spawning
from jobs.processes.attempt_dir import AttemptDirectory, AttemptRunningError
from jobs.processes.kill import Reaper
from jobs.processes.process import LaunchError, Process, attach, launch
from jobs.processes.process_table import ProcessIdentity, process_table
from jobs.processes.spawning import DirectSpawner, Order, Started
from tests.unit.claude.support import DIRECTLY, QUICK_STUB, TORTURE_STUB, classify, command, frames, start

pytestmark = pytest.mark.anyio


async def ended(process: Process) -> Outcome:
    with anyio.fail_after(60):
        code = await process.wait()
    directory = process.directory
    return classify(frames(directory.read_output(0, 2**24)), exit_code=code, stderr=directory.error_tail())


async def appearance(path: Path) -> None:
    with anyio.fail_after(60):
        while not path.exists():  # noqa: ASYNC110 - another process makes it
            await anyio.sleep(0.01)


async def beginning(process: Process) -> None:
    """Wait until `claude` is there, of which the shim is written down first."""
    with anyio.fail_after(60):
        while process.directory.claude_pid() is None:  # noqa: ASYNC110 - another process notes it
            await anyio.sleep(0.01)


def living(process: Process) -> bool:
    return process.identity is not None and process.identity.pid in process_table().entries()


@pytest.mark.parametrize("stub", [QUICK_STUB, TORTURE_STUB])
async def test_a_launched_process_runs_to_its_answer(tmp_path: Path, stub: Path) -> None:
    process = await start(tmp_path, 'a task with "quotes", \\ and $HOME stub:say=42 stub:cost=0.5', stub=stub)
    outcome = await ended(process)
    assert (outcome.reason, outcome.result, outcome.usage.cost_usd) == (Reason.COMPLETED, "42", 0.5)
    assert outcome.exit_code == 0


async def test_what_a_process_writes_is_private(tmp_path: Path) -> None:
    await ended(await start(tmp_path, "x"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "attempt").iterdir()}
    assert modes == dict.fromkeys(("in", "out", "err", "lock"), 0o600)


async def test_an_ended_child_is_collected(tmp_path: Path) -> None:
    process = await start(tmp_path, "x")
    await ended(process)
    assert process.identity is not None
    assert not Path(f"/proc/{process.identity.pid}").exists() or sys.platform != "linux"


async def test_the_lock_is_held_while_the_process_lives_and_not_longer(tmp_path: Path) -> None:
    process = await start(tmp_path, f"stub:wait={tmp_path}/go")
    assert process.directory.lock_held()
    (tmp_path / "go").touch()
    assert (await ended(process)).reason is Reason.COMPLETED
    assert not process.directory.lock_held()


async def test_files_that_cannot_be_read_for_a_moment_do_not_make_a_process_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await start(tmp_path, f"stub:wait={tmp_path}/go")
    opened, left = os.open, [0]

    def short(name: Any, *arguments: Any, **more: Any) -> int:
        if name == "lock" and left[0]:
            left[0] -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(name, *arguments, **more)

    (tmp_path / "go").touch()
    with anyio.fail_after(60):
        while process.directory.exit_code() is None:  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.01)
    monkeypatch.setattr(os, "open", short)
    left[0] = 4
    with anyio.fail_after(60):
        assert await process.wait() == 0
    assert not left[0]


async def test_an_attempt_that_runs_is_not_launched_again(tmp_path: Path) -> None:
    process = await start(tmp_path, f"stub:wait={tmp_path}/go stub:ledger={tmp_path}/ledger")
    with pytest.raises(AttemptRunningError):
        await start(tmp_path, "x")
    (tmp_path / "go").touch()
    await ended(process)
    assert (tmp_path / "ledger").read_text().count("begin") == 1


async def test_a_process_works_in_its_directory_with_its_own_environment_and_session(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\npwd; echo "$CLAUDE_JOBS_JOB"; ps -o sid= -p $$; env | wc -l\n')
    script.chmod(0o700)
    (tmp_path / "work here").mkdir()
    directory = AttemptDirectory.create(tmp_path / "attempt")
    asked = command("x", stub=script, marker="m:1")
    process = await launch(directory, asked, str(tmp_path / "work here"), DIRECTLY)
    assert process.identity is not None
    await ended(process)
    where, mark, session, variables = (tmp_path / "attempt" / "out").read_text().splitlines()
    assert (where, mark, int(session)) == (str(tmp_path / "work here"), "m:1", process.identity.pid)
    assert MARKER in asked.env
    assert int(variables) <= len(asked.env) + 3  # a shell adds PWD, OLDPWD and SHLVL


class HiddenProc(DirectSpawner):
    """Starts programs that see nothing in /proc, as on a Mac."""

    ARGV = ("/usr/bin/unshare", "-rm", "/bin/sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "hide")

    async def start(self, order: Order) -> Started:
        return await super().start(replace(order, argv=[*self.ARGV, *order.argv]))


@pytest.mark.parametrize("spawner", [DIRECTLY, HiddenProc()], ids=["proc", "no proc"])
async def test_the_noted_process_is_the_program_itself_which_cannot_write_notes(
    tmp_path: Path, spawner: DirectSpawner
) -> None:
    if isinstance(spawner, HiddenProc) and subprocess.run([*spawner.ARGV, "true"], check=False).returncode:
        pytest.skip("this machine grants no namespaces")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho $$; echo no note >&9\n")
    script.chmod(0o700)
    process = await start(tmp_path, "x", stub=script, spawner=spawner)
    await ended(process)
    assert process.directory.claude_pid() == int((tmp_path / "attempt" / "out").read_bytes())
    assert "no note" not in (tmp_path / "attempt" / "lock").read_text()


@pytest.mark.parametrize(("mode", "code"), [(None, 127), (0o600, 126)])
async def test_a_claude_that_cannot_be_executed_is_a_failed_start(tmp_path: Path, mode: int | None, code: int) -> None:
    program = tmp_path / "claude"
    if mode is not None:
        program.write_text("#!/bin/sh\n")
        program.chmod(mode)
    outcome = await ended(await start(tmp_path, "x", stub=program))
    assert (outcome.reason, outcome.exit_code) == (Reason.STARTUP, code)
    assert str(program) in outcome.detail


async def test_a_working_directory_that_is_gone_is_a_failed_start(tmp_path: Path) -> None:
    directory = AttemptDirectory.create(tmp_path / "attempt")
    outcome = await ended(await launch(directory, command("x"), str(tmp_path / "gone"), DIRECTLY))
    assert outcome.reason is Reason.STARTUP
    assert "gone" in outcome.detail


async def test_a_refusal_of_the_operating_system_is_an_error_and_frees_the_lock(tmp_path: Path) -> None:
    directory = AttemptDirectory.create(tmp_path / "attempt")
    with pytest.raises(LaunchError, match="too long"):
        await launch(directory, replace(command("x"), argv=("claude", "x" * 10_000_000)), "/", DIRECTLY)
    assert not directory.lock_held()


async def test_a_signal_to_the_whole_group_leaves_an_exit_code(tmp_path: Path) -> None:
    process = await start(tmp_path, f"stub:do=silent stub:ready={tmp_path}/ready", stub=TORTURE_STUB)
    await appearance(tmp_path / "ready")
    assert process.identity is not None
    os.killpg(process.identity.pid, signal.SIGTERM)
    outcome = await ended(process)
    assert (outcome.reason, outcome.exit_code) == (Reason.LOST, 143)


async def test_a_killed_shim_leaves_a_claude_that_is_waited_for(tmp_path: Path) -> None:
    process = await start(tmp_path, f"stub:wait={tmp_path}/go")
    await beginning(process)
    assert process.identity is not None
    os.kill(process.identity.pid, signal.SIGKILL)
    with anyio.move_on_after(0.3) as scope:
        await process.wait()
    assert scope.cancelled_caught
    (tmp_path / "go").touch()
    outcome = await ended(process)
    assert (outcome.reason, outcome.exit_code) == (Reason.COMPLETED, None)


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_running_process_is_taken_over(tmp_path: Path, recorded: bool) -> None:
    process = await start(tmp_path, f"stub:wait={tmp_path}/go", marker="m:2")
    await beginning(process)
    taken = attach(process.directory, marker="m:2", identity=process.identity if recorded else None)
    assert taken.identity == process.identity
    (tmp_path / "go").touch()
    assert (await ended(taken)).reason is Reason.COMPLETED
    process.reap()


async def test_a_process_that_is_over_is_taken_over_with_its_exit_code(tmp_path: Path) -> None:
    process = await start(tmp_path, "stub:exit=3", marker="m:3")
    await ended(process)
    assert (await ended(attach(process.directory, marker="m:3", identity=process.identity))).exit_code == 3


async def test_a_reused_process_id_is_not_taken_for_the_shim(tmp_path: Path) -> None:
    directory = AttemptDirectory.create(tmp_path / "attempt")
    (directory.path / "lock").write_text(f"shim {os.getpid()}\n")
    assert attach(directory, marker="m:4").identity is None
    mine = process_table().identify(os.getpid())
    assert mine is not None
    other = ProcessIdentity(pid=mine.pid, start=mine.start - 1)
    with anyio.fail_after(60):
        assert await attach(directory, marker="m:4", identity=other).wait() is None


async def test_without_pidfd_a_process_is_waited_for_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.processes.process.pidfd", lambda identity: nullcontext(None))
    assert (await ended(await start(tmp_path, "stub:sleep=0.2"))).reason is Reason.COMPLETED


@pytest.mark.parametrize(
    ("directives", "reason", "result"),
    [
        ("do=garbage", Reason.COMPLETED, "done"),
        ("do=bigline stub:arg=20000000", Reason.COMPLETED, "done"),
        ("do=tworesults stub:say=second", Reason.COMPLETED, "second"),
        ("do=apiretry", Reason.COMPLETED, "done"),
        ("do=exit stub:arg=9", Reason.STARTUP, None),
        ("do=overloaded", Reason.OVERLOADED, None),
        ("do=usagelimit stub:arg=77", Reason.USAGE_LIMIT, None),
    ],
)
async def test_what_a_process_reports_becomes_its_outcome(
    tmp_path: Path, directives: str, reason: Reason, result: str | None
) -> None:
    process = await start(tmp_path, f"stub:{directives}", stub=TORTURE_STUB)
    with anyio.fail_after(60):
        code = await process.wait()
    reader, output_tail = OutcomeReader(), OutputTail(process.directory)
    async for lines in output_tail.rest():
        for line in lines:
            if line.frame is not None:
                reader.feed(line.frame)
    outcome = reader.conclude(exit_code=code, stderr=process.directory.error_tail())
    assert (outcome.reason, outcome.result) == (reason, result)


async def test_a_process_that_lingers_after_its_answer_has_still_answered(tmp_path: Path) -> None:
    task = f"stub:do=linger stub:ready={tmp_path}/ready"
    process = await start(tmp_path, task, stub=TORTURE_STUB, marker="m:6")
    await appearance(tmp_path / "ready")
    with anyio.fail_after(60):
        code = await Reaper().end(process, "m:6")
    written = frames(process.directory.read_output(0, 2**20))
    assert code == 128 + signal.SIGTERM
    assert classify(written, exit_code=code, stop_reason=Reason.STALLED).reason is Reason.COMPLETED


async def test_a_full_disk_is_a_refused_launch_and_frees_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fork_server, "write_all", full)
    directory = AttemptDirectory.create(tmp_path / "attempt")
    with pytest.raises(LaunchError, match="No space left"):
        await launch(directory, command("x"), "/", DIRECTLY)
    assert not directory.lock_held()


async def test_a_process_that_ends_by_itself_is_left_alone(tmp_path: Path) -> None:
    process = await start(tmp_path, "x", marker="m:5")
    await ended(process)
    with anyio.fail_after(60):
        assert await Reaper().end(process, "m:5") == 0
    assert not living(process)


async def test_a_process_that_ends_at_once_is_known_and_lives_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id names the session in which it may have left something."""

    class Late(type(process_table())):  # type: ignore[misc]
        """Looks when the process is over and collected."""

        def identify(self, pid: int) -> ProcessIdentity | None:
            os.waitpid(pid, 0)
            return None

    monkeypatch.setattr(spawning, "process_table", Late)
    process = await start(tmp_path, "x")
    directory = process.directory
    assert process.identity is not None
    assert process.identity.pid == directory.shim_pid()
    assert not process.lives()
    assert (await ended(process)).reason is Reason.COMPLETED
