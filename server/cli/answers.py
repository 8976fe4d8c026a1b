"""Reads and prints answers: all pages of a job's answer, and the answers of several jobs."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from server.cli.console import note, say
from server.cli.follow import listed
from server.cli.wording import for_a_person
from server.client.tool_client import Client, ToolError

_MOST_JOBS = 1_000_000
"""More jobs than a tree has: all are asked for."""

PAGE_CHARS = 100_000
"""Characters that are asked for at once; `claude_result` grants up to twice as many."""


def whole_answer(engine: Client, job_id: str) -> str:
    """Read all pages of a job's result and return the whole.

    Raises:
        ToolError: The job has no result.
        EngineLostError: The engine ended.
    """
    whole, total = "", 1
    while len(whole) < total:
        page = engine.call("claude_result", {"jobId": job_id, "offset": len(whole), "limit": PAGE_CHARS})
        if not whole and len(page) <= PAGE_CHARS:
            # A truncated page has as many characters as were requested, followed by a note.
            return page
        # By the note's offset and from the end: an answer may quote the note of another page.
        shown, _, note = page.rpartition(f"\n\n[characters {len(whole)} to ")
        whole += shown
        total = int(note.partition(" of ")[2].partition(";")[0])
    return whole


def say_answer(
    engine: Client, job_id: str, offset: int | None = None, limit: int | None = None, *, as_object: bool = False
) -> None:
    """Print a job's answer, and a remark on it, if any, on stderr.

    Args:
        engine: A client of the engine.
        job_id: The job.
        offset: First character of a page, or None.
        limit: Most characters of a page, or None; with neither, all is printed.
        as_object: Print the result object of a job whose output format is JSON, instead of the answer in it.

    Raises:
        ToolError: The job has no result.
        EngineLostError: The engine ended.
    """
    answer = answer_or_raise(engine, job_id, offset, limit, as_object=as_object)
    if said := answer.get("note"):
        note(f"note: {for_a_person(said)}")
    say(answer["result"])


def answer_of(engine: Client, job_id: str, offset: int | None = None, limit: int | None = None) -> dict[str, Any]:
    """Return a job's `result` with its `note`, if any, or the `error` that says why there is none; as `say_answer`."""
    try:
        return answer_or_raise(engine, job_id, offset, limit)
    except ToolError as error:
        return {"jobId": job_id, "error": for_a_person(str(error))}


def answer_or_raise(
    engine: Client, job_id: str, offset: int | None, limit: int | None, *, as_object: bool = False
) -> dict[str, Any]:
    """Return a job's answer as `answer_of` does; arguments and errors as for `say_answer`."""
    whole = whole_answer(engine, job_id)
    said = engine.call_json("claude_status", {"jobId": job_id}).get("note")
    frame = None if as_object else _frame_in(whole, job_id)
    # An answer in text ends with its note: a program that reads the JSON wants the answer alone.
    text = whole.removesuffix(f"\n\n[{said}]") if frame is None else _answer_in(frame)
    notes = [said] if said else []
    if offset is not None or limit is not None:
        text, which = _page(text, job_id, offset or 0, limit)
        notes.append(which)
    answer = {"jobId": job_id, "result": text}
    return answer | ({"note": "; ".join(notes)} if notes else {})


def _frame_in(whole: str, job_id: str) -> Mapping[str, Any] | None:
    """Return the result object of a job whose output format is JSON; None where this is an answer in text."""
    try:
        frame = json.loads(whole)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) and frame.get("jobId") == job_id and "type" in frame else None


def _answer_in(frame: Mapping[str, Any]) -> str:
    if frame.get("structured_output") is not None:
        return json.dumps(frame["structured_output"], ensure_ascii=False)
    return str(frame.get("result") or "")


def _page(text: str, job_id: str, offset: int, limit: int | None) -> tuple[str, str]:
    """Return a page of an answer, and a note on which one it is and how to read the next."""
    start = min(offset, len(text))
    end = len(text) if limit is None else min(start + limit, len(text))
    following = f"--offset {end}" + (f" --limit {limit}" if limit else "")
    more = f"the next: `claude-jobs result {job_id} {following}`" if end < len(text) else "this is the end"
    return text[start:end], f"characters {start} to {end} of {len(text)}; {more}"


def say_answers(answers: Iterable[Mapping[str, Any]]) -> None:
    """Print several answers, each below its job's id, and on stderr why some are missing."""
    for answer in answers:
        if "error" in answer:
            note(f"{answer['jobId']}: {answer['error']}")
            continue
        say(f"==> {answer['jobId']} <==\n{answer['result']}\n")
        if said := answer.get("note"):
            note(f"note: {for_a_person(said)}")


def is_batch(identity: str) -> bool:
    """Tell whether an id is a batch's."""
    return identity.startswith("b")


def jobs_in(engine: Client, identity: str) -> list[str]:
    """Return the ids of a batch's jobs in order of their admission, or a job's own id."""
    if not is_batch(identity):
        return [identity]
    jobs = listed(engine, limit=_MOST_JOBS, under=identity).jobs
    return [job["jobId"] for job in jobs[::-1] if job["batchId"] == identity]
