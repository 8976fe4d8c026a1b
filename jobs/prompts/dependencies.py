"""Dependencies between the jobs of a batch: resolves them, waits for them, and puts their results into tasks."""

import re
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from jobs.errors import BadInputError
from jobs.event_bus import JobEventBus
from jobs.model import TERMINAL, Job, JobStatus, Outcome, Reason
from jobs.ports import Clock, Store
from jobs.spec import TaskRequest
from jobs.waiting_for import WaitingFor

_PLACEHOLDER = re.compile(r"\{\{\s*results\.([^{}\s]+)\s*\}\}")


def resolve(tasks: Sequence[TaskRequest], ids: Sequence[str]) -> list[tuple[str, ...]]:
    """Return for each task the ids of the siblings that it waits for.

    Args:
        tasks: The batch.
        ids: The id of each task's job, in the same order.

    Raises:
        BadInputError: A name twice, a dependency that is none of them, a circle, or a placeholder for a sibling that
            the task does not wait for; nothing has been started.
    """
    names = _names(tasks)
    positions = [_positions(index, task, names, len(tasks)) for index, task in enumerate(tasks)]
    try:
        TopologicalSorter(dict(enumerate(positions))).prepare()
    except CycleError as error:
        circle = " → ".join(tasks[index].key or str(index) for index in error.args[1])
        raise BadInputError(
            "tasks", f"they wait for each other in a circle ({circle})", "Remove one dependsOn of the circle."
        ) from error
    for index, task in enumerate(tasks):
        _check_placeholders(index, task, names, positions[index])
    return [tuple(ids[position] for position in waits) for waits in positions]


def substitute_results(task: str, results: Mapping[str, str]) -> str:
    """Put the results of siblings into a task's text.

    Args:
        task: The text, which may hold `{{results.KEY}}`.
        results: Key, or position as text, to result. They are put in as they are: a placeholder in one stays text.
    """
    return _PLACEHOLDER.sub(lambda match: results.get(match[1], match[0]), task)


def _names(tasks: Sequence[TaskRequest]) -> dict[str, int]:
    names: dict[str, int] = {str(index): index for index in range(len(tasks))}
    for index, task in enumerate(tasks):
        if task.key is None:
            continue
        if names.get(task.key, index) != index:
            raise BadInputError(
                f"tasks[{index}].key", f"{task.key!r} is the key of another task too", "Give each task another key."
            )
        names[task.key] = index
    return names


def _positions(index: int, task: TaskRequest, names: Mapping[str, int], count: int) -> tuple[int, ...]:
    found: list[int] = []
    for other in task.depends_on:
        position = names.get(str(other))
        if position is None or position == index:
            raise BadInputError(
                f"tasks[{index}].dependsOn",
                f"{other!r} is not another task of this batch",
                f"Name a sibling's key or its position from 0 to {count - 1}.",
            )
        found.append(position)
    return tuple(dict.fromkeys(found))


def _check_placeholders(index: int, task: TaskRequest, names: Mapping[str, int], waits: Sequence[int]) -> None:
    for name in _PLACEHOLDER.findall(task.task):
        position = names.get(name)
        # What names no other task is text of this task: a template that it is about, for example.
        if position not in {None, index, *waits}:
            raise BadInputError(
                f"tasks[{index}].task",
                f"{{{{results.{name[:64]}}}}} is the answer of a task that this one does not depend on",
                "Name that task in dependsOn as well.",
            )


class DependencyWaiter:
    """Waits for siblings, and cancels a job whose sibling ended without a result.

    Args:
        store: Where jobs are.
        event_bus: Where their changes are announced.
        clock: Time.
    """

    def __init__(self, store: Store, event_bus: JobEventBus, clock: Clock) -> None:
        self._store = store
        self._event_bus = event_bus
        self._clock = clock

    async def wait(self, job: Job) -> Job:
        """Return the job once every sibling it depends on has completed, or once it is over itself."""
        concerned = {job.id, *job.spec.depends_on}
        if not job.spec.depends_on or job.attempt:
            return job
        with self._event_bus.subscribe((job.root_id,), lambda changed: changed.id in concerned) as changes:
            while True:
                current = await self._store.job(job.id) or job
                if current.status in TERMINAL or await self._completed(current):
                    await self._note(current, waits=False)
                    return await self._store.job(job.id) or current
                await self._note(current, waits=True)
                await changes.changes()

    async def _note(self, job: Job, *, waits: bool) -> None:
        # Its admission has set the wait already; after a retry it waits again.
        now, was = (WaitingFor.SIBLINGS, None) if waits else (None, WaitingFor.SIBLINGS)
        if job.waiting_for is was and (noted := await self._store.set_waiting_for(job.id, now, was=was)):
            self._event_bus.publish(noted)

    async def _completed(self, job: Job) -> bool:
        siblings = await self._store.jobs(job.spec.depends_on)
        for sibling in siblings:
            if sibling.status in TERMINAL and sibling.status is not JobStatus.COMPLETED:
                await self._give_up(job, sibling)
                return True
        return all(sibling.status is JobStatus.COMPLETED for sibling in siblings)

    async def _give_up(self, job: Job, sibling: Job) -> None:
        name = f"{sibling.spec.key} ({sibling.id})" if sibling.spec.key else sibling.id
        # The status `cancelled` has the reason `cancelled`: once is enough.
        why = f" ({sibling.reason})" if sibling.reason and sibling.reason != sibling.status.value else ""
        outcome = Outcome(
            reason=Reason.DEPENDENCY_FAILED,
            status=JobStatus.CANCELLED,
            detail=f"It depends on {name}, which is {sibling.status}{why}.",
        )
        cancelled = await self._store.fail_queued(job.id, outcome, at=self._clock.now())
        if cancelled is not None:
            self._event_bus.publish(cancelled)
