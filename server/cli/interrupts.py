"""Ctrl-C while a command waits for jobs: the first says that they go on, a second one cancels them."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from server.cli.console import client, err, note

SECONDS: Final = 3.0
"""How long a second Ctrl-C is waited for: long enough to read two lines, short enough for who wants the prompt back."""

_LOOK_SECONDS: Final = 0.05
"""How often we look whether it came: faster than a person notices."""

_TERMINATED: Final = 128 + signal.SIGTERM


@contextmanager
def while_it_goes_on(identity: str, *, own: bool = True) -> Iterator[None]:
    """Where a person interrupts the command, say that its jobs go on, and how to follow or cancel them.

    Args:
        identity: The job or batch.
        own: This command started it, so a second Ctrl-C cancels it.
    """
    with _heard() as more:
        try:
            yield
        except KeyboardInterrupt:
            _tell_and_wait_for_a_second(identity, more, seconds=SECONDS if own else 0.0)
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
    note(f"{identity} goes on.\n  follow: claude-jobs tree -f {identity}\n  cancel: claude-jobs kill {identity}")


def _tell_and_wait_for_a_second(identity: str, more: Sequence[int], seconds: float) -> None:
    # The terminal has shown ^C in the line before.
    err.print()
    _say_that_it_goes_on(identity)
    if not seconds:
        return
    note(f"Press Ctrl-C again within {seconds:g} seconds to cancel it now.")
    end = time.monotonic() + seconds
    while not more and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
    if more:
        err.print()
        # A connection of its own: the first was cut off in the middle of a reply.
        with client() as engine:
            note(f"{engine.call_json('claude_kill_job', {'jobId': identity})['message']}.")


@contextmanager
def _heard() -> Iterator[Sequence[int]]:
    """Have the first Ctrl-C interrupt the command, and yield where each later one is noted.

    None of those is lost, or cuts off what the first one has to tell. SIGTERM ends the command as an exit does, so that
    what it drew is left in order.
    """
    more: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        # Only there are signals heard.
        yield more
        return

    def interrupt(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, lambda number, _: more.append(number))
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _exit)}
    # A shell has its background commands ignore it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield more
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(*_: object) -> NoReturn:
    raise SystemExit(_TERMINATED)
