"""What is done about attempts that are over: together, in one task, however many there are."""

import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.claude.stale_files import ClientDirectories
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.kill import Reaper, Target
from jobs.processes.process_table import Entry, LinuxTable, ProcessIdentity
from jobs.processes.spawning import DirectSpawner, ForkServer, Order
from jobs.runner.cleanup import AttemptCleanup, EndedAttempt
from tests.support.waiting import until_now

pytestmark = pytest.mark.anyio

DEAD = 2**22 + 1
"""No process has an id as high as this."""


class EmptyTable(LinuxTable):
    """A table without processes that counts the looks at it, and refuses the first of them."""

    def __init__(self, refusals: int = 0) -> None:
        self.looks = 0
        self.refusals = refusals

    def entries(self) -> Mapping[int, Entry]:
        self.looks += 1
        if self.looks <= self.refusals:
            raise OSError(24, "too many open files")
        return {}

    def identify(self, pid: int) -> ProcessIdentity | None:
        return None


class Tasks:
    """Starts tasks and counts those that run."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self.running = self.most = 0

    def start_soon(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self._group.start_soon(self._run, work, *arguments)

    async def _run(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        await work(*arguments)
        self.running -= 1


def ended(tmp_path: Path, number: int) -> EndedAttempt:
    """An attempt whose `claude` was killed, and left a file of its own."""
    directory = AttemptDirectory.create(tmp_path / str(number))
    (directory.path / "lock").write_text(f"claude {DEAD + number}\n")
    keys = tmp_path / "config" / "sessions"
    keys.mkdir(parents=True, exist_ok=True)
    (keys / f"{DEAD + number}.x.key").touch()
    return EndedAttempt(
        target=Target(marker=f"k:{number}:1"),
        directory=directory,
        client_directories=ClientDirectories(config=tmp_path / "config"),
    )


@pytest.mark.parametrize("refusals", [0, 2])
async def test_attempts_that_end_one_after_the_other_share_passes_in_one_task(tmp_path: Path, refusals: int):
    attempts = [ended(tmp_path, number) for number in range(100)]
    table = EmptyTable(refusals)
    async with anyio.create_task_group() as group:
        tasks = Tasks(group)
        cleanup = AttemptCleanup(Reaper(table), DirectSpawner(), list, list, tasks.start_soon, table=table)
        for attempt in attempts:
            cleanup.add(attempt)
            await anyio.lowlevel.checkpoint()
    assert (tasks.most, tasks.running) == (1, 0)
    assert table.looks <= 10 + refusals
    assert list((tmp_path / "config" / "sessions").iterdir()) == []


async def test_what_ends_after_a_pass_has_one_of_its_own(tmp_path: Path):
    table = EmptyTable()
    async with anyio.create_task_group() as group:
        tasks = Tasks(group)
        cleanup = AttemptCleanup(Reaper(table), DirectSpawner(), list, list, tasks.start_soon, table=table)
        for number in range(2):
            cleanup.add(ended(tmp_path, number))
            with anyio.fail_after(60):
                while tasks.running:  # noqa: ASYNC110 - the end of the task sets no event
                    await anyio.sleep(0.01)
            assert list((tmp_path / "config" / "sessions").iterdir()) == []


async def test_ending_processes_leaves_the_shared_threads_to_others(tmp_path: Path):
    shared = anyio.to_thread.current_default_thread_limiter()
    before, shared.total_tokens = shared.total_tokens, 1
    held = anyio.Event()
    try:
        async with anyio.create_task_group() as group:
            # A call that needs a shared thread waits from here on.
            await shared.acquire_on_behalf_of(held)
            with anyio.fail_after(60):
                await Reaper(EmptyTable()).sweep(Target(marker="m"))
            shared.release_on_behalf_of(held)
            group.cancel_scope.cancel()
    finally:
        shared.total_tokens = before


@pytest.fixture
def server() -> Iterator[ForkServer]:
    built = ForkServer()
    try:
        yield built
    finally:
        built.close()


async def launched(server: ForkServer, script: str = "exec sleep 60") -> ProcessIdentity:
    """Start a process as a shim is started, and return which one it is."""
    with tempfile.TemporaryDirectory() as directory:
        argv = ["/bin/sh", "-c", script]
        started = await server.start(Order(directory=directory, argv=argv, env={"PATH": "/usr/bin:/bin"}))
    return started.identity


class CountingTable(LinuxTable):
    """The machine's table; counts the looks at all of it."""

    looks = 0

    def entries(self) -> Mapping[int, Entry]:
        self.looks += 1
        return super().entries()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no fork server elsewhere")
