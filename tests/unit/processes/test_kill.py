import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from jobs.processes.kill import Reaper, Target, find_processes, kill_all
from jobs.processes.process import Process
from jobs.processes.process_table import Entry, LinuxTable, PortableTable, ProcessIdentity, ProcessTable, process_table
from tests.unit.claude.support import TORTURE_STUB, start
from tests.unit.processes.test_process import appearance

pytestmark = pytest.mark.anyio

TABLES = [pytest.param(type(process_table()), id="native"), pytest.param(PortableTable, id="portable")]


def noted(path: Path) -> set[int]:
    """Ids that the stub noted and that live still, zombies excepted."""
    pids = {int(line) for line in path.read_text().split()}
    return pids & set(process_table().entries())


def known_to(table: type[ProcessTable] | None, process: Process) -> Process:
    """Give the shim the identity that this table would have recorded; the platforms count its start differently."""
    if table is not None and process.identity is not None:
        process.identity = table().identify(process.identity.pid)
    return process


async def standing(
    tmp_path: Path, do: str, marker: str, rest: str = "", table: type[ProcessTable] | None = None
) -> Process:
    task = f"stub:do={do} stub:ready={tmp_path}/ready stub:pids={tmp_path}/pids {rest}"
    process = await start(tmp_path, task, stub=TORTURE_STUB, marker=marker)
    await appearance(tmp_path / "ready")
    return known_to(table, process)


async def finished(tmp_path: Path, do: str, marker: str) -> Process:
    process = await start(tmp_path, f"stub:do={do} stub:pids={tmp_path}/pids", stub=TORTURE_STUB, marker=marker)
    with anyio.fail_after(60):
        assert await process.wait() == 0
    return process


@pytest.mark.parametrize("table", TABLES)
async def test_a_process_that_obeys_ends_in_order(tmp_path: Path, table: type[ProcessTable]) -> None:
    process = await standing(tmp_path, "silent", "end:obeys", table=table)
    with anyio.fail_after(60):
        assert await Reaper(table()).end(process, "end:obeys", grace=10) == 143
    assert find_processes(process_table(), [Target(marker="end:obeys")]) == []


@pytest.mark.parametrize("table", TABLES)
async def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path, table: type[ProcessTable]) -> None:
    process = await standing(tmp_path, "ignoreterm", "end:ignores", table=table)
    with anyio.fail_after(60):
        await Reaper(table()).end(process, "end:ignores", grace=0.1)
    assert find_processes(process_table(), [Target(marker="end:ignores", shim=process.identity)]) == []
    assert not process.directory.lock_held()


@pytest.mark.parametrize("table", TABLES)
async def test_a_stopped_process_is_ended(tmp_path: Path, table: type[ProcessTable]) -> None:
    process = await standing(tmp_path, "silent", "end:stopped", table=table)
    claude = process.directory.claude_pid()
    assert claude is not None
    os.kill(claude, signal.SIGSTOP)
    with anyio.fail_after(60):
        await Reaper(table()).end(process, "end:stopped", grace=0.1)
    assert find_processes(process_table(), [Target(marker="end:stopped", shim=process.identity)]) == []


@pytest.mark.parametrize("table", TABLES)
async def test_a_frozen_process_that_obeys_does_not_use_up_its_grace(tmp_path: Path, table: type[ProcessTable]) -> None:
    process = await standing(tmp_path, "silent", "end:frozen", table=table)
    assert process.identity is not None
    # As `Process.freeze` does, the shim included.
    os.killpg(process.identity.pid, signal.SIGSTOP)
    # An end is not cancelled once it has begun, so the scope only tells the time.
    with anyio.move_on_after(12) as limit:
        assert await Reaper(table()).end(process, "end:frozen", grace=15) == 143
    assert not limit.cancel_called


@pytest.mark.parametrize("table", TABLES)
async def test_what_a_killed_claude_leaves_is_swept(tmp_path: Path, table: type[ProcessTable]) -> None:
    process = await standing(tmp_path, "wide", "sweep:killed", "stub:arg=30", table=table)
    claude = process.directory.claude_pid()
    assert claude is not None
    os.kill(claude, signal.SIGKILL)
    with anyio.fail_after(60):
        await process.wait()
        assert len(noted(tmp_path / "pids")) == 30
        await Reaper(table()).sweep(Target(marker="sweep:killed", shim=process.identity))
    assert noted(tmp_path / "pids") == set()


@pytest.mark.parametrize("table", TABLES)
async def test_many_children_in_sessions_of_their_own_are_all_ended(tmp_path: Path, table: type[ProcessTable]) -> None:
    process = await standing(tmp_path, "wide", "end:wide", "stub:arg=30", table=table)
    assert len(noted(tmp_path / "pids")) == 30
    with anyio.fail_after(60):
        await Reaper(table()).end(process, "end:wide", grace=0.1)
    assert noted(tmp_path / "pids") == set()


