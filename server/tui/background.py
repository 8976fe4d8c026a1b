"""Work that may wait, in threads that never hold up the end of the program."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from textual.app import App
from textual.message import Message

T = TypeVar("T")


class Handover(Message):
    """Something that was waited for is there.

    Args:
        then: What to do with it on the event loop.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then = then


def hand_over(app: App[Any], then: Callable[[], None]) -> None:
    """Have a function called on the event loop of the program, from any thread; never where that has ended."""
    with suppress(RuntimeError):
        app.post_message(Handover(then))


def in_background(app: App[Any], work: Callable[[], T], then: Callable[[T], None]) -> None:
    """Do something in a thread, and then something with what it returns on the event loop.

    Args:
        app: The program.
        work: What may wait; it reports its own errors.
        then: Called with what `work` returns.
    """

    def run() -> None:
        found = work()
        hand_over(app, lambda: then(found))

    threading.Thread(target=run, name="work of the view", daemon=True).start()
