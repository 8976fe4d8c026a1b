"""The tool that pauses and resumes jobs, and its replies."""

from typing import Any, Final

from jobs.errors import BadInputError
from jobs.ids import contains, is_batch_id
from jobs.limits.throttle import clock_time
from jobs.paused import EVERYTHING, PausedPath
from jobs.pausing import PauseResult, ResumeResult
from server.mcp import replies
from server.mcp.arguments import PauseArguments
from server.mcp.connection_state import Call
from server.mcp.tool_definitions import tool

ALL: Final = "all"
"""In place of an id: every job. An id that was left out by mistake must not stop the work of other sessions."""


@tool(
    title="Pause jobs",
    about=(
        "Pause or resume a job or batch and all below: nothing starts there. now also ends what runs, to go on later. "
        'jobId "all": every job.'
    ),
    steers_below=True,
)
async def claude_pause(call: Call, arguments: PauseArguments) -> str:
    """Pause or resume a job, a batch, a tree or, for a caller outside every tree, everything."""
    identity, by_job = arguments.job_id, call.job.id if call.job else None
    paths = await _paths(call, identity)
    if arguments.resume:
        if arguments.now:
            raise BadInputError("now", "it goes with a pause", "Leave it out to resume.")
        resumed = await call.services.pausing.resume(paths, by_job=by_job)
        return replies.pretty(_resumed(call, identity, resumed))
    paused = await call.services.pausing.pause(paths, now=arguments.now, by_job=by_job)
    return replies.pretty(_paused(identity, paused))


async def _paths(call: Call, identity: str) -> list[str]:
    if identity == ALL:
        if call.job is not None:
            raise BadInputError("jobId", "a job cannot pause everything", "Name a job below you.")
        return [EVERYTHING]
    if is_batch_id(identity):
        batch = await call.visibility.batch(identity)
        jobs = (await call.visibility.batch_selection(identity)).jobs
        return [batch.id] if batch.id == batch.root_id else [job.path for job in jobs]
    call.visibility.refuse_self("pause or resume itself", "Name a job below you.", jobs=(identity,))
    return [(await call.visibility.job(identity)).path]


def _paused(identity: str, result: PauseResult) -> dict[str, Any]:
    what = _what(identity)
    waits = _counted(result.queued, "job waits", "jobs wait")
    runs = ""
    if result.running:
        many = "go on to their ends" if result.running > 1 else "goes on to its end"
        fate = "ended, and queued again with the session of each" if result.ends_running else many
        verb = (" are" if result.running > 1 else " is") if result.ends_running else ""
        runs = f"; {_counted(result.running, 'running job', 'running jobs')}{verb} {fate}"
    is_paused = f"was paused already, since {clock_time(result.since)}" if result.was_paused else "is paused"
    return {
        "success": True,
        "message": f"{what} {is_paused}: {waits}{runs}.",
        "queued": result.queued,
        "running": result.running,
        "next": f"claude_pause with jobId {identity!r} and resume true lets it go on.",
    }


def _resumed(call: Call, identity: str, result: ResumeResult) -> dict[str, Any]:
    what = _what(identity)
    if result.still is not None:
        return {"success": False, "message": _still(call, what, result.still), "queued": result.queued}
    if not result.lifted:
        message = "Nothing was paused." if identity == ALL else f"{what} was not paused."
    else:
        message = f"{what} goes on{_waits(call, result)}."
    if result.persons:
        message += " What a person paused there stays paused: only a person resumes it, with `claude-jobs resume`."
    return {"success": not result.persons, "message": message, "queued": result.queued}


def _waits(call: Call, result: ResumeResult) -> str:
    if not result.queued:
        return ""
    waits = f": {_counted(result.queued, 'job waits', 'jobs wait')}"
    # A usage limit or a budget of their account holds them back further.
    pauses = call.services.recursion.pauses(result.root_ids)
    if not pauses:
        return f"{waits} for a slot"
    # Other trees may have other accounts.
    some = ", some" if len(result.root_ids) > 1 else ""
    return waits + "".join(f"{some} until {clock_time(pause.until)} because {pause.because}" for pause in pauses)


def _still(call: Call, what: str, pause: PausedPath) -> str:
    name = pause.id or "everything"
    above = "" if name == what else f", because {name} is"
    if call.job is not None and (pause.by_job is None or not contains(call.job.path, pause.path)):
        return f"{what} is still paused{above}. Only a person resumes that, with `claude-jobs resume`."
    return f"{what} is still paused{above}. Call claude_pause with jobId {pause.id or ALL!r} and resume true."


def _what(identity: str) -> str:
    return "Everything" if identity == ALL else identity


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