@pytest.mark.parametrize("table", TABLES)
async def test_a_child_without_environment_is_found_by_its_parent(tmp_path: Path, table: type[ProcessTable]) -> None:
    process = await standing(tmp_path, "scrubbed", "end:scrubbed", table=table)
    assert len(noted(tmp_path / "pids")) == 1
    with anyio.fail_after(60):
        # The parent obeys and is gone before the kill: its child must have been noted before.
        await Reaper(table()).end(process, "end:scrubbed")
    assert noted(tmp_path / "pids") == set()


@pytest.mark.parametrize("table", TABLES)
async def test_a_daemon_left_by_a_success_is_swept(tmp_path: Path, table: type[ProcessTable]) -> None:
    process = await finished(tmp_path, "daemon", "sweep:daemon")
    assert len(noted(tmp_path / "pids")) == 1
    with anyio.fail_after(60):
        await Reaper(table()).sweep(Target(marker="sweep:daemon", shim=process.identity))
    assert noted(tmp_path / "pids") == set()


async def test_a_chain_that_changes_process_and_session_all_the_time_is_swept(tmp_path: Path) -> None:
    process = await finished(tmp_path, "chain", "sweep:chain")
    with anyio.fail_after(60):
        await Reaper().sweep(Target(marker="sweep:chain", shim=process.identity))
    left = partial(kill_all, process_table(), [Target(marker="sweep:chain")], seconds=1)
    assert await anyio.to_thread.run_sync(left) == 0


async def test_ending_one_job_leaves_its_neighbour_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = await standing(tmp_path / "a", "silent", "pair:1")
    other = await standing(tmp_path / "b", "silent", "pair:10")
    reaper = Reaper()
    with anyio.fail_after(60):
        await reaper.end(one, "pair:1")
        await reaper.sweep(Target(marker="pair:1", shim=one.identity))
        assert other.directory.lock_held()
        await reaper.end(other, "pair:10")
    assert not other.directory.lock_held()


async def test_an_end_that_is_cancelled_is_still_brought_to_its_end(tmp_path: Path) -> None:
    process = await standing(tmp_path, "ignoreterm", "end:cancelled")
    with anyio.fail_after(60), anyio.CancelScope() as scope:
        scope.cancel()
        await Reaper().end(process, "end:cancelled", grace=0.1)
    assert not process.directory.lock_held()


class CountingTable(LinuxTable):
    """A table that shows what it is told to and counts the passes over it."""

    def __init__(self) -> None:
        self.passes = 0
        self.kills: list[ProcessIdentity] = []
        self.shown: Mapping[int, Entry] = {}
        self.marks: dict[int, str] = {}
        self.created: dict[int, str] = {}

    def newest(self) -> Iterator[int]:
        return iter(list(self.created))

    def identify(self, pid: int) -> ProcessIdentity | None:
        return ProcessIdentity(pid=pid, start=1.0)

    def entries(self) -> Mapping[int, Entry]:
        self.passes += 1
        return self.shown

    def job_marker(self, pid: int) -> str | None:
        return self.marks.get(pid) or self.created.get(pid)

    def send(self, target: ProcessIdentity, number: signal.Signals) -> bool:
        self.kills.append(target)
        self.created.pop(target.pid, None)
        self.shown = {pid: entry for pid, entry in self.shown.items() if entry.identity != target}
        return True


SLOWNESS = 0.02


