"""Default `work` of a node: `claude -p` answers its task, in a separate process."""

import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from subprocess import Popen, TimeoutExpired
from typing import Any, Final

from anyio import CancelScope, TemporaryFile, move_on_after, sleep

GRACE_SECONDS: Final = 5.0
"""Seconds between asking `claude` to end and ending it: it needed 1.6 s to end a running tool (measured on 2.1.332)."""

_LOOK_SECONDS: Final = 0.05
"""Seconds between two looks whether `claude` has ended; it takes some seconds for an answer."""

_SESSION: Final = ("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SESSION_", "CLAUDE_CODE_SSE_PORT")
"""Beginnings of variables of a surrounding Claude Code session; they make `claude` part of that session."""

_SHOWN: Final = 2000
"""Characters of the end of what `claude` said that an error quotes."""


class ClaudeMissingError(RuntimeError):
    """There is no `claude` on PATH."""

    def __init__(self) -> None:
        super().__init__(
            "There is no `claude` on PATH. Install Claude Code (npm install -g @anthropic-ai/claude-code) and log in, "
            "or pass `work=`, a function that does a task."
        )


class ClaudeFailedError(RuntimeError):
    """`claude` ended with an exit code that is not 0.

    Args:
        exit_code: The code; a negative one is the number of the signal that ended it.
        said: What it wrote to stderr, or to stdout where it wrote nothing there.
    """

    def __init__(self, exit_code: int, said: str) -> None:
        self.exit_code = exit_code
        self.said = said
        super().__init__(f"`claude` ended with exit code {exit_code}: {said or 'it said nothing'}")


async def ask_claude(node: Mapping[str, Any]) -> str:
    """Run `claude -p` on a node's task and return its answer without the last line break.

    It runs in the working directory and the environment of this program, without the variables of a surrounding
    Claude Code session. The task goes over stdin, so it may be of any length and begin with anything. A cancel ends
    the process and its group before it goes on.

    Args:
        node: Its `task` is a text.

    Raises:
        TypeError: The task is no text.
        ClaudeMissingError: There is no `claude` on PATH.
        ClaudeFailedError: It ended with an exit code that is not 0.
        OSError: It cannot be started.
    """
    task = node["task"]
    if not isinstance(task, str):
        raise TypeError(f"`claude` answers a text, not {type(task).__name__}. Give texts as tasks, or pass `work=`.")
    claude = shutil.which("claude")
    if claude is None:
        raise ClaudeMissingError
    # Files, not pipes: what claude leaves running may hold them, and no code has to read and write at the same time.
    async with TemporaryFile() as given, TemporaryFile() as answer, TemporaryFile() as errors:
        await given.write(_as_text(task))
        await given.seek(0)
        # Not awaited: a cancel of a start that is awaited kills `claude` alone, and leaves what that has started.
        process = _start(claude, given.wrapped, answer.wrapped, errors.wrapped)
        try:
            await _wait(process)
        finally:
            await _end(process)
        said, error_text = await _text(answer), await _text(errors)
    if process.returncode != 0:
        raise ClaudeFailedError(process.returncode or 0, (error_text.strip() or said.strip())[-_SHOWN:])
    return said.removesuffix("\n")


def _as_text(task: str) -> bytes:
    # Behind a line break "/help" is no command of Claude Code's (measured on 2.1.197 and 2.1.332).
    return ("\n" * task.startswith("/") + task).encode("utf-8", "replace")


async def _text(file: Any) -> str:
    await file.seek(0)
    return bytes(await file.read()).decode("utf-8", "replace")


def _start(claude: str, given: Any, answer: Any, errors: Any) -> Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SESSION)}
    return Popen([claude, "-p"], stdin=given, stdout=answer, stderr=errors, env=environment, start_new_session=True)


async def _wait(process: Popen[bytes]) -> None:
    # Not in a thread: one that starts while an interrupt ends the loop is told of no end, and Python waits for it.
    while process.poll() is None:  # noqa: ASYNC110 - the end of a process sets no event
        await sleep(_LOOK_SECONDS)


async def _end(process: Popen[bytes]) -> None:
    if process.returncode is not None:
        return
    with CancelScope(shield=True):
        _signal_group(process.pid, signal.SIGTERM)
        try:
            with move_on_after(GRACE_SECONDS):
                await _wait(process)
        finally:
            # Also where a second Ctrl-C ends the wait: the shield holds off anyio's cancels, not asyncio's.
            _signal_group(process.pid, signal.SIGKILL)
            with suppress(TimeoutExpired):
                process.wait(1.0)
        await _wait(process)


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, number)
