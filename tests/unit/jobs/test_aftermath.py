"""What is done about attempts that are over: together, in one task, however many there are."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.attempts.aftermath import Aftermath, EndedAttempt
from jobs.claude.directory import AttemptDirectory
from jobs.claude.proctable import Entry, LinuxTable, ProcessIdentity
from jobs.claude.reaper import Reaper
from jobs.claude.spawning import DirectSpawner
from jobs.claude.survivors import Target

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
    (directory.path / "claude").write_text(f"{DEAD + number}\n")
    keys = tmp_path / "config" / "sessions"
    keys.mkdir(parents=True, exist_ok=True)
    (keys / f"{DEAD + number}.x.key").touch()
    return EndedAttempt(target=Target(marker=f"k:{number}:1"), directory=directory, config=tmp_path / "config")


@pytest.mark.parametrize("refusals", [0, 2])
async def test_attempts_that_end_one_after_the_other_share_passes_in_one_task(tmp_path: Path, refusals: int):
    attempts = [ended(tmp_path, number) for number in range(100)]
    table = EmptyTable(refusals)
    async with anyio.create_task_group() as group:
        tasks = Tasks(group)
        aftermath = Aftermath(Reaper(table), DirectSpawner(), list, list, tasks.start_soon, table=table)
        for attempt in attempts:
            aftermath.add(attempt)
            await anyio.lowlevel.checkpoint()
    assert (tasks.most, tasks.running) == (1, 0)
    assert table.looks <= 10 + refusals
    assert list((tmp_path / "config" / "sessions").iterdir()) == []


async def test_what_ends_after_a_pass_has_one_of_its_own(tmp_path: Path):
    table = EmptyTable()
    async with anyio.create_task_group() as group:
        tasks = Tasks(group)
        aftermath = Aftermath(Reaper(table), DirectSpawner(), list, list, tasks.start_soon, table=table)
        for number in range(2):
            aftermath.add(ended(tmp_path, number))
            with anyio.fail_after(10):
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
            with anyio.fail_after(10):
                await Reaper(EmptyTable()).sweep(Target(marker="m"))
            shared.release_on_behalf_of(held)
            group.cancel_scope.cancel()
    finally:
        shared.total_tokens = before
