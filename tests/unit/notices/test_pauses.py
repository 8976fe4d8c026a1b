"""Which pauses are told when they begin and when they are over, and that another engine tells none twice."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.event_bus import JobEventBus, PauseChange
from jobs.limits.account_budgets import AccountBudgets
from jobs.limits.budget import Ledger
from jobs.limits.throttle import Throttle
from jobs.notice import NoticeKind, utc
from jobs.notices.hooks import Hooks
from jobs.notices.notifier import Notifier
from jobs.notices.pauses import PauseNotices
from jobs.paused import EVERYTHING, PausedPath
from jobs.settings import Settings
from jobs.spending import Spending
from jobs.store.live import LiveStore
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit_root
from tests.support.waiting import until
from tests.unit.jobs.support import Clock, job

pytestmark = pytest.mark.anyio


class Stopped(Clock):
    """A clock that goes on only where the test says so."""

    def now(self) -> float:
        return 1e9 + self.moved

    def monotonic(self) -> float:
        return self.moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The parts of an engine that know of pauses."""

    database: SqliteStore
    store: LiveStore
    throttle: Throttle
    spending: Spending
    event_bus: JobEventBus
    clock: Clock

    async def pause(self, path: str) -> None:
        rows = await self.store.pause([PausedPath(path=path, since=1.0)])
        self.event_bus.announce_pause(PauseChange(began=True, pauses=tuple(rows)))

    async def resume(self, path: str) -> None:
        rows = [row for row in self.store.paused_paths.live() if row.path == path]
        await self.store.unpause([path], at=2.0)
        self.event_bus.announce_pause(PauseChange(began=False, pauses=tuple(rows)))

    async def told(self, count: int) -> Sequence[Mapping[str, Any]]:
        """Wait for so many notices, and return all."""

        async def enough() -> bool:
            return len(await self.database.notices(NoticeKind.ATTENTION, limit=100)) >= count

        await until(enough)
        notices = await self.database.notices(NoticeKind.ATTENTION, limit=100)
        assert len(notices) == count
        return [notice.body for notice in notices]

    async def noted(self, *keys: str) -> None:
        """Wait until the pauses of these keys are noted, and no others."""

        async def as_said() -> bool:
            return sorted(pause.key for pause in await self.database.noted_pauses()) == sorted(keys)

        await until(as_said)


@asynccontextmanager
async def running(home: Path, **settings: Any) -> AsyncIterator[Engine]:
    chosen = Settings(home=home, **({"on_attention": "x"} | settings))
    async with SqliteStore.open(home / "jobs.db") as database, anyio.create_task_group() as group:
        store, event_bus, clock = await LiveStore.over(database), JobEventBus(), Stopped()
        spending = Spending(clock.now)
        budgets = AccountBudgets(chosen, spending)
        throttle = Throttle(
            max_running=9,
            max_starting=9,
            free_memory=lambda: 2**40,
            memory_floor=0,
            clock=clock,
            jitter=lambda: 0.0,
            budgets=budgets,
        )
        notifier = Notifier(
            settings=chosen,
            store=store,
            outbox=database,
            ledger=Ledger(store.trees),
            hooks=Hooks({}, 0o022),
            clock=clock,
        )
        notices = PauseNotices(
            throttle=throttle,
            budgets=budgets,
            store=store,
            outbox=database,
            notifier=notifier,
            event_bus=event_bus,
            clock=clock,
        )
        group.start_soon(notices.keep)
        yield Engine(
            database=database,
            store=store,
            throttle=throttle,
            spending=spending,
            event_bus=event_bus,
            clock=clock,
        )
        group.cancel_scope.cancel()


async def test_a_usage_limit_is_told_once_though_it_gets_longer_and_its_end_is_told(tmp_path: Path):
    async with running(tmp_path) as engine:
        limits = engine.throttle.of("a1")
        limits.on_usage_limit(1e9 + 600, "a limit of five hours")
        [began] = await engine.told(1)
        assert began == {
            "event": "pause_began",
            "id": "a1",
            "because": "a limit of five hours",
            "until": utc(1e9 + 600),
            "next": "claude-jobs engine status",
        }
        limits.on_usage_limit(1e9 + 6000, "a weekly limit")

        async def is_longer() -> bool:
            return [pause.until for pause in await engine.database.noted_pauses()] == [1e9 + 6000]

        await until(is_longer)
        limits.on_success()
        [_, ended] = await engine.told(2)
        assert (ended["event"], ended["id"], ended["because"]) == ("pause_ended", "a1", "a weekly limit")
        await engine.noted()


