"""Completion of job ids by the shell."""

import os

from server.client.state_dir import StatePaths, state_dir
from server.client.tool_client import ToolError, running_client
from server.client.wire import ClientError


def complete_id(incomplete: str) -> list[str]:
    """Return the newest ids with this prefix, for a shell; none where no engine runs, since none is started for it."""
    try:
        with running_client(StatePaths(state_dir(os.environ))) as engine:
            return [] if engine is None else engine.ids_from(incomplete)
    except (ClientError, ToolError, OSError, ValueError):
        # A shell cannot show an error: no id is offered.
        return []