class TestUnderAForkServer:
    async def clear_up(self, server: ForkServer, *attempts: EndedAttempt) -> int:
        """Clear up after attempts, and return how often all of the table was looked at."""
        table = CountingTable()
        async with anyio.create_task_group() as group:
            cleanup = AttemptCleanup(Reaper(table), server, list, list, group.start_soon, table=table)
            for attempt in attempts:
                cleanup.add(attempt)
        return table.looks

    def over(self, tmp_path: Path, shim: ProcessIdentity) -> EndedAttempt:
        """Let a shim end, and return its attempt as one whose exit code it wrote."""
        os.kill(shim.pid, signal.SIGKILL)
        # An ended shim that the fork server has not collected yet is still one of its children.
        until_now(lambda: not Path(f"/proc/{shim.pid}").exists())
        return replace(ended(tmp_path, 1), target=Target(marker="k:1:1", shim=shim), exit_code=1)

    async def test_after_ordinary_ends_nobody_looks_at_all_processes(self, server: ForkServer, tmp_path: Path):
        attempts = [self.over(tmp_path, await launched(server)) for _ in range(3)]
        assert await self.clear_up(server, *attempts) == 0
        assert list((tmp_path / "config" / "sessions").iterdir()) == []

    async def test_what_fell_to_the_fork_server_is_ended(self, server: ForkServer, tmp_path: Path):
        noted = tmp_path / "noted"
        shim = await launched(
            server, f"setsid sh -c 'echo $$ >{noted}.part; mv {noted}.part {noted}; exec sleep 60' & wait"
        )
        until_now(noted.exists)
        orphan = int(noted.read_text())
        try:
            assert await self.clear_up(server, self.over(tmp_path, shim)) > 0
            assert LinuxTable().entry(orphan) is None
        finally:
            if LinuxTable().entry(orphan) is not None:
                os.kill(orphan, signal.SIGKILL)

    @pytest.mark.parametrize(
        "change",
        [
            lambda attempt: replace(attempt, exit_code=None),
            lambda attempt: replace(attempt, target=replace(attempt.target, shim=None)),
            lambda attempt: replace(attempt, target=replace(attempt.target, shim=ProcessIdentity(pid=DEAD, start=0.0))),
        ],
        ids=["no exit code", "no known shim", "launched by an earlier engine"],
    )
    async def test_where_the_shim_tells_too_little_all_processes_are_looked_at(
        self, server: ForkServer, tmp_path: Path, change: Callable[[EndedAttempt], EndedAttempt]
    ):
        assert await self.clear_up(server, change(self.over(tmp_path, await launched(server)))) > 0

    async def test_so_they_are_after_the_fork_servers_death(self, server: ForkServer, tmp_path: Path):
        attempt = self.over(tmp_path, await launched(server))
        (pid,) = server.orphan_parents() - {os.getpid()}
        os.kill(pid, signal.SIGKILL)
        until_now(lambda: LinuxTable().entry(pid) is None)
        assert await self.clear_up(server, attempt) > 0


async def test_an_engine_that_leaves_clears_up_after_what_has_just_ended(tmp_path: Path):
    async with anyio.create_task_group() as group:
        cleanup = AttemptCleanup(Reaper(EmptyTable()), DirectSpawner(), set, set, group.start_soon, table=EmptyTable())
        cleanup.add(replace(ended(tmp_path, 1), exit_code=143))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert list((tmp_path / "config" / "sessions").iterdir()) == []