async def test_a_limit_that_ends_by_the_clock_is_told_though_nothing_else_happens(tmp_path: Path):
    async with running(tmp_path) as engine:
        engine.throttle.of("a1").on_usage_limit(1e9 + 0.01, "a limit")
        await engine.told(1)
        engine.clock.moved = 1.0
        assert [notice["event"] for notice in await engine.told(2)] == ["pause_began", "pause_ended"]


async def test_a_paused_tree_is_told_with_the_command_that_resumes_it(tmp_path: Path):
    async with running(tmp_path) as engine:
        await admit_root(engine.store, "j1")
        await engine.pause("j1")
        await engine.told(1)
        await engine.resume("j1")
        await engine.told(2)
        await engine.pause(EVERYTHING)
        first, second, third = await engine.told(3)
        assert (first["event"], first["id"], first["next"]) == ("pause_began", "j1", "claude-jobs resume j1")
        assert "until" not in first
        assert (second["event"], second["id"], second["next"]) == ("pause_ended", "j1", "claude-jobs list")
        assert (third["event"], third["id"], third["next"]) == ("pause_began", "", "claude-jobs resume")


async def test_the_end_of_a_pause_below_which_nothing_lives_is_noted_and_not_told(tmp_path: Path):
    async with running(tmp_path) as engine:
        await admit_root(engine.store, "j1")
        await engine.pause("j1")
        await engine.told(1)
        await engine.store.cancel_under("j1", at=2.0)
        await engine.resume("j1")
        await engine.noted()
        # Of everything it is told: it also holds back what comes next.
        await engine.pause(EVERYTHING)
        await engine.noted("/")
        await engine.resume(EVERYTHING)
        events = [(notice["event"], notice["id"]) for notice in await engine.told(3)]
        assert events == [("pause_began", "j1"), ("pause_began", ""), ("pause_ended", "")]


async def test_a_used_up_budget_is_told_once_a_job_has_cost_it_and_its_end_at_midnight(tmp_path: Path):
    async with running(tmp_path, daily_budget_usd=1.0) as engine:
        engine.spending.settle("j1", "a1", 1.5, at=engine.clock.now())
        engine.event_bus.publish(replace(job("j1"), ended_at=2.0))
        [began] = await engine.told(1)
        assert (began["event"], began["id"]) == ("budget_used_up", "a1")
        assert began["until"] == utc(engine.spending.midnight)
        assert "the daily budget of 1.0000 USD is used up" in began["because"]
        engine.clock.moved = engine.spending.midnight - 1e9
        engine.event_bus.publish(replace(job("j2"), ended_at=3.0))
        ended = (await engine.told(2))[1]
        assert (ended["event"], ended["id"]) == ("pause_ended", "a1")


async def test_the_next_engine_tells_no_pause_again_and_the_end_of_one_that_ended_meanwhile(tmp_path: Path):
    async with running(tmp_path) as engine:
        await admit_root(engine.store, "j1")
        await engine.pause("j1")
        await engine.told(1)
        engine.throttle.of("a1").on_usage_limit(1e9 + 600, "a limit")
        await engine.told(2)
    # Its throttle knows of no limit.
    async with running(tmp_path) as engine:
        notices = await engine.told(3)
        assert [(notice["event"], notice["id"]) for notice in notices] == [
            ("pause_began", "j1"),
            ("pause_began", "a1"),
            ("pause_ended", "a1"),
        ]
        await engine.noted("/j1")


async def test_where_nobody_wants_to_be_told_no_pause_is_kept(tmp_path: Path):
    async with running(tmp_path, on_attention=None) as engine:
        await engine.pause(EVERYTHING)
        await engine.resume(EVERYTHING)
        engine.throttle.of("a1").on_usage_limit(1e9 + 600, "a limit")
        await anyio.wait_all_tasks_blocked()
        assert await engine.told(0) == []
        await engine.noted()
