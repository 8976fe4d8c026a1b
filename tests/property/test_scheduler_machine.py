"""Random trees in the line: jobs spawn, wait for what is below them, end, are cancelled and paused, in any order."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobs.model import Job
from jobs.paused import PausedPath, PausedPaths
from jobs.scheduler import Scheduler
from jobs.spec import JobSpec
from orchestration.limits import TreeLimits
from tests.support.long_form import LONG
from tests.support.reachable import names_in

TURNS = 12
"""Turns of the event loop after which every task of these waits again."""

MAX_DEPTH = 4
MOST_JOBS = 40
picks = st.integers(0, 10_000)


@dataclass(eq=False)
class Wait:
    """A call of a job that waits for everything below it.

    Args:
        answered: Set once it has what it waited for.
        task: Ends when the call has its answer.
    """

    answered: asyncio.Event
    task: asyncio.Task[None]


@dataclass(eq=False)
class Node:
    """A job and what the model knows of it."""

    job: Job
    parent: "Node | None"
    ended: asyncio.Event
    task: "asyncio.Task[None] | None" = None
    runs: bool = False
    over: bool = False
    came_back: bool = False
    waits: list[Wait] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, int]:
        return self.job.root_id, self.job.depth

    @property
    def parked(self) -> bool:
        return any(not wait.answered.is_set() for wait in self.waits)

    def is_below(self, other: "Node") -> bool:
        return self.job.path.startswith(other.job.path + "/")


@dataclass
class Gate:
    """Lets everybody pass, and notes how many ran at each launch."""

    running: list[int] = field(default_factory=list)

    def admits(self, running: int) -> bool:
        self.running.append(running)
        return True

    def admits_of(self, account: str, running: int) -> bool:
        return True

    def launching(self, job_id: str) -> None:
        pass

    def started(self, job_id: str) -> None:
        pass


class SchedulerMachine(RuleBasedStateMachine):
    """The scheduler beside a plain list of who stands, runs and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.nodes: list[Node] = []
        self.granted: list[Node] = []
        self.passed: dict[str, Counter[str]] = defaultdict(Counter)
        self.hopeful: set[str] = set()
        self.gate = Gate()
        self.pauses = PausedPaths()

    @initialize(
        slots=st.dictionaries(st.integers(0, MAX_DEPTH), st.integers(1, 3), min_size=1), max_running=st.integers(1, 4)
    )
    def begin(self, slots: dict[int, int], max_running: int) -> None:
        self.limits = TreeLimits(max_concurrent=slots)
        self.max_running = max_running
        self.scheduler = Scheduler(self.limits, max_running, self.gate, pauses=self.pauses)

    @rule(jobs=st.integers(1, 3))
    def begin_a_tree(self, jobs: int) -> None:
        root = f"b{len(self.nodes)}"
        self.act(*(self.submit(None, root, 1, f"{root}/") for _ in range(jobs)))

    @rule(pick=picks, jobs=st.integers(1, 3))
    def spawn(self, pick: int, jobs: int) -> None:
        for node in self.one(pick, (node for node in self.running() if node.job.depth < MAX_DEPTH)):
            above = node.job
            self.act(*(self.submit(node, above.root_id, above.depth + 1, f"{above.path}/") for _ in range(jobs)))

    @rule(pick=picks)
    def wait_for_descendants(self, pick: int) -> None:
        for node in self.one(pick, (node for node in self.running() if self.below(node))):
            self.act(self.wait(node))

    @rule(pick=picks)
    def time_a_wait_out(self, pick: int) -> None:
        for node in self.one(pick, (node for node in self.running() if node.parked)):
            node.waits[pick % len(node.waits)].answered.set()
            self.act()

    @rule(pick=picks)
    def cancel_a_wait(self, pick: int) -> None:
        for node in self.one(pick, (node for node in self.running() if node.waits)):
            node.waits[pick % len(node.waits)].task.cancel()
            self.act()

    @rule(pick=picks)
    def end(self, pick: int) -> None:
        for node in self.one(pick, self.running()):
            node.ended.set()
            self.act()

    @rule(pick=picks, whole=st.booleans())
    def pause(self, pick: int, whole: bool) -> None:
        for node in self.one(pick, (node for node in self.nodes if not node.over)):
            self.pauses.put([PausedPath(path=node.job.root_id if whole else node.job.path, since=0.0)])
            self.act(self.sort(node.job.root_id))

    @rule(pick=picks)
    def resume(self, pick: int) -> None:
        for path in [row.path for row in self.pauses.under("")][pick % 3 :: 3]:
            self.pauses.drop([path])
            self.act(self.sort(path.partition("/")[0]))

    @rule(pick=picks)
    def withdraw(self, pick: int) -> None:
        for node in self.one(pick, self.standing()):
            self.act(self.call(self.scheduler.withdraw, node.job.id))
            assert node.over

    @rule(pick=picks)
    def cancel_one_in_line(self, pick: int) -> None:
        for node in self.one(pick, self.standing()):
            assert node.task is not None
            node.task.cancel()
            self.act()
            assert node.over

    @rule(pick=picks)
    def cancel_one_as_it_is_served(self, pick: int) -> None:
        for ending, cancelled in zip(self.one(pick, self.running()), self.one(pick, self.standing()), strict=False):
            assert cancelled.task is not None
            ending.ended.set()
            self.loop.run(asyncio.sleep(0))
            cancelled.task.cancel()
            self.act()
            assert cancelled.over

    @invariant()
    def no_more_run_than_may_but_for_those_who_came_back_from_a_wait(self) -> None:
        back = sum(node.came_back for node in self.active())
        assert self.scheduler.running() <= self.max_running + back

    @invariant()
    def nobody_is_called_in_at_or_above_the_cap(self) -> None:
        assert all(running < self.max_running for running in self.gate.running)
        self.gate.running.clear()

    @invariant()
    def a_job_is_parked_exactly_while_it_waits(self) -> None:
        for node in self.running():
            assert self.scheduler.is_parked(node.job.id) is node.parked

    @invariant()
    def no_depth_of_a_tree_holds_more_than_its_slots(self) -> None:
        at = Counter(node.place for node in self.running())
        for (root, depth), held in at.items():
            assert held <= self.limits.slots_at(depth), root

    @invariant()
    def the_counters_tell_what_is_so(self) -> None:
        assert self.scheduler.running() == len(self.active())
        assert self.scheduler.waiting() == len(self.queued())

    @invariant()
    def nobody_stands_while_there_is_room(self) -> None:
        assert not self.runnable_trees() or self.scheduler.running() >= self.max_running

    @invariant()
    def a_tree_that_could_be_served_is_passed_at_most_once_by_each_other(self) -> None:
        for node in self.granted:
            self.passed.pop(node.job.root_id, None)
            for root in self.hopeful - {node.job.root_id}:
                self.passed[root][node.job.root_id] += 1
        self.granted.clear()
        # A tree stays hopeful from one look to the next only if it was not served and its depth has kept its room.
        self.hopeful = self.runnable_trees()
        for root in set(self.passed) - self.hopeful:
            del self.passed[root]
        assert all(times <= 1 for others in self.passed.values() for times in others.values())

    def teardown(self) -> None:
        """Drain: every running job ends, and every queued job must get its turn."""
        if not hasattr(self, "scheduler"):
            return
        try:
            self.pauses.drop([row.path for row in self.pauses.under("")])
            self.act(self.sort(None))
            while any(not node.over for node in self.nodes):
                free = [node for node in self.running() if not node.waits]
                assert free, "jobs are left and none of them runs"
                free[-1].ended.set()
                self.act()
                self.no_more_run_than_may_but_for_those_who_came_back_from_a_wait()
                self.nobody_is_called_in_at_or_above_the_cap()
                self.a_tree_that_could_be_served_is_passed_at_most_once_by_each_other()
            for wait in (wait for node in self.nodes for wait in node.waits):
                wait.answered.set()  # calls of jobs that ended in the middle of them
            self.act()
            assert (self.scheduler.running(), self.scheduler.waiting()) == (0, 0)
            known = {name for node in self.nodes for name in (node.job.id, node.job.root_id)}
            assert not names_in(self.scheduler) & known
        finally:
            self.loop.close()

    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.runs and not node.over]

    def active(self) -> list[Node]:
        return [node for node in self.running() if not node.waits]

    def standing(self) -> list[Node]:
        return [node for node in self.nodes if not node.runs and not node.over]

    def queued(self) -> list[Node]:
        return [node for node in self.standing() if not self.pauses.holds(node.job.path)]

    def below(self, node: Node) -> list[Node]:
        return [other for other in self.nodes if not other.over and other.is_below(node)]

    def runnable_trees(self) -> set[str]:
        held = Counter(node.place for node in self.running())
        return {node.job.root_id for node in self.queued() if held[node.place] < self.limits.slots_at(node.job.depth)}

    @staticmethod
    def one(pick: int, among: Iterable[Node]) -> list[Node]:
        found = list(among)
        return [found[pick % len(found)]] if found else []

    def act(self, *calls: Coroutine[Any, Any, None]) -> None:
        """Do something in the event loop, and go on until nothing more comes of it."""
        self.loop.run(self.until_quiet(calls))

    async def until_quiet(self, calls: Iterable[Coroutine[Any, Any, None]]) -> None:
        for call in calls:
            await call
        answered = True
        while answered:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            met = [node for node in self.nodes if node.parked and not self.below(node)]
            answered = bool(met)
            for wait in (wait for node in met for wait in node.waits):
                wait.answered.set()
            for node in self.nodes:
                node.waits = [wait for wait in node.waits if not wait.task.done()]

    async def call(self, function: Callable[[str], None], argument: str) -> None:
        function(argument)

    async def sort(self, root_id: str | None) -> None:
        self.scheduler.sort_paused(None if root_id is None else [root_id])

    async def submit(self, parent: Node | None, root: str, depth: int, above: str) -> None:
        if len(self.nodes) >= MOST_JOBS:
            return
        name = f"j{len(self.nodes)}"
        spec = JobSpec(task="x", cwd="/")
        job = Job(
            seq=len(self.nodes), id=name, root_id=root, parent_id=None, batch_id=root, depth=depth, path=above + name,
            spec=spec,
        )  # fmt: skip
        node = Node(job=job, parent=parent, ended=asyncio.Event())
        self.nodes.append(node)
        node.task = asyncio.ensure_future(self.live(node))

    async def live(self, node: Node) -> None:
        try:
            async with self.scheduler.slot(node.job) as granted:
                if granted:
                    node.runs = True
                    self.granted.append(node)
                    await node.ended.wait()
        finally:
            node.over = True

    async def wait(self, node: Node) -> None:
        answered = asyncio.Event()
        node.waits.append(Wait(answered, asyncio.ensure_future(self.park(node, answered))))

    async def park(self, node: Node, answered: asyncio.Event) -> None:
        try:
            async with self.scheduler.parked(node.job.id):
                await answered.wait()
        finally:
            node.came_back = True


SchedulerMachine.TestCase.settings = settings(max_examples=1_000 if LONG else 40, stateful_step_count=40, deadline=None)
test_random_trees_keep_the_rules_of_the_line = SchedulerMachine.TestCase
