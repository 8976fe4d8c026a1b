"""MemoryStore: the store without a disk, for tests and for programs that embed `jobs`."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

from jobs.errors import IllegalTransitionError, StoreError
from jobs.ids import contains
from jobs.model import (
    LIVE,
    NEXT,
    TERMINAL,
    Attempt,
    Batch,
    DaySpending,
    Job,
    JobStatus,
    Outcome,
    Reason,
    Rollup,
    Tree,
    Usage,
)
from jobs.paused import EVERYTHING, EndedPause, PausedPath
from jobs.ports import (
    LAST_ATTEMPTS,
    Admission,
    AdmissionFacts,
    EndedTree,
    Limited,
    LiveRows,
    NewLimits,
    SpawnCheck,
    Store,
    Submission,
)
from jobs.spending import local_day
from jobs.store.history import KEPT_PAUSES
from jobs.store.rows import ended_attempt, excerpt_of, writable
from jobs.store.writes import (
    TreePosition,
    admission_at,
    check_same_request,
    closed_by_cancel,
    limited_job,
    limited_tree,
    refusal,
    tree_position,
)
from jobs.waiting_for import WaitingFor
from orchestration.limits import SpawnFacts


class MemoryStore(Store):
    """Trees in dictionaries; no method waits, so each is a transaction by itself."""

    def __init__(self) -> None:
        self._trees: dict[str, Tree] = {}
        self._batches: dict[str, Batch] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._digests: dict[str, str | None] = {}
        self._jobs: dict[str, Job] = {}  # in order of admission, as dictionaries keep it
        self._tasks: dict[str, str] = {}
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._tokens: dict[str, str] = {}
        self._spending: dict[tuple[str, str], float] = {}
        self._paused: dict[str, PausedPath] = {}
        self._ended_pauses: dict[tuple[str, float], EndedPause] = {}

    async def admit(self, submission: Submission, check: SpawnCheck) -> Admission:
        """Keep a batch and its jobs."""
        key = (submission.idempotency_scope, submission.idempotency_key or "")
        if submission.idempotency_key is not None and key in self._keys:
            batch, jobs = self._batches[self._keys[key]], await self.jobs_in_batch(self._keys[key])
            check_same_request(submission, batch, jobs, self._digests[batch.id])
            return Admission(batch=batch, jobs=jobs, created=False)
        place = self._place(submission)
        check(self._facts(submission, place))
        self._refuse_known_ids(submission)
        last_seq = max((job.seq for job in self._jobs.values()), default=0)
        admission = admission_at(place, submission, last_seq=last_seq)
        batch = admission.batch
        self._batches[batch.id] = batch
        self._digests[batch.id] = submission.request_digest
        self._jobs.update((job.id, job) for job in admission.jobs)
        self._tasks.update((new.id, writable(new.spec.task)) for new in submission.jobs)
        if submission.idempotency_key is not None:
            self._keys[key] = batch.id
        if submission.parent_id is None:
            self._trees[place.root_id] = submission.new_tree
        return admission

    async def claim(
        self,
        job_id: str,
        *,
        session_id: str,
        token_hash: str | None,
        at: float,
        setting_sources: str = "user",
        cli: str | None = None,
        cli_version: str | None = None,
    ) -> Attempt | None:
        """Move a queued job to running with a new attempt."""
        job = self._jobs.get(job_id)
        if job is None or job.status is not JobStatus.QUEUED or job.cancel_requested:
            return None
        if token_hash is not None:
            if token_hash in self._tokens:
                raise StoreError("claim a job", "this token belongs to another attempt")
            self._tokens[token_hash] = job_id
        number = job.attempt + 1
        attempt = Attempt(
            job_id=job_id,
            number=number,
            session_id=session_id,
            token_hash=token_hash,
            setting_sources=setting_sources,
            cli=cli,
            cli_version=cli_version,
            started_at=at,
        )
        self._attempts[job_id, number] = attempt
        self._jobs[job_id] = replace(
            job, status=JobStatus.RUNNING, reason=None, error=None, excerpt=None, waiting_for=None,
            attempt=number, session_id=session_id, started_at=at,
        )  # fmt: skip
        return attempt

    async def record_launch(self, job_id: str, attempt: int, *, pid: int, pid_start: float) -> None:
        """Note which process runs the attempt."""
        known = self._attempts.get((job_id, attempt))
        if known is not None:
            self._attempts[job_id, attempt] = replace(known, pid=pid, pid_start=pid_start)

    async def settle(self, job_id: str, attempt: int, outcome: Outcome, *, at: float) -> Job:
        """Keep how the attempt ended."""
        job = self._jobs.get(job_id)
        legal = outcome.status in NEXT[JobStatus.RUNNING]
        if job is None or job.status is not JobStatus.RUNNING or job.attempt != attempt or not legal:
            raise refusal(job_id, job, attempt, outcome.status)
        if job.cancel_requested and outcome.status is JobStatus.QUEUED:
            outcome = replace(outcome, status=JobStatus.CANCELLED, reason=Reason.CANCELLED)
        self._end_attempt(job, outcome, at)
        waits = outcome.status is JobStatus.QUEUED
        ended = replace(
            _ended(job, outcome, at),
            usage=_sum((job.usage, outcome.usage)),
            started_at=None if waits else job.started_at,
            ended_at=None if waits else at,
        )
        self._jobs[job_id] = ended
        if outcome.account is not None and outcome.usage.cost_usd:
            key = (outcome.account, local_day(at))
            self._spending[key] = self._spending.get(key, 0.0) + outcome.usage.cost_usd
        return ended

    async def fail_queued(self, job_id: str, outcome: Outcome, *, at: float) -> Job | None:
        """Settle a job that waits."""
        if outcome.status not in NEXT[JobStatus.QUEUED] & TERMINAL:
            raise IllegalTransitionError(job_id, JobStatus.QUEUED, outcome.status)
        job = self._jobs.get(job_id)
        if job is None or job.status is not JobStatus.QUEUED:
            return None
        self._jobs[job_id] = _ended(job, outcome, at)
        return self._jobs[job_id]

    async def set_waiting_for(
        self, job_id: str, now: WaitingFor | None, *, was: WaitingFor | None = None
    ) -> Job | None:
        """Note what a live job waits for."""
        job = self._jobs.get(job_id)
        status = JobStatus.RUNNING if WaitingFor.PERMISSION in {now, was} else JobStatus.QUEUED
        if job is None or job.waiting_for is not was or job.status is not status:
            return None
        self._jobs[job_id] = replace(job, waiting_for=now)
        return self._jobs[job_id]

    async def cancel_under(self, *paths: str, at: float) -> Sequence[Job]:
        """Cancel subtrees."""
        changed = []
        tops = frozenset(paths)
        for job in self._where(lambda job: any(above in tops for above in accumulate(job.path.split("/"), _joined))):
            if job.status is JobStatus.QUEUED:
                cancelled = replace(
                    job, status=JobStatus.CANCELLED, reason=Reason.CANCELLED, waiting_for=None, ended_at=at
                )
                changed.append(replace(cancelled, error="It was cancelled before it could start."))
            elif job.status is JobStatus.RUNNING and not job.cancel_requested:
                changed.append(replace(job, cancel_requested=True))
        self._jobs.update((job.id, job) for job in changed)
        return changed

    async def requeue(self, job_id: str) -> Job | None:
        """Queue a job again."""
        job = self._jobs.get(job_id)
        if job is None or JobStatus.QUEUED not in NEXT[job.status] or job.status not in TERMINAL:
            return None
        if any(above.cancel_requested and above.status is JobStatus.RUNNING for above in self._line_of(job)):
            return None
        self._jobs[job_id] = replace(
            job, status=JobStatus.QUEUED, reason=None, error=None, excerpt=None, cancel_requested=False,
            started_at=None, ended_at=None,
        )  # fmt: skip
        return self._jobs[job_id]

    async def set_limits(self, identity: str, limits: NewLimits, *, at: float) -> Limited | None:
        """Set limits of a job or a batch."""
        part = self._jobs.get(identity) or self._batches.get(identity)
        if part is None:
            return None
        tree = limited_tree(self._trees[part.root_id], identity, limits, at)
        self._trees[tree.id] = tree
        jobs = [limited_job(job, identity, limits) for job in self._jobs.values() if identity in {job.id, job.batch_id}]
        changed = [job for job in jobs if job != self._jobs[job.id]]
        self._jobs.update((job.id, job) for job in changed)
        return Limited(tree=tree, jobs=changed)

    async def job(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        return self._jobs.get(job_id)

    async def task(self, job_id: str) -> str | None:
        """Return the whole text of a job's task, or None."""
        return self._tasks.get(job_id)

    async def jobs(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Return jobs in the order asked."""
        return [self._jobs[job_id] for job_id in job_ids if job_id in self._jobs]

    async def jobs_in_batch(self, batch_id: str) -> Sequence[Job]:
        """Return a batch's jobs."""
        return self._where(lambda job: job.batch_id == batch_id)

    async def jobs_under(self, path: str) -> Sequence[Job]:
        """Return a subtree's jobs."""
        return self._under(path)

    async def newest_jobs(
        self,
        *,
        limit: int,
        before_seq: int | None = None,
        status: JobStatus | None = None,
        path: str | None = None,
    ) -> Sequence[Job]:
        """Return a page of jobs, newest first."""
        older = self._where(
            lambda job: (
                (before_seq is None or job.seq < before_seq)
                and status in {None, job.status}
                and (path is None or contains(path, job.path))
            )
        )
        return older[::-1][:limit]

    async def ids_from(self, beginning: str, *, limit: int, path: str | None = None) -> Sequence[str]:
        """Return the ids with this prefix."""
        newest: dict[str, int] = {}
        for job in self._where(lambda job: path is None or contains(path, job.path)):
            newest |= {one: job.seq for one in (job.id, job.batch_id) if one.startswith(beginning)}
        return sorted(newest, key=lambda one: (-newest[one], one))[:limit]

    async def unfinished(self) -> Sequence[Job]:
        """Return the jobs that are queued or running."""
        return self._where(lambda job: job.status in LIVE)

    async def live_rows(self) -> LiveRows:
        """Return everything of the trees that live."""
        live = [job for job in self._jobs.values() if job.status in LIVE]
        roots = {job.root_id for job in live}
        return LiveRows(
            trees=[tree for tree in self._trees.values() if tree.id in roots],
            jobs=self._where(lambda job: job.root_id in roots),
            attempts=[self._attempts[job.id, job.attempt] for job in live if job.status is JobStatus.RUNNING],
        )

    async def has_unfinished(self) -> bool:
        """Tell whether a job is queued or running."""
        return any(job.status in LIVE for job in self._jobs.values())

    async def batch(self, batch_id: str) -> Batch | None:
        """Return a batch, or None."""
        return self._batches.get(batch_id)

    async def tree(self, root_id: str) -> Tree | None:
        """Return a tree, or None."""
        return self._trees.get(root_id)

    async def rollup_under(self, path: str) -> Rollup:
        """Sum up a subtree."""
        return _rollup(self._under(path))

    async def rollup_batch(self, batch_id: str) -> Rollup:
        """Sum up a batch and everything below it."""
        return _rollup([job for top in await self.jobs_in_batch(batch_id) for job in self._under(top.path)])

    async def rollup_all(self) -> Rollup:
        """Sum up every job."""
        return _rollup(list(self._jobs.values()))

    async def ended_trees(self, *, before: float) -> Sequence[EndedTree]:
        """Return the trees that ended before this time."""
        ended = [tree for root_id in self._trees if (tree := self._ended_tree(root_id)) and tree.ended_at < before]
        return sorted(ended, key=lambda tree: (tree.ended_at, tree.id))

    async def delete_tree(self, root_id: str) -> bool:
        """Forget a tree that is over."""
        if self._ended_tree(root_id) is None:
            return False
        gone = {job.id for job in self._where(lambda job: job.root_id == root_id)}
        self._jobs = {id_: job for id_, job in self._jobs.items() if id_ not in gone}
        self._tasks = {id_: text for id_, text in self._tasks.items() if id_ not in gone}
        self._attempts = {key: attempt for key, attempt in self._attempts.items() if key[0] not in gone}
        self._batches = {id_: batch for id_, batch in self._batches.items() if batch.root_id != root_id}
        self._keys = {key: id_ for key, id_ in self._keys.items() if id_ in self._batches}
        del self._trees[root_id]
        self._paused = {path: row for path, row in self._paused.items() if not contains(root_id, path)}
        began = min((tree.created_at for tree in self._trees.values()), default=math.inf)
        self._ended_pauses = {
            key: one
            for key, one in self._ended_pauses.items()
            if (one.until > began if one.path == EVERYTHING else not contains(root_id, one.path))
        }
        return True

    async def pause(self, rows: Sequence[PausedPath]) -> Sequence[PausedPath]:
        """Keep pauses."""
        joined = [row.joined(self._paused.get(row.path)) for row in rows]
        self._paused.update((row.path, row) for row in joined)
        return joined

    async def unpause(self, paths: Sequence[str], *, at: float) -> None:
        """End pauses."""
        for path in paths:
            if (row := self._paused.pop(path, None)) is not None:
                ended = EndedPause(path=path, since=row.since, until=max(row.since, at), by_job=row.by_job)
                self._ended_pauses[path, row.since] = ended
            for since in sorted(since for one, since in self._ended_pauses if one == path)[:-KEPT_PAUSES]:
                del self._ended_pauses[path, since]

    async def ended_pauses(self, root_id: str) -> Sequence[EndedPause]:
        """Return the ended pauses of a tree."""
        tree = self._trees.get(root_id)
        began = math.inf if tree is None else tree.created_at
        found = (
            one
            for one in self._ended_pauses.values()
            if contains(root_id, one.path) or (one.path == EVERYTHING and one.until > began)
        )
        return sorted(found, key=lambda one: (one.since, one.path))

    async def paused(self) -> Sequence[PausedPath]:
        """Return the pauses."""
        return sorted(self._paused.values(), key=lambda row: (row.since, row.path))

    async def shrink(self) -> None:
        """Do nothing: what is forgotten is gone."""

    async def attempt(self, job_id: str, number: int) -> Attempt | None:
        """Return one attempt, or None."""
        return self._attempts.get((job_id, number))

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        """Return the last attempts of jobs."""
        jobs = await self.jobs(job_ids)
        last = [(job.id, number) for job in jobs for number in range(1, job.attempt + 1)[-LAST_ATTEMPTS:]]
        return [replace(self._attempts[key], token_hash=None, result=None, frame=None) for key in last]

    async def spending(self, since: str) -> Sequence[DaySpending]:
        """Return what accounts have spent since a day."""
        rows = sorted((account, day, cost) for (account, day), cost in self._spending.items() if day >= since)
        return [DaySpending(account=account, day=day, cost_usd=cost) for account, day, cost in rows]

    async def caller(self, token_hash: str) -> Job | None:
        """Return the running job that holds this token, or None."""
        job_id = self._tokens.get(token_hash)
        return None if job_id is None else self._jobs[job_id]

    def _where(self, wanted: Callable[[Job], bool]) -> list[Job]:
        return [job for job in self._jobs.values() if wanted(job)]

    def _under(self, path: str) -> list[Job]:
        return self._where(lambda job: job.path == path or job.path.startswith(f"{path}/"))

    def _place(self, submission: Submission) -> TreePosition:
        parent = None if submission.parent_id is None else self._jobs.get(submission.parent_id)
        place = tree_position(submission, parent)
        if parent is not None and any(map(_is_cancelled, self._line_of(parent))):
            raise closed_by_cancel(parent.id)
        return place

    def _line_of(self, job: Job) -> list[Job]:
        # A batch may begin the path: it is a root, not a job.
        return [self._jobs[id_] for id_ in job.path.split("/") if id_ in self._jobs]

    def _facts(self, submission: Submission, place: TreePosition) -> AdmissionFacts:
        parent_id = submission.parent_id
        kin = self._where(lambda job: job.root_id == place.root_id)
        spawn = SpawnFacts(
            depth=place.depth,
            asked=len(submission.jobs),
            children=0 if parent_id is None else len(self._where(lambda job: job.parent_id == parent_id)),
            nodes=len(kin),
            tree_id=place.root_id,
        )
        if parent_id is None:
            return AdmissionFacts(spawn=spawn, submission=submission, tree=submission.new_tree)
        tree, above = self._trees[place.root_id], self._line_of(self._jobs[parent_id])
        return AdmissionFacts(spawn=spawn, submission=submission, tree=tree, ancestors=above)

    def _ended_tree(self, root_id: str) -> EndedTree | None:
        jobs = self._where(lambda job: job.root_id == root_id)
        if not jobs or any(job.ended_at is None for job in jobs):
            return None
        return EndedTree(id=root_id, ended_at=max(job.ended_at or 0.0 for job in jobs), jobs=len(jobs))

    def _refuse_known_ids(self, submission: Submission) -> None:
        ids = [new.id for new in submission.jobs]
        if submission.batch_id in self._batches or len(set(ids)) < len(ids) or any(id_ in self._jobs for id_ in ids):
            raise StoreError("admit jobs", "an id is taken")

    def _end_attempt(self, job: Job, outcome: Outcome, at: float) -> None:
        known = self._attempts[job.id, job.attempt]
        if known.token_hash is not None:
            del self._tokens[known.token_hash]
        self._attempts[job.id, job.attempt] = ended_attempt(known, outcome, at)


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}"


def _is_cancelled(job: Job) -> bool:
    return job.cancel_requested or job.status is JobStatus.CANCELLED


def _ended(job: Job, outcome: Outcome, at: float) -> Job:
    return replace(
        job,
        status=outcome.status,
        reason=outcome.reason,
        excerpt=excerpt_of(outcome.result),
        error=writable(outcome.detail) or None,
        waiting_for=outcome.waiting_for,
        ended_at=at,
    )


def _sum(usages: Iterable[Usage]) -> Usage:
    parts = list(usages)
    return Usage(
        cost_usd=sum((part.cost_usd for part in parts), 0.0),
        input_tokens=sum(part.input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        turns=sum(part.turns for part in parts),
    )


def _rollup(jobs: Sequence[Job]) -> Rollup:
    counts: dict[JobStatus, int] = {}
    for job in jobs:
        counts[job.status] = counts.get(job.status, 0) + 1
    usage = _sum(job.usage for job in jobs)
    return Rollup(counts=counts, usage=usage, deepest=max((job.depth for job in jobs), default=0))
