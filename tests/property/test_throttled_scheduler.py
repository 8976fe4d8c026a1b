"""The line with the throttle in front of it: limits, pauses and starts in any order, and nobody waits for ever."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobs.limits.throttle import Throttle
from jobs.scheduler import Scheduler
from orchestration.limits import TreeLimits
from tests.unit.jobs.support import job

TURNS = 12
"""Turns of the event loop after which every task of these waits again."""

MAX_RUNNING = 6
MAX_STARTING = 2
picks = st.integers(0, 10_000)


class StoppedClock:
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
        self.scheduler = Scheduler(TreeLimits(max_concurrent={0: 4}), MAX_RUNNING, self.throttle)
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
            self.ends.pop(list(self.ends)[who % len(self.ends)]).set()
            self.throttle.succeeded() if well else self.throttle.back_off("overloaded")
            self._settle()

    @rule()
    def limit(self) -> None:
        self.throttle.limited()

    @rule(seconds=st.floats(-10, 500))
    def use_up(self, seconds: float) -> None:
        self.throttle.used_up(self.clock.now() + seconds, "five_hour")

    @rule(seconds=st.floats(0.1, 120))
    def pass_time(self, seconds: float) -> None:
        self.clock.time += seconds
        self._poke()

    @rule(free=st.booleans())
    def change_memory(self, free: bool) -> None:
        self.free = free

    @invariant()
    def every_launch_was_admitted(self) -> None:
        for paused, running, starting in self.launches:
            assert not paused
            assert running <= MAX_RUNNING
            assert starting <= MAX_STARTING
        self.launches.clear()

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
            self.launches.append((self.throttle.pause is not None, self.scheduler.running(), len(self.mute)))
            ended = self.ends[name] = asyncio.Event()
            await ended.wait()
            if name in self.mute:
                self.mute.remove(name)

    def _poke(self) -> None:
        self.loop.call_soon(self.scheduler.poke)
        self._settle()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(self.loop.create_task(work))
        self._settle()

    def _settle(self) -> None:
        async def turn() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())


ThrottledMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestThrottledScheduler = ThrottledMachine.TestCase
