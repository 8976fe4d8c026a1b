"""The record of a tree, a part of one or a batch, as the engine reads it: the control request `report`, page by page.

Texts are those of the store, with room for what `server.report.document` hides and cuts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from typing import Any, Final

import anyio.lowlevel

from jobs.errors import JobsError, NotFoundError
from jobs.ids import contains, is_batch_id
from jobs.model import TERMINAL, Attempt, Job, JobStatus, Tree
from jobs.paused import EVERYTHING
from server import __version__
from server.feed.index import FeedSources
from server.feed.rows import row_of
from server.feed.times import pauses_row, waits_row
from server.mcp.result_pages import with_note

PAGE_ROWS: Final = 200
"""Most jobs that are read for one page."""

SLICE_ROWS: Final = 40
"""Jobs after whose rows the event loop goes on with other work: one takes 0.1 ms."""

PAGE_BYTES: Final = 300_000
"""Bytes of rows after which a page ends; one row more has at most 600,000, and a control answer 1 MiB."""

ANSWER_CHARS: Final = 16_000
"""Most characters of one answer."""

ANSWERS_CHARS: Final = 8_000_000
"""Characters of all answers together, about: each gets its share, `LEAST_CHARS` at least."""

LEAST_CHARS: Final = 500
"""Characters of an answer that are there however many jobs there are."""

TEXT_CHARS: Final = 4000
"""Most characters that are sent of a task, a key or an error."""

NAME_CHARS: Final = 400
"""Characters of a task and an error that are sent without answers."""

MOST_NAMES: Final = 20
"""Most tools and servers of each kind that are named as what a job may use."""

TOOL_CHARS: Final = 200
"""Most characters that are sent of the name of a tool or a server."""

_LEFT_OUT: Final = ("rootId", "sessionId", "excerpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What is reported.

    Args:
        id: Of the job or the batch.
        tree: Its tree.
        path: Path under which all of its jobs are.
        job: The job at its top, or None for a batch.
        first: Ids of the jobs of a batch that is a part of a tree; of what is under the path, they and what is below
            them are meant.
        created_at: Seconds since the epoch.
    """

    id: str
    tree: Tree
    path: str
    job: Job | None
    first: frozenset[str] | None
    created_at: float

    def has(self, job: Job) -> bool:
        """Tell whether a job under the path belongs to it."""
        if self.first is None:
            return True
        return job.path[len(self.path) + 1 :].partition("/")[0] in self.first


