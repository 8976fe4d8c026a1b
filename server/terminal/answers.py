"""A job's whole answer, however many pages it has."""

from server.front_door.client import Client
from server.terminal.speech import note, say

PAGE_CHARS = 100_000
"""Characters that are asked for at once; `claude_result` grants up to twice as many."""


def whole_answer(engine: Client, job_id: str) -> str:
    """Read the pages of a job's result one after the other and return what they come to.

    Raises:
        ToolError: The job has no result.
        EngineLostError: The engine went away.
    """
    whole, total = "", 1
    while len(whole) < total:
        page = engine.call("claude_result", {"jobId": job_id, "offset": len(whole), "limit": PAGE_CHARS})
        if not whole and len(page) <= PAGE_CHARS:
            # A page that is cut has as many characters as were asked for, and behind them a note.
            return page
        # By the note's own offset and from behind: an answer may quote the note of another page.
        shown, _, note = page.rpartition(f"\n\n[characters {len(whole)} to ")
        whole += shown
        total = int(note.partition(" of ")[2].partition(";")[0])
    return whole


def say_answer(engine: Client, job_id: str) -> None:
    """Print a job's whole answer, and beside it, on stderr, what is to be known about it.

    Raises:
        ToolError: The job has no result.
        EngineLostError: The engine went away.
    """
    answer = whole_answer(engine, job_id)
    if said := engine.call_json("claude_status", {"jobId": job_id}).get("note"):
        # An answer in text ends with it: a program that reads this one wants the answer alone.
        answer = answer.removesuffix(f"\n\n[{said}]")
        note(f"note: {said}")
    say(answer)
