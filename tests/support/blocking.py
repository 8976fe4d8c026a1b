"""What our code may not call on the event loop, since everything else in the engine would wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from blockbuster import BlockBuster

WATCHED = (
    "time.sleep",
    "sqlite3.Connection.execute",
    "sqlite3.Cursor.execute",
    "sqlite3.Connection.executescript",
)


@contextmanager
def watch_the_event_loop() -> Iterator[None]:
    """Raise `BlockingError` where a function of the three packages makes one of the calls on the event loop."""
    guard = BlockBuster(scanned_modules=["server", "jobs", "orchestration"])
    watched = [guard.functions[name] for name in WATCHED]
    for function in watched:
        function.activate()
    try:
        yield
    finally:
        for function in watched:
            function.deactivate()
