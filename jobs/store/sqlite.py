"""SqliteStore: the store in one SQLite file, which writes in groups on one connection and reads on another."""

import json
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial, wraps
from operator import itemgetter
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from anyio import CancelScope, to_thread

from jobs.costs import CostStore, DepthCost, ModelCost, TreeCost
from jobs.errors import DiskFullError, StoreError
from jobs.model import Attempt, Batch, DaySpending, Job, JobStatus, Outcome, Rollup, Tree
from jobs.notice import NotedPause, Notice, NoticeKind, NoticeStore, UndeliveredNotices, WantedNotices
from jobs.paused import EndedPause, PausedPath
from jobs.ports import LAST_ATTEMPTS, EndedTree, LiveRows, Store
from jobs.store import history, outbox, restoration, writes
from jobs.store.corruption import is_damage, note_damage
from jobs.store.disk_reserve import Reserve, reserve_beside
from jobs.store.migrations import prepare
from jobs.store.queries import SQL
from jobs.store.rows import (
    Row,
    attempt_of,
    batch_of,
    day_spending_of,
    depth_cost_of,
    ended_tree_of,
    job_of,
    model_cost_of,
    paused_path_of,
    rollup_of,
    task_of,
    tree_cost_of,
    tree_of,
)
from jobs.store.writer import LaunchNotes, ProcessNote, Transactions, open_reader, open_writer

P = ParamSpec("P")
T = TypeVar("T")

_LAST_SEQ = 2**63 - 1

_PASSING = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN}
)
"""What SQLite says where the same call may succeed a moment later."""