class SlowTable(CountingTable):
    """A table of which each pass takes so many seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[float] = []

    def entries(self) -> Mapping[int, Entry]:
        self.began.append(time.monotonic())
        time.sleep(SLOWNESS)
        return super().entries()


def entry(pid: int, *, parent: int = 1, session: int | None = None, start: float = 5.0) -> Entry:
    session = pid if session is None else session
    return Entry(identity=ProcessIdentity(pid=pid, start=start), parent=parent, group=session, session=session)


async def test_jobs_that_end_together_share_passes() -> None:
    table = CountingTable()
    reaper = Reaper(table)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for index in range(100):
                group.start_soon(reaper.sweep, Target(marker=f"m:{index}"))
    assert table.passes <= 3


async def test_the_next_pass_waits_in_proportion_to_the_last_one() -> None:
    table = SlowTable()
    reaper = Reaper(table)
    with anyio.fail_after(60):
        await reaper.sweep(Target(marker="m"))
        first = table.passes
        await reaper.sweep(Target(marker="m"))
    pause = table.began[first] - table.began[first - 1]
    assert pause >= 10 * SLOWNESS


async def test_a_waiter_that_gives_up_does_not_take_the_others_with_it() -> None:
    reaper = Reaper(CountingTable())
    with anyio.fail_after(60):
        await reaper.sweep(Target(marker="first"))
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def give_up() -> None:
                with scope:
                    await reaper.sweep(Target(marker="gives up"))

            group.start_soon(give_up)
            group.start_soon(reaper.sweep, Target(marker="stays"))
            await anyio.lowlevel.checkpoint()
            scope.cancel()


def test_this_process_and_its_session_are_never_hit() -> None:
    table, own = CountingTable(), os.getpid()
    table.shown = {own: entry(own, session=77), 5000: entry(5000, session=77), 77: entry(77)}
    table.marks = {own: "m", 5000: "m"}
    assert find_processes(table, [Target(marker="m")]) == [ProcessIdentity(pid=5000, start=5.0)]


def test_a_session_whose_number_passed_to_another_process_is_left_alone() -> None:
    table = CountingTable()
    table.shown = {5000: entry(5000, start=9.0), 5001: entry(5001, session=5000)}
    assert find_processes(table, [Target(marker="m", shim=ProcessIdentity(pid=5000, start=5.0))]) == []


def test_descendants_are_found_whatever_they_bear() -> None:
    table = CountingTable()
    table.shown = {5000: entry(5000), 5001: entry(5001, parent=5000), 5002: entry(5002, parent=5001), 9: entry(9)}
    table.marks = {5000: "m", 9: "another"}
    assert {one.pid for one in find_processes(table, [Target(marker="m")])} == {5000, 5001, 5002}


def test_after_a_kill_two_passes_must_find_nothing() -> None:
    table = CountingTable()
    table.shown, table.marks = {5000: entry(5000)}, {5000: "m"}
    assert kill_all(table, [Target(marker="m")], quiet=1) == 1
    assert table.passes == 3


def test_a_process_once_known_is_found_though_nothing_shows_it_any_more() -> None:
    table = CountingTable()
    table.shown = {5000: entry(5000), 5001: entry(5001, parent=5000), 9: entry(9)}
    known = frozenset({ProcessIdentity(pid=5000, start=5.0), ProcessIdentity(pid=9, start=4.0)})
    assert {one.pid for one in find_processes(table, [Target(marker="m", known=known)])} == {5000, 5001}


@pytest.mark.parametrize("marker", [None, ""])
def test_a_target_without_a_mark_is_found_by_what_is_known_of_it_alone(marker: str | None) -> None:
    table = CountingTable()
    # A shell whose variable is empty, within a job's session, and one of a person's.
    table.shown = {5000: entry(5000), 6000: entry(6000), 6001: entry(6001, session=6000), 7000: entry(7000)}
    table.shown |= {8000: entry(8000)}
    table.marks = {6000: "a job", 6001: "", 7000: ""}
    table.created = {6001: "", 7000: ""}
    target = Target(marker=marker, known=frozenset({ProcessIdentity(pid=5000, start=5.0)}))
    assert {one.pid for one in find_processes(table, [target])} == {5000}
    assert kill_all(table, [target], quiet=1) == 1
    assert {one.pid for one in table.kills} == {5000}


def test_a_link_that_no_pass_sees_is_caught_among_the_newest_ids() -> None:
    table = CountingTable()
    table.created = {5000: "m", 5001: "another"}
    assert kill_all(table, [Target(marker="m")], quiet=1) == 1
    assert table.kills == [ProcessIdentity(pid=5000, start=1.0)]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_knows_this_process(table: type[ProcessTable]) -> None:
    known = table()
    own = known.entries()[os.getpid()]
    assert own.identity == known.identify(os.getpid())
    assert (own.parent, own.group, own.session) == (os.getppid(), os.getpgid(0), os.getsid(0))
    assert known.job_marker(os.getpid()) == os.environ.get("CLAUDE_JOBS_JOB")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start of a process is a time of day")
def test_the_age_of_a_process_is_told_by_the_clock_since_the_boot() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    process = subprocess.Popen(["/bin/sleep", "60"])
    try:
        table = LinuxTable()
        identity = table.identify(process.pid)
        assert identity is not None
        age = table.age(identity)
        # A start is told in hundredths of a second.
        assert -0.02 <= age <= time.clock_gettime(time.CLOCK_BOOTTIME) - before + 0.02
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("table", TABLES)
def test_a_signal_to_a_reused_id_is_not_sent(table: type[ProcessTable]) -> None:
    own = table().identify(os.getpid())
    assert own is not None
    assert not table().send(ProcessIdentity(pid=own.pid, start=own.start - 1), signal.SIGKILL)
    assert not table().send(ProcessIdentity(pid=2**22 + 1, start=1.0), signal.SIGKILL)
