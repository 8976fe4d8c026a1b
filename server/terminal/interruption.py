"""Ctrl-C while a command waits for jobs: the first says that they go on, a second one cancels them."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from server.terminal.speech import client, err, note

SECONDS: Final = 3.0
"""How long a second Ctrl-C is waited for: long enough to read two lines, short enough for who wants the prompt back."""

_TERMINATED: Final = 128 + signal.SIGTERM


@contextmanager
def while_it_goes_on(identity: str, *, own: bool = True) -> Iterator[None]:
    """Where a person interrupts the command, say that its jobs go on, and how to follow or cancel them.

    Args:
        identity: The job or batch.
        own: This command started it, so a second Ctrl-C cancels it.
    """
    try:
        with _ended_by_exit():
            yield
    except KeyboardInterrupt:
        _tell_and_wait_for_a_second(identity, seconds=SECONDS if own else 0.0)
        raise
    except SystemExit:
        _say_that_it_goes_on(identity)
        raise


@contextmanager
def while_it_is_asked() -> Iterator[None]:
    """Where a person interrupts the command before it knows an id, say where that is found."""
    try:
        yield
    except KeyboardInterrupt:
        err.print()
        note("Interrupted while it was being started. `claude-jobs list` shows whether it was.")
        raise


def _say_that_it_goes_on(identity: str) -> None:
    note(f"{identity} goes on. `claude-jobs tree -f {identity}` follows it; `claude-jobs kill {identity}` cancels it.")


def _tell_and_wait_for_a_second(identity: str, seconds: float) -> None:
    try:
        # The terminal has shown ^C in the line before.
        err.print()
        _say_that_it_goes_on(identity)
        if seconds:
            note(f"Press Ctrl-C again within {seconds:g} seconds to cancel it now.")
            time.sleep(seconds)
    except KeyboardInterrupt:
        if not seconds:
            raise
        err.print()
        # A connection of its own: the first was cut off in the middle of a reply.
        with client() as engine:
            note(f"{engine.call_json('claude_kill_job', {'jobId': identity})['message']}.")
        raise


@contextmanager
def _ended_by_exit() -> Iterator[None]:
    """Have SIGTERM end the command as an exit does, so that what it drew is left in order."""
    if threading.current_thread() is not threading.main_thread():
        # Only there are signals heard.
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(*_: object) -> NoReturn:
    raise SystemExit(_TERMINATED)
