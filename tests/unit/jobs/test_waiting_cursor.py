"""Any sequence of waits with the last cursor reports every end once, whatever happens between and during the waits.

An end is told of unless the job was tried again before anybody looked, or was over again before anybody saw it live.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.model import TERMINAL, JobStatus
from jobs.permissions.visibility import JobSelection
from jobs.waiting import WaitMode
from tests.contract.support import admit, admit_root
from tests.support.reachable import names_in
from tests.unit.jobs.test_waiting import Read, Tree

FEW = 6

ends = st.tuples(st.just("end"), st.integers(0, 30), st.sampled_from([JobStatus.COMPLETED, JobStatus.FAILED]))
spawns = st.tuples(st.just("spawn"), st.integers(0, 30), st.integers(1, 2))
retries = st.tuples(st.just("retry"), st.integers(0, 30), st.none())
changes = st.lists(ends | spawns | retries, max_size=4)
rounds = st.lists(st.tuples(changes, changes, st.sampled_from(WaitMode)), min_size=1, max_size=8)


class Growing(Tree):
    """A tree that changes, also in the middle of a wait's reading."""

    def __init__(self) -> None:
        super().__init__(live=False)
        self.ends: Counter[str] = Counter()

    async def end(self, job_id: str, status: JobStatus = JobStatus.COMPLETED, *, tell: bool = True) -> None:
        await super().end(job_id, status, tell=tell)
        self.ends[job_id] += 1

    async def change(self, what: Sequence) -> None:
        kind, pick, value = what
        jobs = await self.store.jobs_under("jroot")
        if kind == "retry":
            again = await self.store.requeue(jobs[pick % len(jobs)].id)
            if again is not None:
                self.event_bus.publish(again)
            return
        live = [job for job in jobs if job.status not in TERMINAL]
        if not live:
            return
        chosen = live[pick % len(live)]
        if kind == "end":
            await self.end(chosen.id, value)
        elif len(jobs) < FEW:
            names = [f"j{len(jobs) + number}" for number in range(value)]
            for job in await admit(self.store, f"b{len(jobs)}", *names, parent_id=chosen.id):
                self.event_bus.publish(job)


@given(rounds=rounds, named=st.booleans())
@settings(deadline=None)
def test_every_end_is_reported_at_most_once_and_the_last_one_of_a_job_that_was_seen_live_for_certain(
    rounds: list, named: bool
):
    asyncio.run(_wait_in_rounds(rounds, named=named))


async def _wait_in_rounds(rounds: list, *, named: bool) -> None:
    tree = Growing()
    await admit_root(tree.store, "jroot")
    for change in [("spawn", 0, 2), ("spawn", 0, 2)] if named else []:
        await tree.change(change)
    ids = [job.id for job in await tree.store.jobs_under("jroot")][::-1]
    read = tree.named(*ids) if named else tree.under("jroot")
    reported: Counter[str] = Counter()
    # Jobs of whose next end the waits must tell: those of which they have told nothing, or that they saw live since.
    told: set[str] = set()
    cursor = None
    for before, during, mode in [*rounds, ([], [], WaitMode.ALL)]:
        for change in before:
            await tree.change(change)
        told -= {job.id for job in (await read()).jobs if job.status not in TERMINAL}
        report = await tree.look(_interrupted(tree, read, during), mode, cursor)
        assert all(job.status in TERMINAL for job in report.done)
        reported.update(job.id for job in report.done)
        told |= {job.id for job in report.done}
        cursor = report.cursor
    over = {job.id for job in (await read()).jobs if job.status in TERMINAL}
    assert over <= told
    assert all(reported[job_id] <= tree.ends[job_id] for job_id in reported)
    assert "jroot" not in names_in(tree.event_bus)


def _interrupted(tree: Growing, read: Read, during: Sequence) -> Read:
    left = list(during)

    async def reading() -> JobSelection:
        selection = await read()
        if left:
            await tree.change(left.pop())
        return selection

    return reading
