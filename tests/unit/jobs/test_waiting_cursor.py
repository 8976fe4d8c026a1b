"""Any sequence of waits with the last cursor reports every job once, whatever happens between and during the waits."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.model import TERMINAL, JobStatus
from jobs.rights.visibility import Scope
from jobs.waiting import WaitMode
from tests.contract.support import admit, admit_root
from tests.unit.jobs.test_waiting import Read, Tree

FEW = 6

ends = st.tuples(st.just("end"), st.integers(0, 30), st.sampled_from([JobStatus.COMPLETED, JobStatus.FAILED]))
spawns = st.tuples(st.just("spawn"), st.integers(0, 30), st.integers(1, 2))
changes = st.lists(ends | spawns, max_size=4)
rounds = st.lists(st.tuples(changes, changes, st.sampled_from(WaitMode)), min_size=1, max_size=8)


class Growing(Tree):
    """A tree that changes, also in the middle of a wait's reading."""

    async def change(self, what: Sequence) -> None:
        kind, pick, value = what
        jobs = await self.store.jobs_under("jroot")
        live = [job for job in jobs if job.status not in TERMINAL]
        if not live:
            return
        chosen = live[pick % len(live)]
        if kind == "end":
            await self.end(chosen.id, value)
        elif len(jobs) < FEW:
            names = [f"j{len(jobs) + number}" for number in range(value)]
            for job in await admit(self.store, f"b{len(jobs)}", *names, parent_id=chosen.id):
                self.signals.publish(job)


@given(rounds=rounds, named=st.booleans())
@settings(max_examples=120, deadline=None)
def test_every_job_is_reported_once_and_once_it_is_over(rounds: list, named: bool):
    asyncio.run(_wait_in_rounds(rounds, named=named))


async def _wait_in_rounds(rounds: list, *, named: bool) -> None:
    tree = Growing()
    await admit_root(tree.store, "jroot")
    for change in [("spawn", 0, 2), ("spawn", 0, 2)] if named else []:
        await tree.change(change)
    ids = [job.id for job in await tree.store.jobs_under("jroot")][::-1]
    read = tree.named(*ids) if named else tree.under("jroot")
    reported: list[str] = []
    cursor = None
    for before, during, mode in [*rounds, ([], [], WaitMode.ALL)]:
        for change in before:
            await tree.change(change)
        report = await tree.look(_interrupted(tree, read, during), mode, cursor)
        assert all(job.status in TERMINAL for job in report.done)
        reported += [job.id for job in report.done]
        cursor = report.cursor
    over = {job.id for job in (await read()).jobs if job.status in TERMINAL}
    assert sorted(reported) == sorted(over)
    assert not tree.signals._by_root


def _interrupted(tree: Growing, read: Read, during: Sequence) -> Read:
    left = list(during)

    async def reading() -> Scope:
        scope = await read()
        if left:
            await tree.change(left.pop())
        return scope

    return reading