class TreeRecords:
    """Reads records.

    Args:
        sources: What they are read from.
    """

    def __init__(self, sources: FeedSources) -> None:
        self._sources = sources

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the control request `report`.

        The first page has `tree`, what there is to say of the whole. Each has `jobs`, the newest first, and `cursor`
        and `more` for the next one.

        Args:
            request: `tree`, the id of a job or a batch; `answers`, whether answers and tasks are wanted whole;
                `cursor`, that of the page before.
        """
        try:
            part = await self._part(str(request.get("tree")))
            room = await self._room(part) if request.get("answers") else 0
            return await self._page(part, _seq_in(request.get("cursor")), room)
        except JobsError as error:
            return {"ok": False, "error": str(error)}

    async def _part(self, identity: str) -> _Part:
        store = self._sources.store
        batch = await store.batch(identity) if is_batch_id(identity) else None
        job = None if batch is not None else await store.job(identity)
        found = batch or job
        tree = None if found is None else await store.tree(found.root_id)
        if found is None or tree is None:
            raise NotFoundError("Batch" if is_batch_id(identity) else "Job", identity)
        path, first = tree.id if job is None else job.path, None
        if batch is not None and batch.parent_id is not None:
            parent = await store.job(batch.parent_id)
            if parent is None:
                raise NotFoundError("Batch", identity)
            path, first = parent.path, frozenset(one.id for one in await store.jobs_in_batch(identity))
        return _Part(id=identity, tree=tree, path=path, job=job, first=first, created_at=found.created_at)

    async def _room(self, part: _Part) -> int:
        """Return how many characters of each answer are shown."""
        store = self._sources.store
        sums = await (store.rollup_under(part.path) if part.first is None else store.rollup_batch(part.id))
        return max(LEAST_CHARS, min(ANSWER_CHARS, ANSWERS_CHARS // max(1, sums.total)))

    async def _page(self, part: _Part, before: int | None, room: int) -> dict[str, Any]:
        head = {} if before is not None else {"tree": await self._head(part)}
        rows: list[dict[str, Any]] = []
        size, more = 0, True
        while more and not rows:
            jobs = await self._sources.store.newest_jobs(limit=PAGE_ROWS, before_seq=before, path=part.path)
            more = len(jobs) == PAGE_ROWS
            meant = [job for job in jobs if part.has(job)]
            attempts = await self._attempts_of(meant)
            before = jobs[-1].seq if jobs else before
            for place, job in enumerate(meant, start=1):
                rows.append(await self._row(job, attempts.get(job.id, ()), room))
                size += len(dumps(rows[-1]))
                if size >= PAGE_BYTES and place < len(meant):
                    before, more = job.seq, True
                    break
                if not place % SLICE_ROWS:
                    await anyio.lowlevel.checkpoint()
        cursor = "" if before is None else str(before)
        return {"ok": True, **head, "jobs": rows, "answerChars": room, "cursor": cursor, "more": more}

    async def _head(self, part: _Part) -> dict[str, Any]:
        tree, job = part.tree, part.job
        is_whole = part.id == tree.id
        own_budget = None if job is None else job.spec.max_budget_usd
        row = {
            "id": part.id,
            "rootId": tree.id,
            "isBatch": job is None,
            "client": tree.client,
            "createdAt": tree.created_at if is_whole else part.created_at,
            "maxBudgetUsd": (tree.max_budget_usd or own_budget) if is_whole else own_budget,
            "deadline": tree.deadline if is_whole else None,
            "pauses": await self._pauses(part) or None,
            "now": self._sources.clock.now(),
            "version": __version__,
        }
        return {name: value for name, value in row.items() if value is not None}

    async def _pauses(self, part: _Part) -> list[list[Any]]:
        paused = self._sources.paused_paths
        everything = paused.at(EVERYTHING)
        lasting = (*paused.under(part.tree.id), *(() if everything is None else (everything,)))
        found = pauses_row(await self._sources.store.ended_pauses(part.tree.id), lasting)
        return [one for one in found if not one[2] or contains(one[2], part.path) or contains(part.path, one[2])]

    async def _attempts_of(self, jobs: Sequence[Job]) -> Mapping[str, Sequence[Attempt]]:
        found: dict[str, list[Attempt]] = {}
        for attempt in await self._sources.store.attempts_of([job.id for job in jobs]):
            found.setdefault(attempt.job_id, []).append(attempt)
        return found

    async def _row(self, job: Job, attempts: Sequence[Attempt], room: int) -> dict[str, Any]:
        said = self._sources.to_say(job)
        row = row_of(job, said.wait, self._sources.activity_of(job))
        most = TEXT_CHARS if room else NAME_CHARS
        spec = job.spec
        texts = {"task": spec.task[:most], "key": (spec.key or "")[:NAME_CHARS], "error": (job.error or "")[:most]}
        more = {
            "paused": said.is_paused,
            "cwd": spec.cwd,
            "rights": _rights(job),
            "attempts": [self._attempt_row(job, one) for one in attempts],
            **(await self._answer(job, room) if room else {}),
        }
        row = {name: value for name, value in row.items() if name not in _LEFT_OUT}
        return row | {name: value for name, value in (texts | more).items() if value}

    def _attempt_row(self, job: Job, attempt: Attempt) -> dict[str, Any]:
        is_open = attempt.ended_at is None
        activity = self._sources.activity_of(job) if is_open and job.status is JobStatus.RUNNING else None
        usage = attempt.usage if activity is None else activity.usage
        row = {
            "number": attempt.number,
            "from": attempt.started_at,
            "to": attempt.ended_at,
            "status": attempt.status,
            "reason": attempt.reason,
            "costUsd": round(usage.cost_usd, 6),
            "inputTokens": usage.input_tokens,
            "outputTokens": usage.output_tokens,
            "model": attempt.model if activity is None else activity.model,
            "cliVersion": attempt.cli_version,
            **waits_row(self._sources.waits_of(job.id) if is_open else attempt.waits),
        }
        return {name: value for name, value in row.items() if value}

    async def _answer(self, job: Job, room: int) -> dict[str, Any]:
        if job.status not in TERMINAL:
            return {}
        answer = job.short_result
        if answer is None and job.excerpt is not None:
            attempt = await self._sources.store.attempt(job.id, job.attempt)
            answer = None if attempt is None else attempt.result
        if not answer:
            return {}
        answer = with_note(job, answer)
        # Twice as much as is shown: of a secret that reaches over the end nothing is left.
        return {"answer": answer[: 2 * room], "answerChars": len(answer)}


def _rights(job: Job) -> dict[str, Any]:
    spec = job.spec
    lists = {
        "allowedTools": spec.allowed_tools,
        "disallowedTools": spec.disallowed_tools,
        "mcpServers": spec.mcp_servers,
    }
    rights = {
        "permissionMode": spec.permission_mode,
        **{name: [one[:TOOL_CHARS] for one in names[:MOST_NAMES]] for name, names in lists.items() if names},
        "maxJobs": spec.max_jobs,
        "timeoutSeconds": spec.timeout_seconds,
    }
    return {name: value for name, value in rights.items() if value is not None}


def _seq_in(cursor: object) -> int | None:
    return int(cursor) if isinstance(cursor, str) and cursor.isdecimal() and len(cursor) < 19 else None
