"""Builds submissions from requests: checked and complete, with ids and a digest of the request; has them admitted."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from jobs.client_context import ClientContext, ClientContextStore
from jobs.errors import BadInputError, JobsError
from jobs.ids import new_batch_id, new_job_id
from jobs.model import Job
from jobs.ports import Admission, Clock, NewJob, Submission
from jobs.prompts.dependencies import resolve
from jobs.recursion_manager import RecursionManager
from jobs.spec import TaskRequest
from jobs.validation import SpecBuilder, TreeBounds, subtask_request
from orchestration.limits import RecursionLimitError

_DEFAULTS = {field.name: field.default for field in fields(TaskRequest)}


def request_digest(tasks: Sequence[TaskRequest], bounds: TreeBounds, *, as_root: bool, cwd: str) -> str:
    """Return a digest of a submission as its caller asked for it: 64 hexadecimal digits.

    What the caller left to a default is left out: a setting may change the default between two calls, and a later
    version may know more options. Paths count as they resolve, so one text in two directories is two requests.

    Args:
        tasks: The tasks, in their order.
        bounds: The bounds of a new tree.
        as_root: The one task is a tree's root.
        cwd: Absolute directory at which relative paths of the tasks start.
    """
    asked = {
        "tasks": [_given(task, cwd) for task in tasks],
        "bounds": [bounds.usd, bounds.seconds],
        "single": as_root,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _given(request: TaskRequest, cwd: str) -> dict[str, Any]:
    given = {
        name: value
        for name, default in _DEFAULTS.items()
        if _frozen(value := getattr(request, name)) != default or name == "task"
    }
    if "can_decompose" in given:
        # The name under which earlier versions counted it: their keys still name the same requests.
        given["divisible"] = given.pop("can_decompose")
    # A task may have a megabyte. Half a surrogate pair has no UTF-8 of its own.
    given["task"] = hashlib.sha256(request.task.encode("utf-8", "surrogatepass")).hexdigest()
    given["cwd"] = os.path.normpath(os.path.join(cwd, request.cwd or "."))  # noqa: PTH118 - a text, not yet a path
    return given


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Submissions:
    """Builds submissions and has them admitted.

    Args:
        spec_builder: Checks requests.
        client_contexts: Where each tree's client environment is kept.
        clock: Time.
        recursion: Admits spawns.
    """

    def __init__(
        self,
        spec_builder: SpecBuilder,
        client_contexts: ClientContextStore,
        clock: Clock,
        recursion: RecursionManager,
    ) -> None:
        self._spec_builder = spec_builder
        self._client_contexts = client_contexts
        self._clock = clock
        self._recursion = recursion
        self._max_depth = recursion.limits.max_depth

    async def submit(
        self,
        tasks: Sequence[str | TaskRequest],
        parent: Job | None,
        *,
        client_context: ClientContext,
        on_admitted: Callable[[Sequence[Job]], None],
        **asked: Any,
    ) -> Admission:
        """Check a submission and write it, all or none; a new tree's client environment first.

        Args:
            tasks: As `_build` takes them.
            parent: See there.
            client_context: See there.
            on_admitted: Called with the jobs that were written, also where the request is cancelled meanwhile.
            asked: The other arguments of `_build`.

        Raises:
            JobsError, RecursionLimitError: As `EnhancedJobManager.submit`.
        """
        if parent is None:
            await self._spec_builder.check_claude(client_context.env, client_context.settings)
        # In a thread: the directories that a caller names may be on a file system that does not answer.
        check = partial(self._build, tasks, parent, client_context=client_context, **asked)
        submission = await anyio.to_thread.run_sync(check)
        # A request that is cancelled while its rows are written must not leave rows of jobs that never run.
        with anyio.CancelScope(shield=True):
            try:
                admission = await self._recursion.admit(submission)
            except (JobsError, RecursionLimitError):
                if parent is None:
                    self._client_contexts.discard(submission.new_tree.id)
                raise
            if admission.created:
                on_admitted(admission.jobs)
            elif parent is None:
                self._client_contexts.discard(submission.new_tree.id)
        return admission

    async def submit_subtasks(self, job: Job, batch_id: str, texts: Sequence[str]) -> Admission:
        """Admit the subtasks that a job asked for, as one batch below it.

        Args:
            job: The job.
            batch_id: Id of the batch.
            texts: A task each.

        Raises:
            JobsError, RecursionLimitError: As `EnhancedJobManager.submit`.
        """
        requests = [subtask_request(text, job) for text in texts]
        context = ClientContext(cwd=job.spec.cwd)
        check = partial(self._build, requests, job, client_context=context, as_root=False)
        submission = await anyio.to_thread.run_sync(check)
        return await self._recursion.admit(replace(submission, batch_id=batch_id))

    def _build(
        self,
        tasks: Sequence[str | TaskRequest],
        parent: Job | None,
        *,
        client_context: ClientContext,
        as_root: bool,
        idempotency_key: str | None = None,
        bounds: TreeBounds | None = None,
    ) -> Submission:
        """Return the submission for a request, the client context of a new tree written.

        Blocks where a directory is on a file system that does not answer.

        Args:
            tasks: At least one; a string is a task with every default.
            parent: The job that spawns them, or None for a new tree.
            client_context: For a new tree: the client that asked.
            as_root: The one task without parent is to be the root itself.
            idempotency_key: As in `Submission`.
            bounds: For a new tree: what the whole of it may cost and take.

        Raises:
            BadInputError: A task cannot be used.
            RightsError: A task asks for more than its parent may do.
        """
        (bounds := bounds or TreeBounds()).check(new_tree=parent is None)
        requests = _requests(tasks)
        if as_root and len(requests) > 1:
            raise BadInputError("tasks", f"{len(requests)} tasks cannot be one root", "Give one, or start a batch.")
        now = self._clock.now()
        digest = None
        if idempotency_key is not None:
            digest = request_digest(
                requests, bounds, as_root=as_root, cwd=(parent.spec if parent else client_context).cwd
            )
        submission = Submission(
            batch_id=new_batch_id(),
            jobs=self._new_jobs(requests, parent, client_context=client_context, as_root=as_root, at=now),
            parent_id=parent.id if parent else None,
            as_root=as_root,
            idempotency_scope=parent.id if parent else client_context.client or "",
            idempotency_key=idempotency_key,
            request_digest=digest,
            max_budget_usd=bounds.usd,
            deadline=None if bounds.seconds is None else now + bounds.seconds,
            client=client_context.client,
            at=now,
        )
        if parent is None:
            # Before the rows: a job on disk whose environment is lost could never be launched.
            self._client_contexts.write(submission.new_tree.id, client_context)
        return submission

    def _new_jobs(
        self,
        requests: Sequence[TaskRequest],
        parent: Job | None,
        *,
        client_context: ClientContext,
        as_root: bool,
        at: float,
    ) -> list[NewJob]:
        home = client_context.env.get("HOME")
        defaults = self._client_contexts.settings_of(parent.root_id) if parent else client_context.settings
        depth = parent.depth + 1 if parent else int(not as_root)
        fields = ["task"] if as_root else [f"tasks[{index}]" for index in range(len(requests))]
        if depth >= self._max_depth:
            # A job at the deepest level would be refused its subtasks.
            requests = [replace(request, can_decompose=False) for request in requests]
        specs = self._spec_builder.build(
            requests, fields, parent=parent, cwd=client_context.cwd, home=home, depth=depth, at=at, defaults=defaults
        )
        ids = [new_job_id() for _ in requests]
        # A root has no siblings: what looks like a placeholder is text of its task's own.
        waits = [()] if as_root else resolve(requests, ids)
        return [
            NewJob(id=job_id, spec=replace(spec, depends_on=others) if others else spec)
            for job_id, spec, others in zip(ids, specs, waits, strict=True)
        ]


def _requests(tasks: Sequence[str | TaskRequest]) -> list[TaskRequest]:
    requests = [TaskRequest(task=task) if isinstance(task, str) else task for task in listed("tasks", tasks)]
    if not requests:
        raise BadInputError("tasks", "the list is empty", "Give at least one task.")
    for index, request in enumerate(requests):
        if not isinstance(request, TaskRequest):
            problem = f"it is of type {type(request).__name__}"
            raise BadInputError(f"tasks[{index}]", problem, "Give a text, or a `jobs.spec.TaskRequest`.")
    return requests


def listed(field: str, values: Iterable[Any]) -> Iterable[Any]:
    """Return the values of a program's argument, which may be of any type despite its annotation.

    Args:
        field: Name of the argument.
        values: Any iterable but a text: its characters are never meant.

    Raises:
        BadInputError: It is something else.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise BadInputError(field, f"it is of type {type(values).__name__} and not a list", "Give a list.")
    return values
