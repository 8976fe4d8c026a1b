"""Runs the engine in this process, without the command line's libraries, which would add 0.2 s to each start."""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from server.client.engine_socket import is_at
from server.client.spawn_engine import A_JOB, SETTINGS_REFUSED
from server.client.state_dir import prepare, state_dir
from server.client.wire import STARTED_BY, ClientError, setting_variables

STDERR = 2
"""Descriptor; `sys.stderr` may be a stream that has none."""


def run(words: Callable[[str], str]) -> str | None:
    """Run the engine until it exits, and return what kept it from running, or None.

    Args:
        words: Rewrites a tool's text for a person at the page.
    """
    # Every file that an engine makes is for this user alone, sockets and directories from their first moment too.
    started_with = os.umask(0o077)
    # What is imported is no garbage, and scanning it again and again takes a tenth of the start; the engine
    # turns the collector on once it can be reached. Nothing here has plugins for pydantic, which would look for them.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Imported here: the MCP SDK takes a second, and no other command needs it.
    from jobs.errors import BadInputError, JobsError
    from jobs.processes import cgroup
    from jobs.processes.process_table import process_table
    from jobs.settings_sources import ClientVariables, InvalidSettingsError

    try:
        paths = prepare(state_dir(os.environ))
    except ClientError as error:
        return str(error)
    import anyio

    from server.engine.app import EXIT_SECONDS, serve
    from server.engine.listener import allow_many_files
    from server.engine.peer import inside_job
    from server.logging_setup import log_to_stderr

    log_to_stderr("INFO", path=paths.log if is_at(STDERR, paths.log) else None)
    started_by = os.environ.get(STARTED_BY) or f"claude-jobs engine, pid {os.getpid()}"
    starter = ClientVariables(values=setting_variables(os.environ), client=started_by)
    # An engine started in a job's own shell has the job's mark, or an ancestor of it does.
    by_person = started_by != A_JOB and not inside_job(os.getpid(), process_table())
    reasons: list[str] = []
    try:
        # A job's pump may have started this engine.
        cgroup.leave()
        allow_many_files()
        on_stopping = partial(_exit_within, EXIT_SECONDS)
        served = partial(serve, paths.home, starter, by_person=by_person, umask=started_with)
        anyio.run(partial(served, words=words, on_stopping=on_stopping))
    except* (InvalidSettingsError, BadInputError) as errors:
        reasons += [f"{SETTINGS_REFUSED}{error}" for error in _leaves(errors)]
    # A group: the store is opened inside the engine's own. What is raised here would become one too.
    except* (ClientError, JobsError) as errors:
        reasons += map(str, _leaves(errors))
    # Two clients may start an engine at the same moment: the second engine has nothing to do.
    return "\n".join(reasons) or None


def _exit_within(seconds: float) -> None:
    """End this process after `seconds` even if something still runs in it: the end of a job may be slow."""
    last = threading.Timer(seconds, os._exit, (0,))
    last.daemon = True
    last.start()


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