def _writing(
    operation: str,
    work: Callable[Concatenate[sqlite3.Connection, P], T],
    *,
    needs_space: bool = False,
    in_need: bool = False,
) -> "Callable[Concatenate[SqliteStore, P], Coroutine[Any, Any, T]]":
    """Make a method of the store of a transaction, which takes the writing connection first.

    Args:
        operation: Its name in errors.
        work: The transaction.
        needs_space: It begins something, so it is refused while the reserve is not there.
        in_need: It is written even on a full disk, from the reserve.
    """

    @wraps(work)
    async def write(self: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        def transaction(connection: sqlite3.Connection) -> T:
            if needs_space:
                self._require_space(operation)
            return work(connection, *args, **kwargs)

        while True:
            try:
                return await self._write(operation, transaction)
            except StoreError as error:
                if not in_need or not error.transient or not await self._release_reserve(operation):
                    raise

    return write


def _ending(
    operation: str, work: Callable[Concatenate[sqlite3.Connection, P], T], changed: Callable[[T], Sequence[Job]]
) -> "Callable[Concatenate[SqliteStore, P], Coroutine[Any, Any, T]]":
    """Make a method, as `_writing` does, of a transaction that may end jobs: it writes the notices of that, too.

    Args:
        operation: Its name in errors.
        work: The transaction, with an argument `at`.
        changed: Returns the jobs that it changed.
    """

    def with_notices(
        connection: sqlite3.Connection, wanted: WantedNotices, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[T, bool]:
        result = work(connection, *args, **kwargs)
        kinds = wanted()
        at = cast("float", kwargs["at"])
        return result, bool(kinds) and outbox.note_ends(connection, changed(result), kinds, at=at)

    write = _writing(operation, with_notices, in_need=True)

    @wraps(work)
    async def end(self: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        result, noted = await write(self, self._wanted_notices, *args, **kwargs)
        if noted:
            self._on_noted()
        return result

    return end


def _one(job: Job | None) -> Sequence[Job]:
    return () if job is None else (job,)


def _all(jobs: Sequence[Job]) -> Sequence[Job]:
    return jobs


class SqliteStore(Store, NoticeStore, CostStore):
    """Trees in one file, mode 0600, in a directory that the caller made.

    A cancelled write is done as a whole or not at all, and never delays others. `check` and every write run on the
    writing connection's thread.

    Args:
        path: The file.
        writer: Runs the transactions.
        reader: Runs the queries; it sees every write that has returned.
        reserve: Space for the ends of jobs on a full disk. While it is gone nothing is admitted or claimed.
    """

    def __init__(self, *, path: Path, writer: Transactions, reader: Transactions, reserve: Reserve) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._reserve = reserve
        self._launches = LaunchNotes(writer, partial(self._noted, "record launches"))
        self._spacious_at = 0
        self._closed = False
        self._wanted_notices: WantedNotices = tuple
        self._on_noted: Callable[[], None] = lambda: None

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, reserve: Reserve | None = None) -> AsyncIterator["SqliteStore"]:
        """Open the store at `path`, made or migrated where it must be, until the context ends.

        Args:
            path: The database; its directory exists.
            reserve: Space put aside, or None for the usual amount in a file next to the database.

        Raises:
            StoreError: The file cannot be made, read or written, or is no database.
            SchemaTooNewError: A newer version of this package wrote it.
        """
        space = reserve or reserve_beside(path)
        async with AsyncExitStack() as stack:
            with _store_errors("open its file", sqlite3.Error, OSError):
                await to_thread.run_sync(_prepare, path, space)
                writer = await stack.enter_async_context(open_writer(path))
                reader = await stack.enter_async_context(open_reader(path))
            store = cls(path=path, writer=writer, reader=reader, reserve=space)
            stack.push_async_callback(store._close)
            yield store

    admit = _writing("admit jobs", writes.admit, needs_space=True)
    # A process that is launched on a full disk would only fail.
    claim = _writing("claim a job", writes.claim, needs_space=True)
    fail_queued = _ending("settle a job", writes.fail_queued, _one)
    set_waiting_for = _writing("note a wait", writes.set_waiting_for)
    cancel_under = _ending("cancel jobs", writes.cancel_under, _all)
    requeue = _writing("requeue a job", writes.requeue)
    # On a full disk too: a pause is what a person may want then.
    pause = _writing("pause jobs", writes.pause, in_need=True)
    unpause = _writing("resume jobs", history.unpause, in_need=True)
    set_limits = _writing("set limits", writes.set_limits)
    # On a full disk too: forgetting what is old frees space.
    delete_tree = _writing("delete a tree", writes.delete_tree, in_need=True)
    last_attempts = _writing("look how far jobs are", restoration.last_attempts)
    restore = _writing("bring back a job", restoration.restore)
    _settle = _ending("settle a job", writes.settle, _one)
    _shrink = _writing("give space back", writes.shrink)
    add_notice = _writing("add a notice", outbox.add)
    note_pause = _writing("note a pause", outbox.note_pause)
    fail_notices = _writing("note a failed delivery", outbox.fail)
    remove_notices = _writing("forget notices", outbox.remove, in_need=True)

    async def record_launch(self, job_id: str, attempt: int, *, pid: int, pid_start: float) -> None:
        """Note which process runs the attempt."""
        self._require_open("record a launch")
        self._launches.note((job_id, attempt), ProcessNote(pid=pid, start=pid_start))

    async def settle(self, job_id: str, attempt: int, outcome: Outcome, *, at: float) -> Job:
        """Write how the attempt ended."""
        key = (job_id, attempt)
        process = self._launches.take(key)
        job = None
        try:
            job = await self._settle(job_id, attempt, outcome, at=at, process=process)
        finally:
            if job is not None:
                self._launches.written(key)
            elif process is not None:
                self._launches.note(key, process)
        return job

    def note_ends(self, wanted: WantedNotices, on_noted: Callable[[], None]) -> None:
        """Write the notices that the end of a job is with that end."""
        self._wanted_notices, self._on_noted = wanted, on_noted

    async def notices(self, kind: NoticeKind, *, limit: int) -> Sequence[Notice]:
        """Return notices of a kind that are still tried."""
        return await self._read("notices", (kind.value, limit), outbox.notice_of)

    async def noted_pauses(self) -> Sequence[NotedPause]:
        """Return the pauses that were noted."""
        return await self._read("noted_pauses", (), outbox.noted_pause_of)

    async def undelivered_notices(self) -> Sequence[UndeliveredNotices]:
        """Return how many notices could not be delivered."""
        return await self._read("undelivered_notices", (), outbox.undelivered_of)

    async def job(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        return await self._first("job", (job_id,), job_of)

    async def task(self, job_id: str) -> str | None:
        """Return the whole text of a job's task, or None."""
        return await self._first("task", (job_id,), task_of)

    async def jobs(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Return jobs in the order asked."""
        return await self._read("jobs", (json.dumps(list(job_ids)),), job_of)

    async def jobs_in_batch(self, batch_id: str) -> Sequence[Job]:
        """Return a batch's jobs."""
        return await self._read("jobs_in_batch", (batch_id,), job_of)

    async def jobs_under(self, path: str) -> Sequence[Job]:
        """Return a subtree's jobs."""
        return await self._read("jobs_under", {"path": path}, job_of)

    async def newest_jobs(
        self,
        *,
        limit: int,
        before_seq: int | None = None,
        status: JobStatus | None = None,
        path: str | None = None,
    ) -> Sequence[Job]:
        """Return a page of jobs, newest first."""
        values: dict[str, object] = {
            "limit": limit,
            "before": _LAST_SEQ if before_seq is None else before_seq,
            "path": path,
        }
        if path is not None and "/" in path:
            return await self._read("newest_jobs_under", {**values, "status": status and status.value}, job_of)
        if status is not None:
            values["status"] = status.value
            if path is not None:
                return await self._read("newest_jobs_of_tree_by_status", values, job_of)
            return await self._read("newest_jobs_by_status", values, job_of)
        if path is not None:
            return await self._read("newest_jobs_of_tree", values, job_of)
        return await self._read("newest_jobs", values, job_of)

    async def ids_from(self, beginning: str, *, limit: int, path: str | None = None) -> Sequence[str]:
        """Return the ids with this prefix."""
        return await self._read("ids_from", {"beginning": beginning, "limit": limit, "path": path}, itemgetter(0))

    async def unfinished(self) -> Sequence[Job]:
        """Return the jobs that are queued or running."""
        return await self._read("unfinished", (), job_of)

    async def live_rows(self) -> LiveRows:
        """Return everything of the trees that live."""
        attempts = await self._read("running_attempts", (), attempt_of)
        return LiveRows(
            trees=await self._read("live_trees", (), tree_of),
            jobs=await self._read("jobs_of_live_trees", (), job_of),
            attempts=[self._launches.seen_in(attempt) for attempt in attempts],
        )

    async def paused(self) -> Sequence[PausedPath]:
        """Return the pauses."""
        return await self._read("paused", (), paused_path_of)

    async def ended_pauses(self, root_id: str) -> Sequence[EndedPause]:
        """Return the ended pauses of a tree."""
        return await self._read("ended_pauses", {"path": root_id}, history.ended_pause_of)

    async def has_unfinished(self) -> bool:
        """Tell whether a job is queued or running."""
        return bool(await self._first("has_unfinished", (), lambda row: row[0]))

    async def batch(self, batch_id: str) -> Batch | None:
        """Return a batch, or None."""
        return await self._first("batch", (batch_id,), batch_of)

    async def tree(self, root_id: str) -> Tree | None:
        """Return a tree, or None."""
        return await self._first("tree", (root_id,), tree_of)

    async def rollup_under(self, path: str) -> Rollup:
        """Sum up a subtree."""
        return rollup_of(await self._read("rollup_under", {"path": path}, tuple))

    async def rollup_batch(self, batch_id: str) -> Rollup:
        """Sum up a batch and everything below it."""
        return rollup_of(await self._read("rollup_batch", (batch_id,), tuple))

    async def rollup_all(self) -> Rollup:
        """Sum up every job."""
        return rollup_of(await self._read("rollup_all", (), tuple))

    async def ended_trees(self, *, before: float) -> Sequence[EndedTree]:
        """Return the trees that ended before this time."""
        return await self._read("ended_trees", (before,), ended_tree_of)

    async def shrink(self) -> None:
        """Give free pages back to the disk."""
        left, before = await self._shrink(), math.inf
        # A file that could not be rewritten when it was migrated gives nothing back.
        while 0 < left < before:
            left, before = await self._shrink(), left
        try:
            # The file is cut when the log goes into it. It does not wait: what another process reads stays for now.
            await self._writer.fetch(SQL["checkpoint"])
        except sqlite3.Error as error:
            raise self._noted("give space back", error) from error

    async def attempt(self, job_id: str, number: int) -> Attempt | None:
        """Return one attempt, or None."""
        attempt = await self._first("attempt", (job_id, number), attempt_of)
        return None if attempt is None else self._launches.seen_in(attempt)

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        """Return the last attempts of jobs."""
        values = {"ids": json.dumps(list(job_ids)), "most": LAST_ATTEMPTS}
        return [self._launches.seen_in(one) for one in await self._read("attempts_of", values, attempt_of)]

    async def spending(self, since: str) -> Sequence[DaySpending]:
        """Return what accounts have spent since a day."""
        return await self._read("spending", (since,), day_spending_of)

    async def depth_costs(self, root_id: str | None = None) -> Sequence[DepthCost]:
        """Return what jobs have used by depth."""
        if root_id is None:
            return await self._read("depth_costs", (), depth_cost_of)
        return await self._read("depth_costs_of_tree", (root_id,), depth_cost_of)

    async def model_costs(self, root_id: str | None = None) -> Sequence[ModelCost]:
        """Return what attempts have used by model."""
        if root_id is None:
            return await self._read("model_costs", (), model_cost_of)
        return await self._read("model_costs_of_tree", (root_id,), model_cost_of)

    async def tree_costs(self, *, limit: int, also: Sequence[str] = ()) -> Sequence[TreeCost]:
        """Return what trees have cost."""
        return await self._read("tree_costs", {"limit": limit, "also": json.dumps(list(also))}, tree_cost_of)

    async def caller(self, token_hash: str) -> Job | None:
        """Return the running job that holds this token, or None."""
        return await self._first("caller", (token_hash,), job_of)

    @property
    def changes(self) -> int:
        """A number that grows whenever something is written."""
        return self._writer.changes

    async def _close(self) -> None:
        self._closed = True
        with CancelScope(shield=True):
            await self._launches.close()

    def _require_open(self, operation: str) -> None:
        if self._closed:
            raise StoreError(operation, "it has been closed")

    async def _release_reserve(self, operation: str) -> bool:
        # On the thread, where the reserve is looked at too.
        return await self._write(operation, lambda _connection: self._reserve.release())

    def _require_space(self, operation: str) -> None:
        # On the thread, and once for all that share a transaction: the question to the file system took longer than the
        # claim of a job.
        if self._spacious_at != self._writer.turn:
            if not self._reserve.ready():
                raise DiskFullError(operation)
            self._spacious_at = self._writer.turn

    async def _write(self, operation: str, work: Callable[[sqlite3.Connection], T]) -> T:
        self._require_open(operation)
        self._launches.post()
        try:
            return await self._writer.post(work)
        except sqlite3.Error as error:
            raise self._noted(operation, error) from error

    async def _read(
        self, name: str, values: Sequence[object] | Mapping[str, object], make: Callable[[Row], T]
    ) -> Sequence[T]:
        operation = f"read ({name})"
        self._require_open(operation)
        try:
            # Rows become values on the connection's thread too: a long list is work.
            return await self._reader.post(
                lambda connection: [make(row) for row in connection.execute(SQL[name], values).fetchall()]
            )
        except UnicodeEncodeError:
            # Half of a surrogate pair, as a hostile caller may send for an id, cannot be in any row.
            return []
        except sqlite3.Error as error:
            raise self._noted(operation, error) from error

    async def _first(
        self, name: str, values: Sequence[object] | Mapping[str, object], make: Callable[[Row], T]
    ) -> T | None:
        rows = await self._read(name, values, make)
        return rows[0] if rows else None

    def _noted(self, operation: str, error: sqlite3.Error) -> StoreError:
        if is_damage(error):
            note_damage(self._path, str(error))
        return StoreError(operation, str(error), transient=_passes(error))


@contextmanager
def _store_errors(operation: str, *kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise StoreError(operation, str(error), transient=_passes(error)) from error


def _passes(error: Exception) -> bool:
    # The lowest byte is the kind, the rest says more about it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING


def _prepare(path: Path, reserve: Reserve) -> None:
    try:
        prepare(path)
    except sqlite3.OperationalError:
        if not reserve.release():
            raise
        prepare(path)
    # Where there is no space for it the store opens all the same: running jobs need it.
    reserve.ready()
