"""What callers that share a transaction see of each other: nothing but its speed."""

import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import aiosqlite
import anyio
import pytest
from anyio import to_thread

from jobs.store.writer import Transactions, open_reader, open_writer

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "group.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE n (n INTEGER PRIMARY KEY, blob BLOB) STRICT")
    return tmp_path / "group.db"


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Transactions]:
    async with open_writer(path) as opened:
        yield opened


class Gate:
    """Holds the connection's thread inside a transaction until a test has said what else waits."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()

    def hold(self, connection: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._open.wait(5)

    async def entered(self) -> None:
        assert await to_thread.run_sync(self._entered.wait, 5)

    def release(self) -> None:
        self._open.set()


async def run(transactions: Transactions, work: Callable[[sqlite3.Connection], object]) -> None:
    await transactions.post(work)


def insert(number: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO n (n) VALUES (?)", (number,))
        return number

    return work


def stored(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM n ORDER BY n")]


async def test_all_that_wait_share_one_commit_and_one_call_of_the_thread(
    path: Path, writer: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, statements, returned, handed_over = Gate(), list[str](), list[int](), list[aiosqlite.Connection]()
    await writer.post(lambda connection: connection.set_trace_callback(statements.append))
    statements.clear()  # the commit of the call that set the callback
    hand_over = aiosqlite.Connection.commit

    async def count(connection: aiosqlite.Connection) -> None:
        handed_over.append(connection)
        await hand_over(connection)

    monkeypatch.setattr(aiosqlite.Connection, "commit", count)

    async def write(number: int) -> None:
        returned.append(await writer.post(insert(number)))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, writer, gate.hold)
            await gate.entered()
            for number in range(50):
                tasks.start_soon(write, number)
            await anyio.wait_all_tasks_blocked()
            gate.release()

    assert statements.count("COMMIT") == len(handed_over) == 2
    assert sorted(returned) == stored(path) == list(range(50))


async def test_callers_go_on_in_the_order_in_which_they_came(writer: Transactions) -> None:
    order: list[int] = []

    async def call(number: int) -> None:
        await writer.post(insert(number))
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(call, number)

    assert order == list(range(20))


async def test_a_failing_caller_undoes_its_own_changes_only(path: Path, writer: Transactions) -> None:
    gate, failures = Gate(), list[Exception]()

    def insert_and_raise(connection: sqlite3.Connection) -> None:
        insert(100)(connection)
        raise KeyError("mine")

    def insert_twice(connection: sqlite3.Connection) -> None:
        insert(101)(connection)
        insert(101)(connection)

    async def fail(work: Callable[[sqlite3.Connection], None]) -> None:
        with pytest.raises((KeyError, sqlite3.IntegrityError)) as raised:
            await writer.post(work)
        failures.append(raised.value)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, writer, gate.hold)
            await gate.entered()
            tasks.start_soon(run, writer, insert(1))
            tasks.start_soon(fail, insert_and_raise)
            tasks.start_soon(run, writer, insert(2))
            tasks.start_soon(fail, insert_twice)
            tasks.start_soon(run, writer, insert(3))
            await anyio.wait_all_tasks_blocked()
            gate.release()

    assert sorted(type(error).__name__ for error in failures) == ["IntegrityError", "KeyError"]
    assert stored(path) == [1, 2, 3]


async def test_a_lost_transaction_is_told_to_everyone_in_it_and_to_nobody_after(
    path: Path, writer: Transactions
) -> None:
    gate, told = Gate(), list[int]()

    async def lose(number: int, work: Callable[[sqlite3.Connection], object]) -> None:
        with pytest.raises(sqlite3.OperationalError):
            await writer.post(work)
        told.append(number)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, writer, gate.hold)
            await gate.entered()
            tasks.start_soon(lose, 1, insert(1))
            tasks.start_soon(lose, 2, lambda connection: connection.execute("ROLLBACK"))
            tasks.start_soon(lose, 3, insert(3))
            await anyio.wait_all_tasks_blocked()
            gate.release()
        await writer.post(insert(4))

    assert sorted(told) == [1, 2, 3]
    assert stored(path) == [4]


async def test_a_commit_that_fails_is_told_to_its_callers_and_blocks_no_other(path: Path, writer: Transactions) -> None:
    def break_the_commit(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE child (n INTEGER REFERENCES n (n) DEFERRABLE INITIALLY DEFERRED) STRICT")
        connection.execute("INSERT INTO child VALUES (7)")

    with pytest.raises(sqlite3.IntegrityError):
        await writer.post(break_the_commit)
    await writer.post(insert(1))

    assert stored(path) == [1]


async def test_a_full_disk_is_an_error_and_no_end(path: Path, writer: Transactions) -> None:
    await writer.post(insert(1))
    most = await writer.post(lambda connection: connection.execute("PRAGMA max_page_count").fetchone()[0])
    await writer.post(lambda connection: connection.execute("PRAGMA max_page_count = 3").fetchone())

    with pytest.raises(sqlite3.OperationalError, match="full"):
        await writer.post(lambda connection: connection.execute("INSERT INTO n VALUES (2, zeroblob(100000))"))

    await writer.post(lambda connection: connection.execute(f"PRAGMA max_page_count = {most}").fetchone())
    await writer.post(insert(3))
    assert stored(path) == [1, 3]


async def test_a_cancelled_call_that_has_not_begun_is_withdrawn(path: Path, writer: Transactions) -> None:
    gate = Gate()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, writer, gate.hold)
            await gate.entered()
            with anyio.CancelScope() as scope:
                tasks.start_soon(run, writer, insert(2))
                scope.cancel()
                await writer.post(insert(1))
            await anyio.wait_all_tasks_blocked()
            gate.release()

    assert scope.cancelled_caught
    assert stored(path) == [2]


async def test_a_call_that_is_cancelled_in_its_turn_is_done_whole_and_holds_up_nobody(
    path: Path, writer: Transactions
) -> None:
    gate = Gate()

    def hold_between_two(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        gate.hold(connection)
        insert(2)(connection)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as cancelled:
                cancelled.start_soon(run, writer, hold_between_two)
                await gate.entered()
                tasks.start_soon(run, writer, insert(3))
                await anyio.wait_all_tasks_blocked()
                cancelled.cancel_scope.cancel()
            gate.release()
        await writer.post(insert(4))

    assert stored(path) == [1, 2, 3, 4]


async def test_the_cancel_of_the_caller_that_told_the_thread_leaves_the_others_their_commit(
    path: Path, writer: Transactions
) -> None:
    gate = Gate()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, writer, gate.hold)
            await gate.entered()
            async with anyio.create_task_group() as first:
                first.start_soon(run, writer, insert(1))
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(run, writer, insert(2))
                await anyio.wait_all_tasks_blocked()
                first.cancel_scope.cancel()
            gate.release()

    assert stored(path) == [2]


async def test_three_hundred_callers_cancelled_at_random_leave_no_half_write_and_no_lock(
    path: Path, writer: Transactions
) -> None:
    chance, returned = random.Random(20), list[int]()

    def insert_pair(number: int) -> Callable[[sqlite3.Connection], int]:
        return lambda connection: insert(2 * number)(connection) + insert(2 * number + 1)(connection)

    async def write(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            for _ in range(chance.randrange(5)):
                await anyio.lowlevel.checkpoint()
            await writer.post(insert_pair(number))
            returned.append(number)

    async def cancel(scope: anyio.CancelScope) -> None:
        for _ in range(chance.randrange(40)):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                scope = anyio.CancelScope()
                tasks.start_soon(write, number, scope)
                if chance.random() < 0.7:
                    tasks.start_soon(cancel, scope)
        await writer.post(insert(10_000))

    numbers = stored(path)
    pairs = {number // 2 for number in numbers if number < 10_000}
    assert len(numbers) == 2 * len(pairs) + 1  # both halves of a pair, or neither
    assert pairs.issuperset(returned)
    assert 0 < len(returned) < 300
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")


async def test_a_reader_neither_waits_for_a_writer_nor_misses_what_was_committed(
    path: Path, writer: Transactions
) -> None:
    gate = Gate()

    def count(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM n").fetchone()[0])

    with anyio.fail_after(60):
        async with open_reader(path) as reader, anyio.create_task_group() as tasks:
            seen = []
            for number in range(20):
                await writer.post(insert(number))
                seen.append(await reader.post(count))
            tasks.start_soon(run, writer, gate.hold)
            await gate.entered()
            seen.append(await reader.post(count))
            gate.release()

    assert seen == [*range(1, 21), 20]


async def test_a_reader_cannot_write(path: Path) -> None:
    async with open_reader(path) as reader:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await reader.post(insert(1))


async def test_what_has_begun_is_finished_when_the_owner_is_cancelled(path: Path) -> None:
    gate = Gate()

    def hold_and_insert(connection: sqlite3.Connection) -> None:
        gate.hold(connection)
        insert(1)(connection)

    async def own() -> None:
        async with open_writer(path) as writer:
            await writer.post(hold_and_insert)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(own)
            await gate.entered()
            tasks.cancel_scope.cancel()
            gate.release()

    assert stored(path) == [1]
