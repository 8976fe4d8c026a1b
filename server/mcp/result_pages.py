"""Pages of results: of one job, or of several within one budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import JobFailedError, NotFinishedError
from jobs.model import LIVE, Attempt, Job, JobStatus
from jobs.ports import Store
from server.mcp import replies
from server.mcp.advice import advice_on
from server.mcp.job_fields import note

MAX_SECTIONS = 100
"""Most jobs in one reply of `claude_result`: the notes on how to read on then take 20,000 characters."""

KEPT_FRAME_KEYS = (
    "type",
    "subtype",
    "is_error",
    "result",
    "structured_output",
    "session_id",
    "total_cost_usd",
    "num_turns",
    "duration_ms",
    "duration_api_ms",
    "stop_reason",
    "usage",
    "permission_denials",
)
"""Keys of the CLI's result object that callers read; the rest is bulk."""

NOTE = "\n\n[{}]"
"""Format of the note that follows an answer in text."""

_KEPT_USAGE_KEYS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Reads results of jobs.

    Args:
        store: Where attempts are.
        transcript: Path of the output file of a job's attempt.
        waits: Returns why a job does not start and until when, or an empty text.
    """

    store: Store
    transcript: Callable[[Job], str]
    waits: Callable[[Job], str]

    async def page(self, job: Job, *, offset: int, limit: int) -> str:
        """Return a page of a job's result in its own output format.

        Args:
            job: The job.
            offset: First character.
            limit: Most characters, without the note that says how to read on.

        Raises:
            JobFailedError: It has none.
            NotFinishedError: It is not over.
        """
        text = result_text(job, await self._finished(job))
        return self._part(job, text, offset=offset, limit=limit, asked=f"jobId {job.id!r}")

    async def several(self, jobs: Sequence[Job], *, offset: int, limit: int) -> str:
        """Return a page of each job's answer under a heading, or why it has none.

        Args:
            jobs: At least one.
            offset: First character of each.
            limit: Most characters of all of them together.
        """
        shown = jobs[:MAX_SECTIONS]
        share = limit // len(shown)
        sections = [await self._section(job, offset=offset, limit=share) for job in shown]
        if left := len(jobs) - len(shown):
            # By the first of them: the caller has the list.
            sections.append(f"[{left} more jobs: call claude_result with the jobIds from {jobs[len(shown)].id!r} on]")
        return "\n\n".join(sections)

    async def _section(self, job: Job, *, offset: int, limit: int) -> str:
        try:
            text = with_note(job, (await self._finished(job)).result or "")
        except NotFinishedError as error:
            text = str(error)
        except JobFailedError as error:
            text = f"{error}\n[{advice_on(error.job_id, error.reason)}]"
        # By `jobIds`: the answer alone is shorter than the object that `jobId` returns, so offsets differ.
        shown = self._part(job, text, offset=offset, limit=limit, asked=f"jobIds [{job.id!r}]")
        return f"## {job.id} ({job.status})\n{shown}"

    async def _finished(self, job: Job) -> Attempt:
        if job.status in LIVE:
            raise NotFinishedError(job.id, job.status, self.waits(job) if job.status is JobStatus.QUEUED else "")
        attempt = await self.store.attempt(job.id, job.attempt)
        if job.status is not JobStatus.COMPLETED or attempt is None:
            # Where both are the same word, it is given once.
            reason = "" if str(job.reason) == str(job.status) else f"{job.reason or 'unknown_error'}: "
            why = f"{reason}{job.error or 'no explanation'}"
            raise JobFailedError(job.id, job.status, why, job.reason)
        return attempt

    def _part(self, job: Job, text: str, *, offset: int, limit: int, asked: str) -> str:
        return replies.page(text, offset=offset, limit=limit, asked=asked, where=self.transcript(job))


def result_text(job: Job, attempt: Attempt) -> str:
    """Return a job's whole result as its output format has it."""
    if job.spec.output_format == "text" or attempt.frame is None:
        return with_note(job, attempt.result or "")
    frame = attempt.frame if job.spec.verbose else _kept(attempt.frame)
    return replies.pretty({**rounded(frame), "jobId": job.id, **note(job)})


def with_note(job: Job, answer: str) -> str:
    """Return an answer as a text, followed by the remark on it, if any."""
    return "".join((answer, *(NOTE.format(said) for said in note(job).values())))


def rounded(value: Any, *, costs: bool = False) -> Any:
    """Return JSON whose costs, which are numbers under a name with "cost" in it, have six decimals at most."""
    if isinstance(value, Mapping):
        return {name: rounded(each, costs="cost" in name.lower()) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each, costs=costs) for each in value]
    return round(value, 6) if costs and isinstance(value, float) else value


def _kept(frame: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: frame[key] for key in KEPT_FRAME_KEYS if key in frame}
    usage = kept.get("usage")
    if isinstance(usage, Mapping):
        kept["usage"] = {key: usage[key] for key in _KEPT_USAGE_KEYS if key in usage}
    if not kept.get("permission_denials"):
        kept.pop("permission_denials", None)
    return kept
