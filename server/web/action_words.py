"""What a person is told of an action on jobs, from the answer of its tool."""

from collections.abc import Mapping
from typing import Any

Said = tuple[str, bool]
"""What to tell the person, and whether it went well."""


def said_of_kill(identity: str, answer: Mapping[str, Any]) -> Said:
    """Say how a kill went."""
    return (str(answer["message"]), True) if answer["success"] else (f"{identity} is over already.", False)


def said_of_retry(answer: Mapping[str, Any]) -> Said:
    """Say how a retry went."""
    if count := answer["count"]:
        return f"Queued again: {count} job{'' if count == 1 else 's'}.", True
    busy = [one["heldBy"] for one in answer.get("busy", ())]
    return (f"Its session is in use by {busy[0]}." if busy else "Nothing there has failed."), False


def said_of_send(answer: Mapping[str, Any]) -> Said:
    """Say how a message was sent."""
    return f"Sent. It runs as {answer['jobId']}.", True


def said_of_approve(*, allow: bool) -> Said:
    """Say how a permission request was answered."""
    return ("Allowed." if allow else "Denied; the job goes on without that call."), True
