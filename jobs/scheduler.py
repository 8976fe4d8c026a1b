"""The line in front of the slots: in order within a tree, round-robin between trees, deeper jobs first."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from jobs.model import Job, JobStatus
from jobs.ports import Gate
from orchestration.limits import TreeLimits


@dataclass(eq=False)
class _Ticket:
    """One job's place in the line, answered once: it is granted a slot or it is told to go."""

    job_id: str
    root_id: str
    depth: int
    batch_id: str
    batch_slots: int | None = None
    granted: bool = False
    answered: bool = False
    waiter: "asyncio.Future[None] | None" = None

    @classmethod
    def of(cls, job: Job) -> "_Ticket":
        return cls(job.id, job.root_id, job.depth, job.batch_id, job.spec.batch_slots)

    def grant(self) -> None:
        self.granted = True
        self.answer()

    def answer(self) -> None:
        self.answered = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self) -> None:
        # An event would cost three times the memory, and a turn of the loop where the answer is there.
        if not self.answered:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter


class _OpenGate:
    """Lets everybody pass."""

    def admits(self, running: int) -> bool:
        return True

    def launching(self, job_id: str) -> None:
        pass

    def started(self, job_id: str) -> None:
        pass


class Scheduler:
    """Gives out permission to run: so many jobs a depth of each tree, of a batch that says so, and on the machine.

    A job that waits for its own descendants parks its machine slot for that time, so that a parent never starves its
    child; its place at its depth it keeps, since its descendants stand deeper. After the wait it has a slot at once,
    beyond the cap if need be: its process lives, and its call must answer in the time that it was given. So at most
    `max_running` jobs and those that came back from a wait run together, and nobody new is called in above the cap.

    Args:
        limits: How many jobs of one tree may run at each depth.
        max_running: How many jobs may run on the machine.
        gate: Tells whether one more may be launched now. It may change its mind: then `poke`. None lets everybody pass.
    """

    def __init__(self, limits: TreeLimits, max_running: int, gate: Gate | None = None) -> None:
        self._limits = limits
        self._max_running = max_running
        self._gate = gate or _OpenGate()
        # Each line in order, and its tickets removable at once: 10,000 are withdrawn together.
        self._lines: OrderedDict[str, dict[int, OrderedDict[_Ticket, None]]] = OrderedDict()
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
        """Wait in line, then hold a slot while the block lasts.

        A job whose status is running has a process that an earlier engine launched: it is seated at once, even beyond
        the limits, since it would run unwatched in the line.

        Yields:
            False where the job was withdrawn from the line: it holds nothing and must not run.
        """
        ticket = self._expected.pop(job.id, None)
        if ticket is None:
            ticket = _Ticket.of(job)
            self._join(ticket, lives=job.status is JobStatus.RUNNING)
        try:
            await ticket.wait()
            yield ticket.granted
        finally:
            self._leave(ticket)

    def expect(self, job: Job) -> None:
        """Seat a job that an earlier engine launched, before it comes for its slot.

        Otherwise whoever comes first after a start would take the slots of processes that live, and twice as many
        would run as may.
        """
        ticket = _Ticket.of(job)
        self._expected[job.id] = ticket
        self._join(ticket, lives=True)

    def close(self) -> None:
        """Call nobody in any more: the engine leaves, and the slots that it lets go are no room for further jobs."""
        self._closed = True

    @asynccontextmanager
    async def parked(self, job_id: str) -> AsyncIterator[None]:
        """Give the job's machine slot to others while the block lasts; the job has one again when it ends.

        A job that waits in several calls at once takes its slot again when the last of them ends: it cannot go on
        before it has every answer. A job that holds no slot passes through.
        """
        holder = self._tickets.get(job_id)
        if holder is None or not holder.granted:
            yield
            return
        self._park(holder)
        try:
            yield
        finally:
            self._unpark(holder)

    def withdraw(self, job_id: str) -> None:
        """Take a job out of the line; one that runs is left alone."""
        ticket = self._tickets.get(job_id)
        if ticket is not None and not ticket.granted:
            self._strike(ticket)
            ticket.answer()

    def poke(self) -> None:
        """Look again whether somebody may run: the gate may have opened."""
        self._call_next()

    async def refused(self) -> None:
        """Wait until the gate keeps somebody out for whom there is a slot: from then on, `poke`."""
        await self._refusal.wait()
        self._refusal = anyio.Event()

    def is_parked(self, job_id: str) -> bool:
        """Tell whether a job waits for its own descendants."""
        ticket = self._tickets.get(job_id)
        return ticket is not None and self._parked[ticket] > 0

    def running(self) -> int:
        """Return how many jobs hold a machine slot."""
        return len(self._busy)

    def has_line(self) -> bool:
        """Tell whether a job waits in line."""
        return bool(self._lines)

    def waiting(self) -> int:
        """Return how many jobs stand in line."""
        return sum(len(line) for lines in self._lines.values() for line in lines.values())

    def _join(self, ticket: _Ticket, *, lives: bool) -> None:
        self._tickets[ticket.job_id] = ticket
        if lives:
            self._seat(ticket)
            return
        self._lines.setdefault(ticket.root_id, {}).setdefault(ticket.depth, OrderedDict())[ticket] = None
        self._call_next()

    def _leave(self, ticket: _Ticket) -> None:
        if self._tickets.get(ticket.job_id) is ticket:
            del self._tickets[ticket.job_id]
        if ticket.granted:
            self._gate.started(ticket.job_id)
            self._busy.discard(ticket)
            self._give_place_back(ticket)
        else:
            self._strike(ticket)
        self._call_next()

    def _give_place_back(self, ticket: _Ticket) -> None:
        place = (ticket.root_id, ticket.depth)
        self._at_depth[place] -= 1
        if not self._at_depth[place]:
            del self._at_depth[place]
        self._of_batch[ticket.batch_id] -= 1
        if not self._of_batch[ticket.batch_id]:
            del self._of_batch[ticket.batch_id]

    def _strike(self, ticket: _Ticket) -> None:
        line = self._lines.get(ticket.root_id, {}).get(ticket.depth)
        if line and ticket in line:
            del line[ticket]
            self._drop_empty(ticket.root_id, ticket.depth)

    def _drop_empty(self, root_id: str, depth: int) -> None:
        lines = self._lines[root_id]
        if not lines[depth]:
            del lines[depth]
        if not lines:
            del self._lines[root_id]

    def _park(self, holder: _Ticket) -> None:
        self._parked[holder] += 1
        self._busy.discard(holder)
        self._call_next()

    def _unpark(self, holder: _Ticket) -> None:
        self._parked[holder] -= 1
        if self._parked[holder]:
            return
        del self._parked[holder]
        # A job that ended while it waited has nothing to hold a slot for.
        if self._tickets.get(holder.job_id) is holder:
            self._busy.add(holder)

    def _call_next(self) -> None:
        while len(self._busy) < self._max_running and self._call_one():
            pass

    def _call_one(self) -> bool:
        if self._closed or not self._lines:
            return False
        if not self._gate.admits(len(self._busy)):
            self._refusal.set()
            return False
        for root_id in tuple(self._lines):
            ticket = self._first_runnable(root_id)
            if ticket is not None:
                self._gate.launching(ticket.job_id)
                self._seat(ticket)
                return True
        return False

    def _seat(self, ticket: _Ticket) -> None:
        self._at_depth[ticket.root_id, ticket.depth] += 1
        self._of_batch[ticket.batch_id] += 1
        self._busy.add(ticket)
        ticket.grant()

    def _first_runnable(self, root_id: str) -> _Ticket | None:
        lines = self._lines[root_id]
        for depth in sorted(lines, reverse=True):
            if self._at_depth[root_id, depth] >= self._limits.slots_at(depth):
                continue
            ticket = next(filter(self._has_room_in_batch, lines[depth]), None)
            if ticket is not None:
                # The tree that was served goes to the end of the round.
                self._lines.move_to_end(root_id)
                self._strike(ticket)
                return ticket
        return None

    def _has_room_in_batch(self, ticket: _Ticket) -> bool:
        return ticket.batch_slots is None or self._of_batch[ticket.batch_id] < ticket.batch_slots
