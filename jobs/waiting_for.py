"""Why a live job does no work now: a closed set."""

from enum import StrEnum


class WaitingFor(StrEnum):
    """Why a live job does no work now. The first three are stored; the others are known while an engine runs."""

    SIBLINGS = "siblings"
    """It is queued until the jobs of its batch that it depends on have completed."""
    CHILDREN = "children"
    """Its subtasks, or those below it that it waits for in `claude_wait`."""
    PERMISSION = "permission"
    """Somebody is asked whether it may call a tool."""
    SLOT = "slot"
    """It is queued until fewer jobs run."""
    LIMIT = "limit"
    """It is queued because of what its account may use, or how many of its jobs may run at once."""
    MEMORY = "memory"
    """It is queued until the machine has more free memory."""
    PAUSE = "pause"
    """It is queued for some seconds after trouble of the API, or of the system with a start."""
