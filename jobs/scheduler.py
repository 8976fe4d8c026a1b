"""Scheduler: the queue for slots, in order within a tree, round-robin between trees, deeper jobs first.

All jobs of a tree use one account. The trees of an account that may launch nothing now are passed over as a whole.
Paused jobs are not in the queue: they stand aside until they are resumed, and come back to their places.
"""

import asyncio
import heapq
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType

import anyio

from jobs.ids import contains
from jobs.model import Job, JobStatus
from jobs.paused import PausedPaths
from jobs.ports import LaunchGate
from orchestration.limits import TreeLimits


@dataclass(eq=False)
class _Ticket:
    """One job's place in the queue, answered once: it is granted a slot or withdrawn."""

    job: Job
    number: int
    account: str = ""
    granted: bool = False
    answered: bool = False
    waiter: "asyncio.Future[None] | None" = None

    def answer(self, *, granted: bool) -> None:
        self.granted, self.answered = granted, True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self) -> None:
        # An event would cost three times the memory, and a pass of the loop where the answer is there already.
        if not self.answered:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter


@dataclass(eq=False)
class _Tree:
    """The queued jobs of one tree.

    Args:
        account: The account that the tree uses.
        turn: Its place in the round of all trees: the lowest is served first.
        lines: By depth, each in order, and its tickets removable at once: 10,000 are withdrawn together.
    """

    account: str
    turn: int
    lines: "dict[int, OrderedDict[_Ticket, None]]" = field(default_factory=dict)


