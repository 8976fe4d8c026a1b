"""Transactions of the outbox: notices for a person that are kept in the store until they are delivered."""

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence

from jobs.model import TERMINAL, Job, Reason
from jobs.notice import FailedNotice, NotedPause, Notice, NoticeKind, UndeliveredNotices, budget_used_up, tree_ended
from jobs.store.queries import SQL
from jobs.store.rows import Row, job_of, rollup_of, tree_of, writable

KEPT_SECONDS = 7 * 86_400.0
"""Seconds for which a notice that was given up is kept, for `claude-jobs engine status` to show."""


def note_ends(
    connection: sqlite3.Connection, jobs: Sequence[Job], wanted: Collection[NoticeKind], *, at: float
) -> bool:
    """Add the notices that the ends of these jobs are, in the transaction that ended them; tell whether there are any.

    Args:
        connection: In that transaction, with the ends written.
        jobs: Jobs that were changed; those that still live are left out.
        wanted: Kinds of notices that a person wants.
        at: Seconds since the epoch.
    """
    noted = list(_notices(connection, [job for job in jobs if job.status in TERMINAL], wanted, at))
    for notice in noted:
        add(connection, notice)
    return bool(noted)


def add(connection: sqlite3.Connection, notice: Notice) -> None:
    """Add a notice, unless it waits already."""
    body = writable(json.dumps(dict(notice.body), ensure_ascii=False))
    connection.execute(SQL["insert_notice"], (notice.id, notice.kind.value, body, notice.at, notice.due_at))


def note_pause(connection: sqlite3.Connection, pause: NotedPause, notice: Notice | None, *, over: bool = False) -> None:
    """Note that a pause began or is over, with the notice of it."""
    if over:
        connection.execute(SQL["forget_pause"], (pause.key,))
    else:
        connection.execute(SQL["note_pause"], (pause.key, pause.until, writable(pause.because)))
    if notice is not None:
        add(connection, notice)


def fail(connection: sqlite3.Connection, failed: Sequence[FailedNotice], *, at: float) -> None:
    """Note that notices could not be delivered, and forget those that were given up long ago."""
    connection.executemany(
        SQL["notice_failed"],
        [(one.attempts, one.due_at, writable(one.error), at if one.given_up else None, one.id) for one in failed],
    )
    connection.execute(SQL["delete_given_up"], (at - KEPT_SECONDS,))


def remove(connection: sqlite3.Connection, ids: Sequence[str]) -> None:
    """Forget notices: they are delivered, or nobody wants them."""
    connection.execute(SQL["delete_notices"], (json.dumps(list(ids)),))


def notice_of(row: Row) -> Notice:
    """Return the notice of a row."""
    id_, kind, body, at, attempts, due_at = row
    return Notice(id=id_, kind=NoticeKind(kind), body=json.loads(body), at=at, attempts=attempts, due_at=due_at)


def undelivered_of(row: Row) -> UndeliveredNotices:
    """Return the sums of a row."""
    return UndeliveredNotices(kind=NoticeKind(row[0]), waiting=row[1], given_up=row[2], error=row[3] or "")


def noted_pause_of(row: Row) -> NotedPause:
    """Return the pause of a row."""
    return NotedPause(key=row[0], until=row[1], because=row[2])


def _notices(
    connection: sqlite3.Connection, ended: Sequence[Job], wanted: Collection[NoticeKind], at: float
) -> Iterator[Notice]:
    if NoticeKind.ATTENTION in wanted:
        yield from (budget_used_up(job, at=at) for job in ended if job.reason is Reason.BUDGET_EXHAUSTED)
    if NoticeKind.END in wanted:
        # In order: two trees that end together are told of in the order of their jobs.
        for root_id in dict.fromkeys(job.root_id for job in ended):
            if not connection.execute(SQL["tree_is_live"], (root_id,)).fetchone()[0]:
                yield _tree_ended(connection, root_id, at)


def _tree_ended(connection: sqlite3.Connection, root_id: str, at: float) -> Notice:
    tree = tree_of(connection.execute(SQL["tree"], (root_id,)).fetchone())
    first = job_of(connection.execute(SQL["first_of_tree"], {"root_id": root_id}).fetchone())
    rollup = rollup_of(connection.execute(SQL["rollup_under"], {"path": root_id}).fetchall())
    failed = connection.execute(SQL["first_not_completed"], (root_id,)).fetchone()
    return tree_ended(tree, first, rollup, failed and job_of(failed), at=at)
