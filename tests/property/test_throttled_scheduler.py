"""The line with the throttle in front of it: limits, pauses and starts in any order, and nobody waits for ever."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobs.limits.throttle import LOOK_SECONDS, Throttle
from jobs.ports import Clock
from jobs.scheduler import Scheduler
from orchestration.limits import TreeLimits
from tests.support.long_form import LONG
from tests.unit.jobs.support import job

TURNS = 12
"""Turns of the event loop after which every task of these waits again."""

MAX_RUNNING = 6
MAX_STARTING = 2
ACCOUNTS = {"a": "x", "b": "x", "c": "y"}
"""Tree to account."""
accounts = st.sampled_from("xy")
picks = st.integers(0, 10_000)


class StoppedClock(Clock):
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class ThrottledMachine(RuleBasedStateMachine):
    """Jobs of three trees come, start, speak and end, while the API and the memory have their moods."""

    @initialize()
    def build(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = StoppedClock()
        self.free = True
        self.throttle = Throttle(
            max_running=MAX_RUNNING,
            max_starting=MAX_STARTING,
            free_memory=lambda: int(self.free),
            memory_floor=1,
            clock=self.clock,
            jitter=lambda: 1.0,
        )
        limits = TreeLimits(max_concurrent={0: 4})
        self.scheduler = Scheduler(limits, MAX_RUNNING, self.throttle, ACCOUNTS.__getitem__)
        self.tasks: list[asyncio.Task[None]] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.mute: list[str] = []
        self.launches: list[tuple[bool, int, int]] = []

    @rule(tree=st.sampled_from("abc"), depth=st.integers(1, 3))
    def come(self, tree: str, depth: int) -> None:
        self._begin(self._live(f"j{len(self.tasks)}", tree, depth))

    @rule(who=picks)
    def speak(self, who: int) -> None:
        if self.mute:
            self.throttle.started(self.mute.pop(who % len(self.mute)))
            self._poke()

    @rule(who=picks, well=st.booleans())
    def end(self, who: int, well: bool) -> None:
        if self.ends:
            name = list(self.ends)[who % len(self.ends)]
            limits = self.throttle.of(self.scheduler.account_of(name))
            self.ends.pop(name).set()
            limits.on_success() if well else limits.back_off("overloaded")
            self._settle()

    @rule(account=accounts)
    def limit(self, account: str) -> None:
        self.throttle.of(account).on_rate_limited()

    @rule(account=accounts, seconds=st.floats(-10, 500))
    def use_up(self, account: str, seconds: float) -> None:
        self.throttle.of(account).on_usage_limit(self.clock.now() + seconds, "five_hour")

    @rule()
    def refuse_processes(self) -> None:
        self.throttle.refused("no process")

    @rule(seconds=st.floats(0.1, 120))
    def pass_time(self, seconds: float) -> None:
        self.clock.time += seconds
        self._poke()

    @rule(free=st.booleans())
    def change_memory(self, free: bool) -> None:
        self.free = free
        # Memory that was read a moment ago is not read again.
        self.clock.time += LOOK_SECONDS
        self._poke()

    @invariant()
    def every_launch_was_admitted(self) -> None:
        for paused, running, starting in self.launches:
            assert not paused
            assert running <= MAX_RUNNING
            assert starting <= MAX_STARTING
        self.launches.clear()

    @invariant()
    def a_paused_account_leaves_room_for_the_others(self) -> None:
        for account in "xy":
            free = self.scheduler.running() < MAX_RUNNING and len(self.mute) < MAX_STARTING and self.free
            alone = self.scheduler.waiting(account) == self.scheduler.waiting()
            if (
                free
                and not alone
                and self.throttle.machine.pause is None
                and self.throttle.pause_of(account) is not None
            ):
                other = "y" if account == "x" else "x"
                held = sum(self.scheduler.account_of(name) == other for name in self.ends)
                assert self.throttle.pause_of(other) or held >= min(4, self.throttle.of(other).window)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.free = True
        for _ in range(20 * len(self.tasks) + 20):
            self.clock.time += 600.0
            while self.mute:
                self.throttle.started(self.mute.pop())
            for ended in self.ends.values():
                ended.set()
            self.ends.clear()
            self._poke()
        waiting = sum(not task.done() for task in self.tasks)
        for task in self.tasks:
            task.cancel()
        self._settle()
        self.loop.close()
        assert waiting == 0, f"{waiting} jobs wait for ever"

    async def _live(self, name: str, tree: str, depth: int) -> None:
        async with self.scheduler.slot(job(name, root=tree, depth=depth)):
            self.mute.append(name)
            paused = self.throttle.pause_of(ACCOUNTS[tree]) is not None
            self.launches.append((paused, self.scheduler.running(), len(self.mute)))
            ended = self.ends[name] = asyncio.Event()
            await ended.wait()
            if name in self.mute:
                self.mute.remove(name)

    def _poke(self) -> None:
        self.loop.call_soon(self.scheduler.reschedule)
        self._settle()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(self.loop.create_task(work))
        self._settle()

    def _settle(self) -> None:
        async def turn() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())


ThrottledMachine.TestCase.settings = settings(max_examples=500 if LONG else 25, stateful_step_count=40, deadline=None)
TestThrottledScheduler = ThrottledMachine.TestCase