class Scheduler:
    """Gives out slots: a number for each depth of a tree, for a batch that sets one, and for the machine.

    A job that waits for its own descendants parks its machine slot for that time, so that a parent never starves its
    child; its slot at its depth it keeps, since its descendants are deeper. After the wait it has a slot at once,
    beyond the cap if need be: its process lives, and its call must answer in the time that it was given. So at most
    `max_running` jobs and those that came back from a wait run together, and no new job is started above the cap.

    Args:
        limits: How many jobs of one tree may run at each depth.
        max_running: How many jobs may run on the machine.
        gate: Tells whether one more may be launched now. Call `reschedule` when it opens.
        account_of: Returns the account that a tree uses, by the tree's id. Call `move` when that changes.
        subtree_slots: By path, how many jobs of a subtree may hold a slot at once, kept up to date by its owner. Call
            `reschedule` when one is raised.
        pauses: What is paused; None where nothing ever is. Call `sort_paused` when that changes.
        on_park: Called with a job's id and whether it parks its slot now, or has taken it again.
    """

    def __init__(
        self,
        limits: TreeLimits,
        max_running: int,
        gate: LaunchGate,
        account_of: Callable[[str], str] = lambda _: "",
        subtree_slots: Mapping[str, int] = MappingProxyType({}),
        pauses: PausedPaths | None = None,
        on_park: Callable[[str, bool], object] = lambda _id, _parked: None,
    ) -> None:
        self._on_park = on_park
        self._subtree_slots = subtree_slots
        self._limits = limits
        self._max_running = max_running
        self._gate = gate
        self._account_of = account_of
        self._pauses = pauses or PausedPaths()
        # The paused jobs of each tree: no dispatch looks at them.
        self._aside: dict[str, dict[_Ticket, None]] = {}
        self._numbers = count()
        self._trees: dict[str, _Tree] = {}
        # The queued trees of each account, in the order of their turns.
        self._by_account: dict[str, OrderedDict[str, _Tree]] = {}
        self._turns = count()
        self._waiting: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._tickets: dict[str, _Ticket] = {}
        self._expected: dict[str, _Ticket] = {}
        self._at_depth: Counter[tuple[str, int]] = Counter()
        self._of_batch: Counter[str] = Counter()
        self._busy: set[_Ticket] = set()
        self._parked: Counter[_Ticket] = Counter()
        self._closed = False
        self._refusal = anyio.Event()

    @asynccontextmanager
    async def slot(self, job: Job) -> AsyncIterator[bool]:
        """Wait in the queue, then hold a slot while the block lasts.

        A job whose status is running has a process that an earlier engine launched: it gets a slot at once, even beyond
        the limits, since its process would run unwatched meanwhile.

        Yields:
            False where the job was withdrawn from the queue: it holds no slot and must not run.
        """
        ticket = self._expected.pop(job.id, None)
        if ticket is None:
            ticket = _Ticket(job, next(self._numbers))
            self._join(ticket, lives=job.status is JobStatus.RUNNING)
        else:
            # The account of its tree is known from here on. By now the job may wait in a call.
            holds = ticket in self._busy
            self._release(ticket)
            ticket.account = self._account_of(ticket.job.root_id)
            if holds:
                self._hold(ticket)
        try:
            await ticket.wait()
            yield ticket.granted
        finally:
            self._leave(ticket)

    def reserve_adopted(self, job: Job) -> None:
        """Reserve the slot of a job that an earlier engine launched, before the job asks for it.

        Otherwise the first jobs after a start would take the slots of processes that live, and twice as many
        would run as may.
        """
        ticket = _Ticket(job, next(self._numbers))
        self._expected[job.id] = ticket
        self._join(ticket, lives=True)

    def close(self) -> None:
        """Grant no more slots: the engine is stopping, and the slots that it releases are not for further jobs."""
        self._closed = True

    @asynccontextmanager
    async def parked(self, job_id: str) -> AsyncIterator[None]:
        """Give the job's machine slot to others while the block lasts; the job has one again when it ends.

        A job that waits in several calls at once takes its slot again when the last of them ends: it cannot go on
        before it has every answer. A job that holds no slot passes through.
        """
        ticket = self._tickets.get(job_id)
        if ticket is None or not ticket.granted:
            yield
            return
        self._park(ticket)
        try:
            yield
        finally:
            self._unpark(ticket)

    def withdraw(self, job_id: str) -> None:
        """Take a job out of the queue; one that runs is left alone."""
        ticket = self._tickets.get(job_id)
        if ticket is not None and not ticket.granted:
            self._dequeue(ticket)
            ticket.answer(granted=False)

    def move(self, root_id: str) -> None:
        """Move the queued jobs of a tree to the queue of the account that the tree uses now."""
        tree = self._trees.get(root_id)
        if tree is None or tree.account == (account := self._account_of(root_id)):
            return
        jobs = sum(map(len, tree.lines.values()))
        self._waiting[tree.account] -= jobs
        self._drop(root_id, tree)
        self._waiting[account] += jobs
        self._add(root_id, _Tree(account, next(self._turns), tree.lines))
        self._dispatch()

    def sort_paused(self, root_ids: Iterable[str] | None = None) -> None:
        """Take what is paused now out of the queue, and put what is not paused any more back to its place in it.

        Args:
            root_ids: The trees in which something was paused or resumed; None for all.
        """
        for root_id in (*self._trees, *self._aside) if root_ids is None else root_ids:
            self._put_aside(root_id)
            self._bring_back(root_id)
        self._dispatch()

    def account_of(self, job_id: str) -> str:
        """Return the account that a job which holds a slot was launched with; an empty text where it holds none."""
        ticket = self._tickets.get(job_id)
        return ticket.account if ticket is not None else ""

    def account_of_tree(self, root_id: str) -> str:
        """Return the account that a tree uses, as it is known now."""
        return self._account_of(root_id)

    def queued_account(self, root_id: str) -> str | None:
        """Return the account for which jobs of a tree are queued, or None where none is."""
        tree = self._trees.get(root_id)
        return None if tree is None else tree.account

    def queued_trees(self, account: str) -> tuple[str, ...]:
        """Return the trees of an account that have queued jobs."""
        return tuple(self._by_account.get(account, ()))

    def reschedule(self) -> None:
        """Look again whether a queued job may run: the gate may have opened."""
        self._dispatch()

    def update(self, job: Job) -> None:
        """Take over a new limit of a job's batch."""
        if (ticket := self._tickets.get(job.id)) is not None:
            ticket.job = job

    async def refused(self) -> None:
        """Wait until the gate keeps out a job for which there is a slot: from then on call `reschedule`."""
        await self._refusal.wait()
        self._refusal = anyio.Event()

    def is_parked(self, job_id: str) -> bool:
        """Tell whether a job waits for its own descendants."""
        ticket = self._tickets.get(job_id)
        return ticket is not None and self._parked[ticket] > 0

    def running(self, account: str | None = None) -> int:
        """Return how many jobs hold a machine slot; of an account, or of all."""
        return len(self._busy) if account is None else self._running[account]

    def has_queue(self) -> bool:
        """Tell whether a job is queued for a slot."""
        return bool(self._trees)

    def waiting(self, account: str | None = None) -> int:
        """Return how many jobs are queued for a slot; of an account, or of all."""
        return self._waiting.total() if account is None else self._waiting[account]

    def _join(self, ticket: _Ticket, *, lives: bool) -> None:
        self._tickets[ticket.job.id] = ticket
        if lives:
            self._grant(ticket, self._account_of(ticket.job.root_id))
            return
        if self._pauses.holds(ticket.job.path):
            self._aside.setdefault(ticket.job.root_id, {})[ticket] = None
            return
        self._queue_of(ticket.job.root_id).lines.setdefault(ticket.job.depth, OrderedDict())[ticket] = None
        self._waiting[self._trees[ticket.job.root_id].account] += 1
        self._dispatch()

    def _queue_of(self, root_id: str) -> _Tree:
        self.move(root_id)
        if root_id not in self._trees:
            self._add(root_id, _Tree(self._account_of(root_id), next(self._turns)))
        return self._trees[root_id]

    def _put_aside(self, root_id: str) -> None:
        tree = self._trees.get(root_id)
        lines = () if tree is None else tree.lines.values()
        for ticket in [one for line in lines for one in line if self._pauses.holds(one.job.path)]:
            self._dequeue(ticket)
            self._aside.setdefault(root_id, {})[ticket] = None

    def _bring_back(self, root_id: str) -> None:
        back = [one for one in self._aside.get(root_id, ()) if not self._pauses.holds(one.job.path)]
        if not back:
            return
        tree = self._queue_of(root_id)
        for ticket in back:
            self._forget_aside(ticket)
            tree.lines.setdefault(ticket.job.depth, OrderedDict())[ticket] = None
        for depth in {ticket.job.depth for ticket in back}:
            # Before those that came meanwhile.
            tree.lines[depth] = OrderedDict.fromkeys(sorted(tree.lines[depth], key=lambda one: one.number))
        self._waiting[tree.account] += len(back)

    def _forget_aside(self, ticket: _Ticket) -> None:
        tickets = self._aside.get(ticket.job.root_id, {})
        if tickets.pop(ticket, ticket) is None and not tickets:
            del self._aside[ticket.job.root_id]

    def _leave(self, ticket: _Ticket) -> None:
        if self._tickets.get(ticket.job.id) is ticket:
            del self._tickets[ticket.job.id]
        if ticket.granted:
            self._gate.started(ticket.job.id)
            self._release(ticket)
            self._give_place_back(ticket)
        else:
            self._dequeue(ticket)
        self._dispatch()

    def _give_place_back(self, ticket: _Ticket) -> None:
        place = (ticket.job.root_id, ticket.job.depth)
        self._at_depth[place] -= 1
        if not self._at_depth[place]:
            del self._at_depth[place]
        self._of_batch[ticket.job.batch_id] -= 1
        if not self._of_batch[ticket.job.batch_id]:
            del self._of_batch[ticket.job.batch_id]

    def _dequeue(self, ticket: _Ticket) -> None:
        if self._aside:
            self._forget_aside(ticket)
        tree = self._trees.get(ticket.job.root_id)
        line = tree.lines.get(ticket.job.depth) if tree is not None else None
        if tree is None or line is None or ticket not in line:
            return
        del line[ticket]
        self._waiting[tree.account] -= 1
        if not line:
            del tree.lines[ticket.job.depth]
        if not tree.lines:
            self._drop(ticket.job.root_id, tree)

    def _add(self, root_id: str, tree: _Tree) -> None:
        self._trees[root_id] = tree
        self._by_account.setdefault(tree.account, OrderedDict())[root_id] = tree

    def _drop(self, root_id: str, tree: _Tree) -> None:
        del self._trees[root_id]
        trees = self._by_account[tree.account]
        del trees[root_id]
        if not trees:
            del self._by_account[tree.account], self._waiting[tree.account]

    def _hold(self, ticket: _Ticket) -> None:
        self._busy.add(ticket)
        self._running[ticket.account] += 1

    def _release(self, ticket: _Ticket) -> None:
        if ticket in self._busy:
            self._busy.remove(ticket)
            self._running[ticket.account] -= 1
            if not self._running[ticket.account]:
                del self._running[ticket.account]

    def _park(self, ticket: _Ticket) -> None:
        self._parked[ticket] += 1
        if self._parked[ticket] == 1:
            self._on_park(ticket.job.id, True)
        self._release(ticket)
        self._dispatch()

    def _unpark(self, ticket: _Ticket) -> None:
        self._parked[ticket] -= 1
        if self._parked[ticket]:
            return
        del self._parked[ticket]
        # A job that ended while it waited has nothing to hold a slot for.
        if self._tickets.get(ticket.job.id) is ticket:
            self._hold(ticket)
            self._on_park(ticket.job.id, False)

    def _dispatch(self) -> None:
        while len(self._busy) < self._max_running and self._call_one():
            pass

    def _call_one(self) -> bool:
        if self._closed or not self._trees:
            return False
        if not self._gate.admits(len(self._busy)):
            self._refusal.set()
            return False
        admitted = [name for name in self._by_account if self._gate.admits_of(name, self._running[name])]
        if len(admitted) < len(self._by_account):
            self._refusal.set()
        # In the order of their turns; none is looked at before it is asked for.
        rounds = [self._by_account[name].items() for name in admitted]
        for root_id, tree in heapq.merge(*rounds, key=lambda one: one[1].turn):
            ticket = self._first_runnable(root_id, tree)
            if ticket is not None:
                self._gate.launching(ticket.job.id)
                self._grant(ticket, tree.account)
                return True
        return False

    def _grant(self, ticket: _Ticket, account: str) -> None:
        ticket.account = account
        self._at_depth[ticket.job.root_id, ticket.job.depth] += 1
        self._of_batch[ticket.job.batch_id] += 1
        self._hold(ticket)
        ticket.answer(granted=True)

    def _first_runnable(self, root_id: str, tree: _Tree) -> _Ticket | None:
        lines = tree.lines
        for depth in sorted(lines, reverse=True):
            if self._at_depth[root_id, depth] >= self._limits.slots_at(depth):
                continue
            room = (
                ticket
                for ticket in lines[depth]
                if ((slots := ticket.job.spec.batch_slots) is None or self._of_batch[ticket.job.batch_id] < slots)
                and (not self._subtree_slots or self._fits(ticket.job.path))
            )
            ticket = next(room, None)
            if ticket is not None:
                # The tree that was served goes to the end of the round.
                tree.turn = next(self._turns)
                self._by_account[tree.account].move_to_end(root_id)
                self._dequeue(ticket)
                return ticket
        return None

    def _fits(self, path: str) -> bool:
        # Only a person sets such limits, on few subtrees: counting is cheaper than sums kept for every job.
        bounds = [(top, most) for top, most in self._subtree_slots.items() if contains(top, path)]
        return all(sum(contains(top, one.job.path) for one in self._busy) < most for top, most in bounds)
