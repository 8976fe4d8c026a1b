"""Group commit: callers of a connection share transactions, with one thread switch, one commit and one fsync."""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import aiosqlite
from anyio import CancelScope

from jobs.model import Attempt
from jobs.store.queries import SQL

T = TypeVar("T")

logger = logging.getLogger(__name__)

NOTE_SECONDS = 1.0
"""Seconds for which a note waits for a transaction that it can share."""

BUSY_SECONDS = 10.0
"""How long a connection waits for another process that holds the database's lock, such as a backup."""


class Transactions:
    """Runs callables on a connection's own thread, all that wait in one transaction.

    A caller that returns has been committed. A caller that is cancelled has done all of its work or none: what had
    not begun is withdrawn, what had begun is committed with its group. A callable may run twice, where another of its
    group fails after it has changed something; the changes of its first run are undone then.

    Args:
        path: The database.
        begin: The statement that begins a transaction.

    Attributes:
        turn: Number of the group that the thread has taken last.
    """

    def __init__(self, path: Path, begin: str) -> None:
        self.turn = 0
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call[Any]] = deque()
        self._over: deque[Sequence[_Call[Any]]] = deque()
        self._announced = False
        # A factory keeps us to aiosqlite's public calls: it has none that hands a callable to its thread.
        factory = partial(GroupConnection, self._take, self._over.append, begin)
        self._connection = aiosqlite.connect(path, timeout=BUSY_SECONDS, isolation_level=None, factory=factory)

    @asynccontextmanager
    async def opened(self, setup: str) -> AsyncIterator["Transactions"]:
        """Open the connection and run some statements; at the end its thread finishes what waits and stops."""
        await self._connection
        try:
            await self._connection.executescript(setup)
            yield self
        finally:
            # A cancelled owner waits too: a thread that outlives its store would hold the file.
            with CancelScope(shield=True):
                await self._connection.close()

    @property
    def changes(self) -> int:
        """Rows that this connection has changed since it was opened."""
        return self._connection.total_changes

    def post(self, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Queue `work` for the next transaction and return the future of its result, set once that is committed.

        Cancelled before its turn, the future withdraws the work. It takes the error of `work`, whose own changes are
        undone then and not those of others; or a `sqlite3.Error` where the transaction failed and nothing was kept.
        """
        call = _Call(work, self._loop.create_future())
        # Appended before the flag is read, as `_take` clears the flag before it reads the queue: no call is missed.
        self._calls.append(call)
        if not self._announced:
            self._announced = True
            self._tell_thread()
        return call.future

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
        done.add_done_callback(self._wake)

    def _take(self) -> "Sequence[_Call[Any]]":
        """Return, on the thread, the queued calls whose callers still wait."""
        self._announced = False
        self.turn += 1
        waiting = [self._calls.popleft() for _ in range(len(self._calls))]
        return [call for call in waiting if not call.future.cancelled()]

    def _wake(self, done: "asyncio.Future[None]") -> None:
        """Let the callers of the groups that are over go on."""
        if (error := done.exception()) is not None:
            logger.error("a transaction failed unexpectedly", exc_info=error)
        while self._over:
            for call in self._over.popleft():
                call.tell()


def open_writer(path: Path) -> AbstractAsyncContextManager[Transactions]:
    """Open the connection that writes."""
    return Transactions(path, "BEGIN IMMEDIATE").opened(SQL["open_writer"])


def open_reader(path: Path) -> AbstractAsyncContextManager[Transactions]:
    """Open a connection that cannot write and never waits behind an fsync; what has been committed it sees."""
    return Transactions(path, "BEGIN").opened(SQL["open_reader"])


@dataclass(slots=True, eq=False)
class _Call(Generic[T]):
    """A queued callable, then its result or error.

    Args:
        work: The callable.
        future: What its caller waits for.
    """

    work: Callable[[sqlite3.Connection], T]
    future: "asyncio.Future[T]"
    value: T | None = None
    error: BaseException | None = None

    def fail(self, error: sqlite3.Error) -> None:
        """Note that the transaction of the group is lost; the call's own error stays."""
        if self.error is None:
            # One exception for each caller: each raises it, with another traceback.
            self.error = type(error)(*error.args)
            vars(self.error).update(vars(error))

    def tell(self) -> None:
        """Give the result to the caller, where it still waits."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(cast("T", self.value))
        else:
            self.future.set_exception(self.error)


class GroupConnection(sqlite3.Connection):
    """A connection whose `commit` runs all queued calls and commits them together.

    Args:
        take: Returns the calls of the next group.
        note_over: Told of a group that is over, before `commit` returns.
        begin: The statement that begins a transaction.
        args: What `sqlite3.Connection` takes.
        kwargs: The same, by name.
    """

    def __init__(
        self,
        take: "Callable[[], Sequence[_Call[Any]]]",
        note_over: "Callable[[Sequence[_Call[Any]]], None]",
        begin: str,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._take = take
        self._note_over = note_over
        self.begin = begin

    def commit(self) -> None:
        """Run all queued calls in one transaction; each call keeps its result."""
        group = self._take()
        if not group:
            return
        try:
            if not self._run_together(group):
                self._run_apart(group)
        except sqlite3.Error as error:
            self._abandon(group, error)
        finally:
            self._note_over(group)

    def _run_together(self, group: Sequence[_Call[Any]]) -> bool:
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

    def _run_apart(self, group: Sequence[_Call[Any]]) -> None:
        self.execute(self.begin)
        for call in group:
            self.execute("SAVEPOINT one")
            if self._run(call) is not None:
                self.execute("ROLLBACK TO one")
            self.execute("RELEASE one")
        self.execute("COMMIT")

    def _run(self, call: _Call[Any]) -> BaseException | None:
        call.error = None
        try:
            call.value = call.work(self)
        except BaseException as error:  # noqa: BLE001 - its caller raises it
            call.error = error
        if not self.in_transaction:
            # On a full disk SQLite undoes the whole transaction, not only the statement that failed.
            own = call.error if isinstance(call.error, sqlite3.Error) else None
            raise own or sqlite3.OperationalError(str(call.error or "the transaction was ended from within"))
        return call.error

    def _abandon(self, group: Sequence[_Call[Any]], error: sqlite3.Error) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")
        for call in group:
            call.fail(error)


Key = tuple[str, int]
"""Id of the job and number of the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessNote:
    """The process of an attempt.

    Args:
        pid: Process id of the shim.
        start: When that process started, in the unit of the platform.
    """

    pid: int
    start: float


class LaunchNotes:
    """Notes that share the transactions of other writes.

    Args:
        writer: Whose transactions they share.
        on_error: Told of an error of the storage; the note is then tried again.
    """

    def __init__(self, writer: Transactions, on_error: Callable[[sqlite3.Error], object]) -> None:
        self._writer = writer
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Notes that are not known to be on the disk, and those of them that are in no transaction yet.
        self._known: dict[Key, ProcessNote] = {}
        self._waiting: dict[Key, ProcessNote] = {}

    def note(self, key: Key, process: ProcessNote) -> None:
        """Keep a note until it is written; return at once."""
        self._known[key] = self._waiting[key] = process
        if self._timer is None:
            self._timer = self._loop.call_later(NOTE_SECONDS, self.post)

    def take(self, key: Key) -> ProcessNote | None:
        """Return a note that waits, for its taker to write it; None where none waits."""
        return self._waiting.pop(key, None)

    def written(self, key: Key) -> None:
        """Forget a note that its taker has written."""
        self._known.pop(key, None)

    def seen_in(self, attempt: Attempt) -> Attempt:
        """Return an attempt of the database with what is noted of it."""
        process = self._known.get((attempt.job_id, attempt.number))
        return attempt if process is None else replace(attempt, pid=process.pid, pid_start=process.start)

    def post(self) -> "asyncio.Future[None] | None":
        """Queue what waits for the next transaction; return a future that ends with it, or None where nothing waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return None
        riding, self._waiting = self._waiting, {}
        future = self._writer.post(partial(_write_notes, notes=riding))
        future.add_done_callback(partial(self._over, riding))
        return future

    async def close(self) -> None:
        """Write what waits and keep no timer."""
        if (last := self.post()) is not None:
            # `_over` logs what goes wrong.
            with suppress(sqlite3.Error):
                await last
        if self._timer is not None:
            self._timer.cancel()

    def _over(self, riding: Mapping[Key, ProcessNote], future: "asyncio.Future[None]") -> None:
        error = future.exception()
        if error is None:
            for key, process in riding.items():
                if self._known.get(key) is process:
                    del self._known[key]
            return
        logger.warning("the processes of %d attempts could not be recorded now: %s", len(riding), error)
        if isinstance(error, sqlite3.Error):
            self._on_error(error)
        # A note that was replaced meanwhile is newer, and one that was written with an end is not known any more.
        for key, process in riding.items():
            if self._known.get(key) is process:
                self.note(key, process)


def _write_notes(connection: sqlite3.Connection, notes: Mapping[Key, ProcessNote]) -> None:
    rows = [(process.pid, process.start, *key) for key, process in notes.items()]
    connection.executemany(SQL["record_launch"], rows)
