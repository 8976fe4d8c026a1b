"""Group commit: callers of a connection share transactions, with one thread switch, one commit and one fsync."""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import aiosqlite
from anyio import CancelScope

from jobs.store.queries import SQL

T = TypeVar("T")

logger = logging.getLogger(__name__)

BUSY_SECONDS = 10.0
"""How long a connection waits for another process that holds the database's lock, such as a backup."""


class Transactions:
    """Runs callables on a connection's own thread, all that wait in one transaction.

    A caller that returns has been committed. A caller that is cancelled has done all of its work or none: what had
    not begun is withdrawn, what had begun is committed with its group. A callable may run twice, where another of its
    group fails after it has changed something; the changes of its first run are undone then.

    Args:
        connection: Opened with `GroupConnection` as its factory.
        line: What that connection takes its work from.
    """

    def __init__(self, connection: aiosqlite.Connection, line: "_Line") -> None:
        self._connection = connection
        self._line = line

    @property
    def changes(self) -> int:
        """Rows that this connection has changed since it was opened."""
        return self._connection.total_changes

    @property
    def turn(self) -> int:
        """Number of the group that the thread has taken last."""
        return self._line.turn

    def post(self, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Queue `work` for the next transaction and return the future of its result, set once that is committed.

        The future takes the errors that `run` raises. Cancelled before its turn, it withdraws the work.
        """
        call = _Call(work, self._line.loop.create_future())
        if self._line.join(call):
            self._tell_thread()
        return call.future

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the next transaction and return its result once that is committed.

        Raises:
            sqlite3.Error: The transaction failed; nothing of `work` was kept.
            Exception: What `work` raised; its own changes were undone, those of others were not.
        """
        return await self.post(work)

    async def fetch(self, statement: str) -> None:
        """Run one statement that cannot be in a transaction, between two of them."""
        await self._connection.execute_fetchall(statement)

    def _tell_thread(self) -> None:
        # The first step of `commit` puts ours into the thread's queue and yields what the thread sets when it is done:
        # one message to the loop for the whole group. A caller that waited for `commit` itself would go on after those
        # who came later: the first task of a batch started last.
        commit = self._connection.commit()
        done: asyncio.Future[None] = commit.send(None)
        commit.close()
        done.add_done_callback(self._line.wake)


@asynccontextmanager
async def open_writer(path: Path) -> AsyncIterator[Transactions]:
    """Open the connection that writes; at the end its thread finishes what waits and stops."""
    async with _opened(path, "BEGIN IMMEDIATE", SQL["open_writer"]) as transactions:
        yield transactions


@asynccontextmanager
async def open_reader(path: Path) -> AsyncIterator[Transactions]:
    """Open a connection that cannot write and never waits behind an fsync; what has been committed it sees."""
    async with _opened(path, "BEGIN", SQL["open_reader"]) as transactions:
        yield transactions


@asynccontextmanager
async def _opened(path: Path, begin: str, setup: str) -> AsyncIterator[Transactions]:
    line = _Line(asyncio.get_running_loop())
    # A factory keeps us to aiosqlite's public calls: it has none that hands a callable to its thread.
    factory = partial(GroupConnection, line, begin)
    connection = await aiosqlite.connect(path, timeout=BUSY_SECONDS, isolation_level=None, factory=factory)
    try:
        await connection.executescript(setup)
        yield Transactions(connection, line)
    finally:
        # A cancelled owner waits too: a thread that outlives its store would hold the file.
        with CancelScope(shield=True):
            await connection.close()


class _Line:
    """The calls that wait, between the loop that appends them and the thread that takes them.

    Args:
        loop: Where the callers wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.turn = 0
        self._calls: deque[_Call[Any]] = deque()
        self._over: deque[Sequence[_Call[Any]]] = deque()
        self._announced = False

    def join(self, call: "_Call[Any]") -> bool:
        """Append a call and return whether the thread must be told, once for each group."""
        # Appended before the flag is read, as `take` clears the flag before it reads the queue: no call is missed.
        self._calls.append(call)
        if self._announced:
            return False
        self._announced = True
        return True

    def take(self) -> "Sequence[_Call[Any]]":
        """Return the queued calls whose callers still wait."""
        self._announced = False
        self.turn += 1
        waiting = [self._calls.popleft() for _ in range(len(self._calls))]
        return [call for call in waiting if not call.future.cancelled()]

    def note_over(self, group: "Sequence[_Call[Any]]") -> None:
        """Note, on the thread, that a group is over; `wake` tells the loop."""
        self._over.append(group)

    def wake(self, done: "asyncio.Future[None]") -> None:
        """Let the callers of the groups that are over go on."""
        if (error := done.exception()) is not None:
            logger.error("a transaction ended in an error of its own", exc_info=error)
        while self._over:
            for call in self._over.popleft():
                call.tell()


class _Call(Generic[T]):
    """A queued callable, then its result; as a context manager it keeps the error for its caller.

    Args:
        work: The callable.
        future: What its caller waits for.
    """

    __slots__ = ("_error", "_value", "_work", "future")

    def __init__(self, work: Callable[[sqlite3.Connection], T], future: "asyncio.Future[T]") -> None:
        self._work = work
        self._error: BaseException | None = None
        self.future = future

    def __enter__(self) -> None:
        self._error = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._error = error
        return True

    def run(self, connection: sqlite3.Connection) -> BaseException | None:
        """Run the callable and return what it raised."""
        with self:
            self._value = self._work(connection)
        return self._error

    def fail(self, error: sqlite3.Error) -> None:
        """Note that the transaction of the group is lost; the call's own error stays."""
        if self._error is None:
            # One exception for each caller: each raises it, with another traceback.
            self._error = type(error)(*error.args)
            vars(self._error).update(vars(error))

    def tell(self) -> None:
        """Give the result to the caller, where it still waits."""
        if self.future.done():
            return
        if self._error is None:
            self.future.set_result(self._value)
        else:
            self.future.set_exception(self._error)


class GroupConnection(sqlite3.Connection):
    """A connection whose `commit` runs all queued calls and commits them together.

    Args:
        line: The queue that it takes its work from.
        begin: The statement that begins a transaction.
        args: What `sqlite3.Connection` takes.
        kwargs: The same, by name.
    """

    def __init__(self, line: _Line, begin: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._line = line
        self.begin = begin

    def commit(self) -> None:
        """Run all queued calls in one transaction; each call keeps its result."""
        group = self._line.take()
        if not group:
            return
        try:
            if not self._run_together(group):
                self._run_apart(group)
        except sqlite3.Error as error:
            self._abandon(group, error)
        finally:
            self._line.note_over(group)

    def _run_together(self, group: "Sequence[_Call[Any]]") -> bool:
        """Run a group without savepoints, which cost a tenth of it; False where one has to be undone by itself."""
        self.execute(self.begin)
        for call in group:
            before = self.total_changes
            if self._run(call) is not None and self.total_changes != before:
                self.execute("ROLLBACK")
                # Alone in its group it has been undone with it.
                return len(group) == 1
        self.execute("COMMIT")
        return True

    def _run_apart(self, group: "Sequence[_Call[Any]]") -> None:
        self.execute(self.begin)
        for call in group:
            self.execute("SAVEPOINT one")
            if self._run(call) is not None:
                self.execute("ROLLBACK TO one")
            self.execute("RELEASE one")
        self.execute("COMMIT")

    def _run(self, call: _Call[Any]) -> BaseException | None:
        error = call.run(self)
        if not self.in_transaction:
            # On a full disk SQLite undoes the whole transaction, not only the statement that failed.
            own = error if isinstance(error, sqlite3.Error) else None
            raise own or sqlite3.OperationalError(str(error or "the transaction was ended from within"))
        return error

    def _abandon(self, group: "Sequence[_Call[Any]]", error: sqlite3.Error) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")
        for call in group:
            call.fail(error)
