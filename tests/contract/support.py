"""Short ways to the situations that the contract speaks of."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jobs.model import Attempt, Job, JobStatus, Outcome, Reason, Usage
from jobs.ports import Admission, AdmissionFacts, NewJob, SpawnCheck, Store, Submission
from jobs.spec import JobSpec
from orchestration.limits import TreeLimits

REASONS = {
    JobStatus.COMPLETED: Reason.COMPLETED,
    JobStatus.FAILED: Reason.MAX_TURNS,
    JobStatus.TIMEOUT: Reason.DEADLINE,
    JobStatus.CANCELLED: Reason.CANCELLED,
    JobStatus.QUEUED: Reason.USAGE_LIMIT,
    JobStatus.RUNNING: Reason.UNKNOWN_ERROR,
}


def anything_goes(facts: AdmissionFacts) -> None:
    """Refuse nothing."""


def within(limits: TreeLimits) -> SpawnCheck:
    """Refuse what exceeds the totals of a tree."""
    return lambda facts: limits.check(facts.spawn)


def submission(
    batch_id: str,
    *ids: str,
    parent_id: str | None = None,
    as_root: bool = False,
    caller: str = "",
    key: str | None = None,
    digest: str | None = None,
    at: float = 1.0,
    tasks: Mapping[str, str] = MappingProxyType({}),
    cwd: str = "/srv",
) -> Submission:
    jobs = [NewJob(id=id_, spec=JobSpec(task=tasks.get(id_, f"task of {id_}"), cwd=cwd)) for id_ in ids]
    return Submission(
        batch_id=batch_id,
        jobs=jobs,
        parent_id=parent_id,
        as_root=as_root,
        idempotency_scope=caller,
        idempotency_key=key,
        request_digest=digest,
        client="a client",
        at=at,
    )


async def admit(store: Store, batch_id: str, *ids: str, parent_id: str | None = None, **more: Any) -> Sequence[Job]:
    admission: Admission = await store.admit(submission(batch_id, *ids, parent_id=parent_id, **more), anything_goes)
    return admission.jobs


async def admit_root(store: Store, job_id: str, **more: Any) -> Job:
    admission = await store.admit(submission(f"b-{job_id}", job_id, as_root=True, **more), anything_goes)
    return admission.jobs[0]


async def start(store: Store, job_id: str, *, token_hash: str | None = None, at: float = 2.0) -> Attempt:
    attempt = await store.claim(job_id, session_id=f"session of {job_id}", token_hash=token_hash, at=at)
    assert attempt is not None
    return attempt


def ending(status: JobStatus, *, detail: str = "", result: str | None = None, usage: Usage | None = None) -> Outcome:
    return Outcome(reason=REASONS[status], status=status, detail=detail, result=result, usage=usage or Usage())


async def bring_to(store: Store, job_id: str, status: JobStatus) -> Job:
    """Admit a root job and move it to a status."""
    job = await admit_root(store, job_id)
    if status is not JobStatus.QUEUED:
        attempt = await start(store, job_id)
        if status is not JobStatus.RUNNING:
            await store.settle(job_id, attempt.number, ending(status, detail="a detail"), at=3.0)
    return await known(store, job.id)


async def known(store: Store, job_id: str) -> Job:
    job = await store.job(job_id)
    assert job is not None
    return job


def ids(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]
