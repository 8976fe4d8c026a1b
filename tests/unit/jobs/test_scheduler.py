"""The line: who runs next, how many run, and what a wait gives back."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import anyio
import pytest

from jobs.model import Job, JobStatus
from jobs.scheduler import Scheduler
from jobs.spec import JobSpec
from orchestration.limits import TreeLimits
from tests.support.reachable import names_in
from tests.unit.jobs.support import OpenGate, job, settle

pytestmark = pytest.mark.anyio

ONE_EACH = TreeLimits(max_concurrent={0: 1})
MANY = TreeLimits(max_concurrent={0: 100})


class Gate:
    """A gate that a test opens and shuts."""

    def __init__(self) -> None:
        self.open = False
        self.calls: list[str] = []

    def admits(self, running: int) -> bool:
        return self.open

    def admits_of(self, account: str, running: int) -> bool:
        return True

    def launching(self, job_id: str) -> None:
        self.calls.append(f"launching {job_id}")

    def started(self, job_id: str) -> None:
        self.calls.append(f"started {job_id}")


class Line:
    """Jobs that are queued, run until they are told to end, and wait until what they wait for is over."""

    def __init__(self, scheduler: Scheduler, group: anyio.abc.TaskGroup, gate: Gate | None = None) -> None:
        self.scheduler = scheduler
        self.gate = gate
        self.served: list[str] = []
        self.sent_away: list[str] = []
        self.back: list[str] = []
        self.known: set[str] = set()
        self._group = group
        self.ends: dict[str, anyio.Event] = {}
        self.answers: dict[str, anyio.Event] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}

    def assert_empty(self) -> None:
        """Assert that the scheduler remembers nobody who ever came."""
        assert (self.scheduler.running(), self.scheduler.waiting()) == (0, 0)
        assert not (names_in(self.scheduler) - names_in(self.gate)) & self.known

    async def come(self, *jobs: Job) -> None:
        for one in jobs:
            self.known |= {one.id, one.root_id, one.batch_id}
            self.ends[one.id] = anyio.Event()
            self._group.start_soon(self._stand, one)
            await settle()

    async def end(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.ends[job_id].set()
            await settle()

    async def wait(self, job_id: str, name: str) -> None:
        self.answers[name] = anyio.Event()
        self._group.start_soon(self._wait, job_id, name)
        await settle()

    async def answer(self, name: str) -> None:
        self.answers[name].set()
        await settle()

    async def cancel(self, name: str) -> None:
        self._scopes[name].cancel()
        await settle()

    async def _stand(self, one: Job) -> None:
        with anyio.CancelScope() as self._scopes[one.id]:
            async with self.scheduler.slot(one) as granted:
                (self.served if granted else self.sent_away).append(one.id)
                if granted:
                    await self.ends[one.id].wait()

    async def _wait(self, job_id: str, name: str) -> None:
        with anyio.CancelScope() as self._scopes[name]:
            async with self.scheduler.parked(job_id):
                await self.answers[name].wait()
            self.back.append(name)


@asynccontextmanager
async def line(
    limits: TreeLimits = MANY,
    max_running: int = 100,
    gate: Gate | None = None,
    account_of: Callable[[str], str] = lambda _: "",
    subtree_slots: Mapping[str, int] = MappingProxyType({}),
) -> AsyncIterator[Line]:
    scheduler = Scheduler(limits, max_running, gate or OpenGate(), account_of, subtree_slots)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            yield (queue := Line(scheduler, group, gate))
            group.cancel_scope.cancel()
    queue.assert_empty()


async def test_jobs_of_one_depth_are_served_in_the_order_they_came():
    async with line(max_running=1) as queue:
        await queue.come(*[job(f"j{number}") for number in range(4)])
        await queue.end("j0", "j1", "j2")
        assert queue.served == ["j0", "j1", "j2", "j3"]


async def test_a_subtree_has_no_more_slots_than_it_may_and_other_subtrees_go_on():
    slots = {"r/a": 2}
    async with line(subtree_slots=slots) as queue:
        inside = [job(f"a{number}", root="r", path=f"r/a/a{number}") for number in range(3)]
        await queue.come(job("a", root="r", path="r/a"), *inside, job("ab", root="r", path="r/ab"))
        assert queue.served == ["a", "a0", "ab"]
        slots["r/a"] = 3
        queue.scheduler.reschedule()
        await settle()
        assert queue.served == ["a", "a0", "ab", "a1"]
        del slots["r/a"]
        await queue.end("ab")
        assert queue.served == ["a", "a0", "ab", "a1", "a2"]


async def test_trees_take_turns_however_many_jobs_one_of_them_has():
    async with line(max_running=1) as queue:
        await queue.come(*[job(f"a{number}", root="a") for number in range(4)])
        await queue.come(job("b0", root="b"), job("b1", root="b"), job("c0", root="c"))
        await queue.end("a0", "a1", "b0", "c0", "a2")
        assert queue.served == ["a0", "a1", "b0", "c0", "a2", "b1"]


async def test_a_deeper_job_of_a_tree_goes_before_one_that_came_earlier():
    async with line(max_running=1) as queue:
        await queue.come(job("first"), job("shallow", depth=1), job("deep", depth=3), job("middle", depth=2))
        await queue.end("first", "deep", "middle")
        assert queue.served == ["first", "deep", "middle", "shallow"]


async def test_a_depth_has_its_slots_in_each_tree_and_the_others_theirs():
    async with line(TreeLimits(max_concurrent={0: 1, 1: 2, 2: 1})) as queue:
        await queue.come(*[job(f"a{number}", root="a") for number in range(3)])
        await queue.come(*[job(f"deep{number}", root="a", depth=2) for number in range(2)])
        await queue.come(job("b0", root="b"))
        assert queue.served == ["a0", "a1", "deep0", "b0"]
        await queue.end("deep0")
        assert queue.served[-1] == "deep1"


async def test_a_batch_that_says_so_runs_no_more_at_once_and_holds_up_nobody_behind_it():
    few = JobSpec(task="x", cwd="/", batch_slots=2)
    async with line() as queue:
        await queue.come(*[job(f"few{number}", batch_id="few", spec=few) for number in range(4)])
        await queue.come(job("other", batch_id="other"))
        assert queue.served == ["few0", "few1", "other"]
        await queue.end("few1")
        assert queue.served[-1] == "few2"
        queue.scheduler.withdraw("few3")
        await queue.end("few0", "few2")
        assert queue.served[-1] == "few2"


async def test_a_tree_whose_depth_is_full_does_not_hold_up_the_others():
    async with line(ONE_EACH, max_running=2) as queue:
        await queue.come(job("a0", root="a"), job("a1", root="a"), job("b0", root="b"))
        assert queue.served == ["a0", "b0"]
        assert queue.scheduler.waiting() == 1


async def test_the_machine_runs_no_more_than_its_cap():
    async with line(max_running=3) as queue:
        await queue.come(*[job(f"j{number}", root=f"t{number}") for number in range(5)])
        assert (queue.scheduler.running(), queue.scheduler.waiting()) == (3, 2)
        await queue.end("j1")
        assert (queue.scheduler.running(), queue.scheduler.waiting()) == (3, 1)


async def test_a_job_that_lives_already_is_seated_beyond_the_cap_and_counts():
    async with line(ONE_EACH, max_running=1) as queue:
        await queue.come(job("new"), job("waiting"))
        await queue.come(job("adopted", status=JobStatus.RUNNING))
        assert queue.served == ["new", "adopted"]
        assert queue.scheduler.running() == 2
        await queue.end("new")
        assert queue.scheduler.waiting() == 1
        await queue.end("adopted")
        assert queue.served == ["new", "adopted", "waiting"]


async def test_jobs_that_live_are_counted_before_whoever_comes_first():
    async with line(MANY, max_running=2) as queue:
        lives = [job(name, status=JobStatus.RUNNING) for name in ("a", "b")]
        for one in lives:
            queue.scheduler.reserve_adopted(one)
        await queue.come(job("early"))
        assert (queue.served, queue.scheduler.running()) == ([], 2)
        await queue.come(*lives)
        assert (queue.served, queue.scheduler.running()) == (["a", "b"], 2)
        await queue.end("a")
        assert queue.served == ["a", "b", "early"]
        await queue.end("b", "early")


async def test_a_job_that_lives_and_waits_before_it_comes_for_its_slot_leaves_the_slot_to_its_child():
    # Its call arrives at the new engine at once, while the batch still waits for the account to be looked up.
    account = ""
    async with line(MANY, max_running=1, account_of=lambda _: account) as queue:
        parent = job("parent", status=JobStatus.RUNNING)
        queue.scheduler.reserve_adopted(parent)
        await queue.wait("parent", "w")
        account = "known"
        await queue.come(parent, job("child", depth=2))
        assert queue.served == ["parent", "child"]
        await queue.end("child")
        await queue.answer("w")
        assert queue.scheduler.running() == 1
        await queue.end("parent")


async def test_a_closed_line_calls_nobody_in():
    async with line(MANY, max_running=1) as queue:
        await queue.come(job("a"), job("b"))
        queue.scheduler.close()
        await queue.end("a")
        assert (queue.served, queue.scheduler.waiting()) == (["a"], 1)
        queue.scheduler.withdraw("b")
        await settle()


async def test_a_parked_job_keeps_its_place_at_its_depth():
    async with line(ONE_EACH) as queue:
        await queue.come(job("parent"), job("sibling"), job("child", depth=2))
        await queue.wait("parent", "w")
        assert queue.served == ["parent", "child"]
        await queue.end("parent")
        assert queue.served == ["parent", "child", "sibling"]


async def test_a_parked_job_gives_its_slot_to_its_child_and_answers_when_asked():
    async with line(max_running=1) as queue:
        await queue.come(job("parent"), job("child", depth=2))
        assert queue.served == ["parent"]
        await queue.wait("parent", "w")
        assert queue.served == ["parent", "child"]
        await queue.answer("w")
        assert queue.back == ["w"]
        assert queue.scheduler.running() == 2


async def test_nobody_new_is_called_in_while_those_who_came_back_are_above_the_cap():
    async with line(max_running=2) as queue:
        await queue.come(job("shallow"), job("deep", depth=2))
        await queue.wait("shallow", "s")
        await queue.wait("deep", "d")
        await queue.come(*[job(f"new{number}", root="other") for number in range(3)])
        await queue.answer("s")
        await queue.answer("d")
        assert queue.back == ["s", "d"]
        assert queue.scheduler.running() == 4
        await queue.end("new0", "new1")
        assert (queue.scheduler.running(), queue.scheduler.waiting()) == (2, 1)
        await queue.end("shallow")
        assert (queue.scheduler.running(), queue.scheduler.waiting()) == (2, 0)


async def test_of_two_waits_at_once_only_the_last_takes_the_slot_back():
    async with line(max_running=1) as queue:
        await queue.come(job("parent"), job("child", depth=2))
        await queue.wait("parent", "w1")
        await queue.wait("parent", "w2")
        await queue.answer("w1")
        assert (queue.back, queue.served) == (["w1"], ["parent", "child"])
        assert queue.scheduler.running() == 1
        await queue.answer("w2")
        assert queue.back == ["w1", "w2"]
        assert queue.scheduler.running() == 2


async def test_a_new_wait_of_a_job_that_came_back_gives_its_slot_away_again():
    async with line(max_running=1) as queue:
        await queue.come(job("parent"), job("child1", depth=2), job("child2", depth=2))
        await queue.wait("parent", "w1")
        await queue.answer("w1")
        await queue.wait("parent", "w2")
        assert queue.scheduler.running() == 1
        await queue.end("child1")
        assert queue.served == ["parent", "child1", "child2"]
        assert queue.back == ["w1"]


async def test_a_wait_of_a_job_that_holds_no_slot_passes_through():
    async with line(max_running=1) as queue:
        await queue.come(job("runs"), job("stands"))
        for name in ("nobody", "stands"):
            await queue.wait(name, name)
            await queue.answer(name)
        assert queue.back == ["nobody", "stands"]
        assert (queue.scheduler.running(), queue.scheduler.waiting()) == (1, 1)


async def test_a_job_that_ends_while_it_is_parked_takes_no_slot_back():
    async with line(max_running=1) as queue:
        await queue.come(job("parent"))
        await queue.wait("parent", "w")
        await queue.end("parent")
        await queue.answer("w")
        assert queue.back == ["w"]
        assert queue.scheduler.running() == 0


async def test_an_old_attempts_wait_does_not_touch_the_slot_of_the_next_attempt():
    async with line(max_running=1) as queue:
        await queue.come(job("parent"))
        await queue.wait("parent", "old")
        await queue.end("parent")
        await queue.come(job("parent"))
        await queue.wait("parent", "new")
        await queue.answer("new")
        assert queue.scheduler.running() == 1
        await queue.answer("old")
        assert queue.back == ["new", "old"]
        assert queue.scheduler.running() == 1


async def test_a_cancelled_wait_counts_its_job_as_running_at_once():
    async with line(max_running=1) as queue:
        await queue.come(job("parent"), job("child", depth=2), job("next", depth=2))
        await queue.wait("parent", "w")
        await queue.cancel("w")
        assert queue.scheduler.running() == 2
        await queue.end("child")
        assert (queue.scheduler.running(), queue.scheduler.waiting()) == (1, 1)


async def test_a_withdrawn_job_is_sent_away_and_the_next_one_is_served():
    async with line(max_running=1) as queue:
        await queue.come(job("runs"), job("out"), job("next"))
        queue.scheduler.withdraw("out")
        await settle()
        assert (queue.sent_away, queue.scheduler.waiting()) == (["out"], 1)
        await queue.end("runs")
        assert queue.served == ["runs", "next"]


async def test_withdrawing_a_job_that_runs_or_that_nobody_knows_changes_nothing():
    async with line(max_running=1) as queue:
        await queue.come(job("runs"))
        queue.scheduler.withdraw("runs")
        queue.scheduler.withdraw("nobody")
        await settle()
        assert (queue.sent_away, queue.scheduler.running()) == ([], 1)


async def test_a_withdrawal_after_the_grant_and_before_the_wake_up_comes_too_late():
    async with line(max_running=1) as queue:
        await queue.come(job("runs"), job("next"))
        queue.ends["runs"].set()
        while queue.scheduler.waiting():
            await anyio.lowlevel.checkpoint()
        queue.scheduler.withdraw("next")
        await settle()
        assert queue.served == ["runs", "next"]


@pytest.mark.parametrize("steps", range(6))
async def test_a_job_cancelled_at_any_step_of_its_coming_leaves_nothing(steps: int):
    scheduler = Scheduler(ONE_EACH, 1, OpenGate())
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            queue = Line(scheduler, group)
            await queue.come(job("runs"), job("cancelled"), job("after"))
            queue.ends["runs"].set()
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            await queue.cancel("cancelled")
            assert queue.served[-1] == "after"
            await queue.end("after")
    queue.assert_empty()


@pytest.mark.parametrize("steps", range(8))
async def test_a_wait_cancelled_at_any_step_leaves_its_job_with_one_slot(steps: int):
    scheduler = Scheduler(MANY, 1, OpenGate())
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            queue = Line(scheduler, group)
            await queue.come(job("parent"), job("child", depth=2))
            await queue.wait("parent", "w")
            queue.answers["w"].set()
            queue.ends["child"].set()
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            await queue.cancel("w")
            assert (scheduler.running(), scheduler.waiting()) == (1, 0)
            await queue.end("parent")
    queue.assert_empty()


async def test_a_shut_gate_holds_the_line_until_somebody_looks_again():
    gate = Gate()
    async with line(gate=gate) as queue:
        await queue.come(job("a"), job("b"))
        assert (queue.served, queue.scheduler.waiting()) == ([], 2)
        gate.open = True
        queue.scheduler.reschedule()
        await settle()
        assert queue.served == ["a", "b"]
        await queue.end("a")
        assert gate.calls == ["launching a", "launching b", "started a"]


async def test_who_looks_again_sleeps_until_the_gate_keeps_somebody_out():
    gate = Gate()
    gate.open = True
    async with line(gate=gate, max_running=1) as queue:
        await queue.come(job("a"))
        await queue.come(job("b"))
        with anyio.move_on_after(0.01) as nobody_is_kept_out:
            await queue.scheduler.refused()
        assert nobody_is_kept_out.cancelled_caught
        gate.open = False
        await queue.end("a")
        with anyio.fail_after(60):
            await queue.scheduler.refused()
        gate.open = True
        queue.scheduler.reschedule()
        await settle()
        assert queue.served == ["a", "b"]


async def test_a_shut_gate_holds_up_nobody_whose_process_lives():
    gate = Gate()
    async with line(max_running=1, gate=gate) as queue:
        await queue.come(job("adopted", status=JobStatus.RUNNING))
        await queue.wait("adopted", "w")
        await queue.answer("w")
        assert (queue.served, queue.back) == (["adopted"], ["w"])


async def test_a_job_is_parked_for_as_long_as_one_of_its_waits_lasts():
    async with line() as queue:
        await queue.come(job("parent"))
        states = [queue.scheduler.is_parked("parent")]
        for name in ("w1", "w2"):
            await queue.wait("parent", name)
            states.append(queue.scheduler.is_parked("parent"))
        for name in ("w1", "w2"):
            await queue.answer(name)
            states.append(queue.scheduler.is_parked("parent"))
        assert states == [False, True, True, True, False]
        assert not queue.scheduler.is_parked("nobody")


async def test_parking_is_told_once_for_all_waits_of_a_job_and_never_of_an_attempt_that_is_over():
    told: list[tuple[str, bool]] = []
    scheduler = Scheduler(MANY, 100, OpenGate(), on_park=lambda job_id, parked: told.append((job_id, parked)))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            queue = Line(scheduler, group)
            await queue.come(job("parent"))
            for name in ("w1", "w2"):
                await queue.wait("parent", name)
            for name in ("w1", "w2"):
                await queue.answer(name)
            assert told == [("parent", True), ("parent", False)]
            await queue.wait("parent", "old")
            await queue.end("parent")
            await queue.come(job("parent"))
            await queue.answer("old")
            assert told[2:] == [("parent", True)]
            await queue.end("parent")
    queue.assert_empty()


class Accounts(Gate):
    """A gate that holds back the jobs of some accounts; each tree's account is its name's first letter."""

    def __init__(self, *shut: str) -> None:
        super().__init__()
        self.open = True
        self.shut = set(shut)
        self.asked = 0
        self.moved: dict[str, str] = {}

    def admits_of(self, account: str, running: int) -> bool:
        self.asked += 1
        return account not in self.shut

    def of(self, root_id: str) -> str:
        return self.moved.get(root_id, root_id[0])


async def test_jobs_of_another_account_pass_those_of_one_that_is_shut_out_and_these_keep_their_order():
    gate = Accounts("a")
    async with line(max_running=1, gate=gate, account_of=gate.of) as queue:
        await queue.come(job("a1", root="a"), job("a2", root="a"), job("b1", root="b"), job("b2", root="b"))
        assert queue.served == ["b1"]
        assert [queue.scheduler.waiting(account) for account in ("a", "b", None)] == [2, 1, 3]
        await queue.end("b1")
        gate.shut.clear()
        await queue.come(job("a3", root="a"))
        await queue.end("b2", "a1", "a2", "a3")
        assert queue.served == ["b1", "b2", "a1", "a2", "a3"]


async def test_trees_of_all_accounts_take_turns():
    gate = Accounts()
    async with line(max_running=1, gate=gate, account_of=gate.of) as queue:
        names = [f"{tree}-{number}" for tree in ("a1", "b1", "a2") for number in range(2)]
        await queue.come(job("first", root="c"), *[job(name, root=name.partition("-")[0]) for name in names])
        await queue.end("first", "a1-0", "b1-0", "a2-0", "a1-1", "b1-1")
        assert queue.served == ["first", "a1-0", "b1-0", "a2-0", "a1-1", "b1-1", "a2-1"]


async def test_a_tree_that_takes_another_account_waits_for_that_one():
    gate = Accounts("a")
    async with line(gate=gate, account_of=gate.of) as queue:
        await queue.come(job("j1", root="a"), job("j2", root="a2"))
        assert queue.scheduler.queued_trees("a") == ("a", "a2")
        gate.moved["a"] = "b"
        queue.scheduler.move("a")
        queue.scheduler.move("unknown")
        await settle()
        assert queue.served == ["j1"]
        assert queue.scheduler.account_of("j1") == "b"
        assert [queue.scheduler.waiting(account) for account in "ab"] == [1, 0]


async def test_a_job_runs_for_the_account_with_which_it_was_launched():
    gate = Accounts()
    async with line(gate=gate, account_of=gate.of) as queue:
        await queue.come(job("j1", root="a"))
        gate.moved["a"] = "b"
        await queue.come(job("j2", root="a"))
        assert [queue.scheduler.account_of(name) for name in ("j1", "j2", "nobody")] == ["a", "b", ""]


async def test_an_adopted_job_has_the_account_that_was_found_until_it_comes():
    gate = Accounts()
    async with line(gate=gate, account_of=gate.of) as queue:
        gate.moved["a"] = ""
        lives = job("j1", root="a", status=JobStatus.RUNNING)
        queue.scheduler.reserve_adopted(lives)
        gate.moved["a"] = "found"
        await queue.come(lives)
        assert queue.scheduler.account_of("j1") == "found"


async def test_a_start_looks_at_no_tree_of_an_account_that_is_shut_out():
    looked: list[int] = []

    class Counted(TreeLimits):
        def slots_at(self, depth: int) -> int:
            looked.append(depth)
            return super().slots_at(depth)

    gate = Accounts("a")

    async def stand(one: Job) -> None:
        async with queue.scheduler.slot(one):
            raise AssertionError("an account that is shut out was served")

    limits = Counted(max_concurrent={0: 100})
    async with line(limits, gate=gate, account_of=gate.of) as queue, anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(stand, job(f"a{number}", root=f"a{number}"))
        await settle()
        assert (queue.scheduler.waiting("a"), looked) == (1000, [])
        gate.asked = 0
        await queue.come(job("b1", root="b"))
        assert queue.served == ["b1"]
        assert (len(looked), gate.asked) == (1, 3)
        group.cancel_scope.cancel()
