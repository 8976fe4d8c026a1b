"""Jobs, transcripts and trees as MCP resources, with the same visibility as the tools."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    ResourceTemplateReference,
    TextResourceContents,
)

from jobs.errors import JobsError
from jobs.ids import is_batch_id
from jobs.model import Job
from jobs.processes.attempt_dir import AttemptDirectory
from server.mcp import replies
from server.mcp.arguments import JobArguments
from server.mcp.calls import Context, call_of
from server.mcp.connection_state import Call
from server.mcp.tools import claude_status

LISTED: Final = 50
"""How many of the newest jobs are listed; the templates reach the others."""

TRANSCRIPT_BYTES: Final = 1024 * 1024
"""Most bytes of a transcript in one read: the last ones, since it begins with the task that the reader knows."""

_JSON: Final = "application/json"
_LINES: Final = "application/x-ndjson"
_COMPLETED: Final = 100
_URI = re.compile(r"(job|tree(?!.*/transcript))://([a-z0-9]{1,40})(/transcript)?")

TEMPLATES: Final = (
    ResourceTemplate(
        uri_template="job://{id}", name="job", description="Where a job is, as claude_status tells it.", mime_type=_JSON
    ),
    ResourceTemplate(
        uri_template="job://{id}/transcript",
        name="transcript",
        description="What a job's last attempt wrote, one JSON frame a line; of a long one its end.",
        mime_type=_LINES,
    ),
    ResourceTemplate(
        uri_template="tree://{id}",
        name="tree",
        description="Everything below a job or a batch, with counts and cost.",
        mime_type=_JSON,
    ),
)


def uris_of(job: Job) -> Sequence[str]:
    """Return the URIs of the resources that change with this job."""
    above = (f"tree://{part}" for part in job.path.split("/"))
    return (f"job://{job.id}", f"job://{job.id}/transcript", f"tree://{job.batch_id}", *above)


async def list_resources(ctx: Context, _: PaginatedRequestParams | None) -> ListResourcesResult:
    """List the caller's newest jobs."""
    call = await _call(ctx)
    jobs = await call.visibility.newest(limit=LISTED)
    return ListResourcesResult(resources=[_resource(job) for job in jobs])


async def list_templates(ctx: Context, _: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    """List the three kinds of resources."""
    return ListResourceTemplatesResult(resource_templates=list(TEMPLATES))


async def read_resource(ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    """Read one resource.

    Raises:
        MCPError: It does not exist, or is not the caller's: the two errors are the same.
    """
    call = await _call(ctx)
    try:
        text, kind = await _read(call, params.uri)
    except JobsError as error:
        raise MCPError(INVALID_PARAMS, f"Resource not found: {error}", {"uri": params.uri}) from error
    return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, mime_type=kind, text=_whole(text))])


async def visible(call: Call, uri: str) -> bool:
    """Tell whether a caller may read a resource."""
    found = _URI.fullmatch(uri)
    if found is None:
        return False
    try:
        if found[1] == "tree":
            await call.visibility.rollup(found[2])
        else:
            await call.visibility.job(found[2])
    except JobsError:
        return False
    return True


async def complete(ctx: Context, params: CompleteRequestParams) -> CompleteResult:
    """Complete the id in a resource URI from the caller's jobs, the newest first."""
    values: list[str] = []
    if isinstance(params.ref, ResourceTemplateReference) and params.argument.name == "id":
        call = await _call(ctx)
        ids = await call.visibility.ids_from(params.argument.value, limit=_COMPLETED)
        values = [one for one in ids if params.ref.uri.startswith("tree:") or not is_batch_id(one)]
    return CompleteResult(completion=Completion(values=values, total=len(values), has_more=False))


async def _call(ctx: Context) -> Call:
    try:
        return await call_of(ctx)
    except JobsError as error:
        # A newer client would not see the text of any other exception.
        raise MCPError(INVALID_PARAMS, str(error)) from error


async def _read(call: Call, uri: str) -> tuple[str, str]:
    found = _URI.fullmatch(uri)
    if found is None:
        raise MCPError(INVALID_PARAMS, "Resource not found: there are job://ID, job://ID/transcript and tree://ID")
    kind, identity, transcript = found.groups()
    if kind == "tree":
        return await _tree(call, identity), _JSON
    if transcript:
        return _transcript(call, await call.visibility.job(identity)), _LINES
    await call.visibility.job(identity)
    return await claude_status.handle(call, JobArguments(job_id=identity)), _JSON


async def _tree(call: Call, identity: str) -> str:
    sums = await call.visibility.rollup(identity)
    jobs = (await call.visibility.subtree_selection(identity)).jobs
    return replies.tree(
        identity,
        sums,
        jobs,
        excerpt_chars=call.services.settings.excerpt_chars,
        now_of=call.services.now_of,
    )


def _transcript(call: Call, job: Job) -> str:
    # Through the attempt's directory, which refuses what a job could have put in the file's place.
    directory = AttemptDirectory(Path(call.services.transcript(job)).parent)
    size = directory.output_size()
    start = max(0, size - TRANSCRIPT_BYTES)
    data = directory.read_output(start, TRANSCRIPT_BYTES)
    # Without the truncated first line.
    whole = data.partition(b"\n")[2] if start else data
    if data and not whole:
        problem = (
            f"The last frame of {job.id} has more than {TRANSCRIPT_BYTES} bytes. Call claude_result with its jobId."
        )
        raise MCPError(INVALID_PARAMS, problem)
    return whole.decode("utf-8", "replace")


def _resource(job: Job) -> Resource:
    task = job.spec.task if len(job.spec.task) <= LISTED else f"{job.spec.task[:LISTED]}…"
    return Resource(
        uri=f"job://{job.id}", name=job.id, title=_whole(task), description=str(job.status), mime_type=_JSON
    )


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
