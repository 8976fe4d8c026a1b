"""Lets a batch into its line a part at a time: its first jobs start early, and those behind take no memory yet."""

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from jobs.model import Job, JobStatus

FIRST = 16
"""Jobs of the first wave; each further one has twice as many. LangGraph prepares all jobs of a wave before it starts
the first of them, 0.25 ms each, and a wave costs it 2.5 ms (measured)."""

WAVE = 250
"""Jobs of a batch that come into the line together, at most. A job in line takes about 20 kB, LangGraph's share
included: with 10,000 in line the engine had 359 MB, with 10,000 in waves of 250 it had 147 MB
(`tests/benchmarks/bench_scale.py`)."""

Enter = Callable[[Sequence[Job]], Coroutine[Any, Any, None]]
"""Runs some jobs of a batch to their ends."""


@dataclass(eq=False)
class _Passage:
    """How many jobs of one batch stand in line."""

    in_line: int = 0
    moved: anyio.Event = field(default_factory=anyio.Event)


class Waves:
    """Runs batches, a larger one in waves: the next one comes when half of the one before it has left the line."""

    def __init__(self) -> None:
        self._passages: dict[str, _Passage] = {}
        self._held_back: Counter[str] = Counter()

    @property
    def held_back(self) -> Mapping[str, int]:
        """How many jobs of each tree wait for their wave."""
        return self._held_back

    async def run(self, jobs: Sequence[Job], enter: Enter) -> None:
        """Run the jobs of a batch to their ends.

        A batch in which one job waits for another comes as a whole: the one that is waited for may stand anywhere. So
        does one whose jobs have different deadlines, which are kept in the line.

        Args:
            jobs: In the order in which they come into the line; those that run already come first.
            enter: Runs a wave.
        """
        if len(jobs) <= FIRST or not _alike(jobs):
            await enter(jobs)
            return
        jobs = sorted(jobs, key=lambda job: job.status is not JobStatus.RUNNING)
        passage = _Passage()
        left = len(jobs)
        root_id = jobs[0].root_id
        self._held_back[root_id] += left
        try:
            async with anyio.create_task_group() as group:
                for wave in _waves(jobs):
                    left -= len(wave)
                    self._held_back[root_id] -= len(wave)
                    passage.in_line += len(wave)
                    self._passages.update((job.id, passage) for job in wave)
                    group.start_soon(enter, wave)
                    while passage.in_line > len(wave) // 2:
                        await passage.moved.wait()
                        passage.moved = anyio.Event()
        finally:
            self._held_back[root_id] -= left
            if not self._held_back[root_id]:
                del self._held_back[root_id]

    def passed(self, job_id: str) -> None:
        """Note that a job has left the line and been launched, or that it never will be."""
        passage = self._passages.pop(job_id, None)
        if passage is not None:
            passage.in_line -= 1
            passage.moved.set()


def _waves(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    first, size = 0, FIRST
    while first < len(jobs):
        yield jobs[first : first + size]
        first, size = first + size, min(2 * size, WAVE)


def _alike(jobs: Sequence[Job]) -> bool:
    return not any(job.spec.depends_on for job in jobs) and len({job.spec.deadline for job in jobs}) == 1
