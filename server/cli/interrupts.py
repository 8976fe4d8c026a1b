"""Ctrl-C while a command waits for jobs: the first one prints that they go on, a second one cancels them."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from server.cli.console import client, err, note

SECONDS: Final = 3.0
"""Seconds to wait for a second Ctrl-C: long enough to read two lines, short enough to get the prompt back soon."""

_LOOK_SECONDS: Final = 0.05
"""Seconds between two checks for it: shorter than a person notices."""

_TERMINATED: Final = 128 + signal.SIGTERM


@contextmanager
def interrupt_hint(identity: str, *, own: bool = True) -> Iterator[None]:
    """On Ctrl-C, print that the command's jobs go on, and how to follow or cancel them.

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
def interrupt_hint_without_id() -> Iterator[None]:
    """On Ctrl-C before the command knows an id, print where to find it."""
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
        # A new connection: the first was interrupted in the middle of a reply.
        with client() as engine:
            note(f"{engine.call_json('claude_kill_job', {'jobId': identity})['message']}.")


@contextmanager
def _heard() -> Iterator[Sequence[int]]:
    """Let the first Ctrl-C interrupt the command, and yield a list of the later ones.

    None of those is lost or interrupts the handling of the first. SIGTERM ends the command as an exit does, so that the
    drawing is left in order.
    """
    more: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        # Python handles signals only in the main thread.
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
