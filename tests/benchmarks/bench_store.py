"""What many and large jobs cost: a start with many old jobs, large queued tasks, the kill of a large batch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import psutil
import pytest
from anyio import to_thread

from jobs.client_context import ClientContext
from jobs.settings import Settings
from jobs.settings_sources import ClientVariables
from jobs.store.corruption import check_tables
from server.client.state_dir import prepare
from server.engine.app import assemble, serve
from tests.benchmarks.bench_engine import ENVIRONMENT, STUB, engine
from tests.support.past import make_past
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@dataclass
class Watched:
    """What a stretch of work did to everybody else.

    Args:
        stall: Seconds of the longest time for which the event loop did nothing else.
        rss: Most bytes of memory.
    """

    stall: float = 0.0
    rss: int = 0


async def _watch(watched: Watched) -> None:
    process = psutil.Process()
    while True:
        began = time.monotonic()
        await anyio.sleep(0.01)
        watched.stall = max(watched.stall, time.monotonic() - began - 0.01)
        watched.rss = max(watched.rss, process.memory_info().rss)


@contextmanager
def _told(what: str, watched: Watched) -> Iterator[None]:
    watched.stall, watched.rss = 0.0, 0
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    print(f"\n{what}: {took:.2f} s, longest stall {watched.stall:.2f} s, memory {watched.rss / 1e6:.0f} MB", end="")


@pytest.mark.parametrize("count", [1_000, 10_000])
async def test_a_start_over_a_past_beside_a_check_of_all_of_it(tmp_path: Path, count: int):
    home = tmp_path / "state"
    await to_thread.run_sync(make_past, home, count)
    began = time.monotonic()
    assert await to_thread.run_sync(check_tables, home / "jobs.db", lambda: False) is None
    whole = time.monotonic() - began
    size = (home / "jobs.db").stat().st_size / 1e6
    for how in ("in order", "by a crash"):
        if how == "by a crash":
            (home / "jobs.db.open").touch()
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(partial(serve, home, ClientVariables(values={}), on_ready=group.cancel_scope.cancel))
        took = time.monotonic() - began
        print(f"\n{count} jobs, {size:.0f} MB, closed {how}: {took:.2f} s, {took / whole:.2f} of a whole check", end="")


async def test_a_hundred_tasks_of_a_megabyte_in_line(tmp_path: Path):
    client_context = ClientContext(cwd=str(tmp_path), env=ENVIRONMENT)
    watched = Watched()
    async with anyio.create_task_group() as group, engine(tmp_path / "state", STUB, max_running=2) as services:
        group.start_soon(_watch, watched)
        with _told("100 tasks of 1 MB submitted", watched):
            for _ in range(10):
                tasks = [f"stub:sleep=30 {'x' * 990_000}"] * 10
                await services.manager.execute_batch_async(tasks, client_context=client_context)
        with _told("statistics over them", watched):
            await services.recursion.statistics()
        await services.manager.cancel_all()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("count", [100, 1_000])
async def test_the_kill_of_a_batch(tmp_path: Path, count: int):
    settings = Settings(
        home=tmp_path / "state",
        cli=STUB,
        max_children=5000,
        max_jobs=5000,
        max_concurrent={0: 5000},
        max_running=4,
    )
    client_context = ClientContext(cwd=str(tmp_path), env=ENVIRONMENT)
    watched = Watched()
    async with anyio.create_task_group() as group, assemble(settings, prepare(settings.home), group) as services:
        group.start_soon(_watch, watched)
        ids = await services.manager.execute_batch_async(["stub:sleep=60"] * count, client_context=client_context)

        async def in_line() -> bool:
            return (await services.recursion.statistics()).waiting >= count - 4

        await until(in_line, 120.0)
        jobs = await services.store.jobs(ids)
        with _told(f"kill of {count} jobs", watched):
            await services.manager.cancel_subtrees(jobs)
        with _told("until all of them are over", watched):
            await services.manager.cancel_all()
        group.cancel_scope.cancel()
