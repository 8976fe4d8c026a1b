"""Changes of the limits of a live tree, a part of it or a batch; written down first, then applied to what runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from jobs.assembly import Parts
from jobs.errors import BadInputError, JobsError, NotFoundError
from jobs.limits.budget import CENT_FRACTION, BudgetOwner, budget_owners
from jobs.model import LIVE, TERMINAL, Batch, Job, JobStatus, Tree
from jobs.ports import Limited, NewLimits
from jobs.spec import positive


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedLimits:
    """What a person asks for; None leaves a limit as it is. The argument of each in an error is the command's option.

    Args:
        budget_usd: Most US dollars in all, what has been spent included.
        timeout_seconds: Seconds from now on after which nothing of it may run.
        max_jobs: Most jobs below it, those that there are included.
        max_concurrent: Most jobs that run at once.
    """

    # A wrong name would be passed over.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    budget_usd: float | None = None
    timeout_seconds: float | None = None
    max_jobs: int | None = None
    max_concurrent: int | None = None

    def checked(self, now: float, most_jobs: int) -> NewLimits:
        """Return the limits that this asks for.

        Raises:
            BadInputError: A value that cannot be used.
        """
        for value, option in ((self.budget_usd, "--budget-usd"), (self.timeout_seconds, "--timeout")):
            if value is not None:
                positive(value, option)
        if self.max_jobs is not None and not 0 <= self.max_jobs <= most_jobs:
            problem = f"{self.max_jobs} is not between 0 and {most_jobs}, the most jobs of a tree"
            raise BadInputError("--max-jobs", problem, "The setting `max_jobs` allows more.")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            remedy = "Give 1 or more; `claude-jobs kill` ends jobs."
            raise BadInputError("--max-concurrent", f"{self.max_concurrent} is less than 1", remedy)
        return NewLimits(
            budget_usd=self.budget_usd,
            deadline=None if self.timeout_seconds is None else now + self.timeout_seconds,
            max_jobs=self.max_jobs,
            max_concurrent=self.max_concurrent,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsInForce:
    """Limits in force, and what of them is used.

    Args:
        id: The job or batch.
        limits: The limits that it has itself.
        counts: Number of its jobs by status, itself and all below it.
        below: How many jobs there are below it.
        spent_usd: US dollars that it has cost, running attempts included.
        above: The budget above it that leaves it less than its own, or None.
        left_usd: US dollars that it may still spend, or None without a budget.
    """

    id: str
    limits: NewLimits
    counts: Mapping[JobStatus, int]
    below: int
    spent_usd: float
    above: str | None
    left_usd: float | None

    @property
    def live(self) -> int:
        """How many of its jobs are not over."""
        return sum(count for status, count in self.counts.items() if status in LIVE)


class NotConfirmedError(JobsError):
    """A new budget is used up already, so it would end jobs: a person has to confirm that.

    Args:
        budget_usd: The new budget.
        spent_usd: What has been spent.
        running: How many jobs run.
    """

    def __init__(self, budget_usd: float, spent_usd: float, running: int) -> None:
        jobs = "1 running job ends" if running == 1 else f"{running} running jobs end"
        super().__init__(
            f"{spent_usd:.4f} USD have been spent already: with a budget of {budget_usd:.4f} USD {jobs} as "
            "budget_exhausted, and what is queued does not start."
        )


class NothingToLimitError(JobsError):
    """All jobs of what was named have completed, so none of them will ever run again.

    Args:
        identity: The job, batch or tree.
    """

    def __init__(self, identity: str) -> None:
        super().__init__(f"All of {identity} has completed, so no limit of it matters any more.")


class LimitChanges:
    """Reads and changes limits.

    Args:
        parts: The parts of the manager.
    """

    def __init__(self, parts: Parts) -> None:
        self._store = parts.store
        self._recursion = parts.recursion
        self._runner = parts.runner
        self._event_bus = parts.event_bus
        self._clock = parts.clock

    async def in_force(self, identity: str) -> LimitsInForce:
        """Return the limits of a job, a batch or a tree.

        Raises:
            NotFoundError: There is no such job or batch.
        """
        part, tree = await self._part(identity)
        if isinstance(part, Job):
            rollup = await self._store.rollup_under(part.path)
            own = _limits_of(part, tree)
        else:
            rollup = await self._store.rollup_batch(part.id)
            own = await self._limits_of_batch(part, tree)
        spent = rollup.usage_so_far.cost_usd
        left, above = await self._left(await self._owners_above(part, tree), own.budget_usd, spent)
        return LimitsInForce(
            id=identity,
            limits=own,
            counts=rollup.counts,
            below=rollup.total - isinstance(part, Job),
            spent_usd=spent,
            above=above,
            left_usd=left,
        )

    async def change(self, identity: str, asked: AskedLimits, *, confirmed: bool) -> LimitsInForce:
        """Change limits, apply them to what runs, and return those in force then.

        Args:
            identity: A job, a batch or a tree.
            asked: The new limits.
            confirmed: A person knows that a budget below what has been spent ends running jobs.

        Raises:
            NotFoundError: There is no such job or batch.
            BadInputError: A value cannot be used, or a batch in a tree has no such limit.
            NothingToLimitError: All of it has completed.
            NotConfirmedError: It would end running jobs; nothing was changed.
            StoreError: It cannot be written down now.
        """
        limits = asked.checked(self._clock.now(), self._recursion.limits.max_nodes)
        part, _ = await self._part(identity)
        if isinstance(part, Batch) and part.root_id != part.id:
            _refuse_all_but_slots(part, limits)
        before = await self.in_force(identity)
        if set(before.counts) == {JobStatus.COMPLETED}:
            raise NothingToLimitError(identity)
        running = before.counts.get(JobStatus.RUNNING, 0)
        budget = limits.budget_usd
        if budget is not None and before.spent_usd >= budget - CENT_FRACTION and running and not confirmed:
            raise NotConfirmedError(budget, before.spent_usd, running)
        limited = await self._store.set_limits(identity, limits, at=self._clock.now())
        if limited is None:
            raise NotFoundError("Job", identity)
        await self._apply(part.path if isinstance(part, Job) else part.root_id, limits, limited)
        return await self.in_force(identity)

    async def _apply(self, path: str, limits: NewLimits, limited: Limited) -> None:
        scheduler = self._recursion.scheduler
        for job in limited.jobs:
            scheduler.update(job)
            self._event_bus.publish(job)
        if limits.deadline is not None:
            for job in await self._store.jobs_under(path):
                # Back in the queue at once, in their order, with the new deadline.
                scheduler.withdraw(job.id)
        self._runner.apply_limits(path)
        scheduler.reschedule()

    async def _part(self, identity: str) -> tuple[Job | Batch, Tree]:
        part = await self._store.job(identity) or await self._store.batch(identity)
        tree = None if part is None else await self._store.tree(part.root_id)
        if part is None or tree is None:
            raise NotFoundError("Job", identity)
        return part, tree

    async def _owners_above(self, part: Job | Batch, tree: Tree) -> Sequence[BudgetOwner]:
        if part.id == tree.id:
            return ()
        job = part if isinstance(part, Job) else (await self._store.jobs_in_batch(part.id))[0]
        # From the store: a tree that was over before the engine started is not in memory.
        return budget_owners(tree, await self._store.jobs(job.path.split("/")[:-1]))

    async def _limits_of_batch(self, batch: Batch, tree: Tree) -> NewLimits:
        jobs = await self._store.jobs_in_batch(batch.id)
        slots = {job.spec.batch_slots for job in jobs if job.status not in TERMINAL} or {None}
        is_root = batch.id == tree.id
        return NewLimits(
            budget_usd=tree.max_budget_usd if is_root else None,
            deadline=tree.deadline if is_root else None,
            max_jobs=tree.max_jobs if is_root else None,
            max_concurrent=min((each for each in slots if each is not None), default=None),
        )

    async def _left(
        self, owners: Sequence[BudgetOwner], own: float | None, spent: float
    ) -> tuple[float | None, str | None]:
        """Return what is left, and the owner above that leaves less than the own budget, or None."""
        lefts = []
        for owner in owners:
            if owner.usd is not None:
                used = (await self._store.rollup_under(owner.path)).usage_so_far.cost_usd
                lefts.append((owner.usd - used, owner.name))
        mine = None if own is None else max(0.0, own - spent)
        if not lefts or (mine is not None and mine <= min(lefts)[0]):
            return mine, None
        least, name = min(lefts)
        return max(0.0, least), name


def _limits_of(job: Job, tree: Tree) -> NewLimits:
    # A tree whose root is a job has limits of its own besides the job's.
    own = job.spec
    is_root = job.id == tree.id
    budgets = [own.max_budget_usd, tree.max_budget_usd if is_root else None]
    deadlines = [own.deadline, tree.deadline if is_root else None]
    return NewLimits(
        budget_usd=min((each for each in budgets if each is not None), default=None),
        deadline=min((each for each in deadlines if each is not None), default=None),
        max_jobs=own.max_jobs,
        max_concurrent=own.subtree_slots,
    )


def _refuse_all_but_slots(batch: Batch, limits: NewLimits) -> None:
    given = {"--budget-usd": limits.budget_usd, "--timeout": limits.deadline, "--max-jobs": limits.max_jobs}
    for option, value in given.items():
        if value is not None:
            raise BadInputError(
                option,
                f"{batch.id} is a part of the tree {batch.root_id}, and a part has this limit for each job",
                f"Name one of its jobs, the job {batch.parent_id} that started it, or the tree.",
            )
