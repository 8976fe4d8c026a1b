"""Waits: when they end, what they report, and that they report it once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import anyio
import pytest

from jobs import waiting as waiting_module
from jobs.errors import BadInputError
from jobs.event_bus import JobEventBus
from jobs.model import Job, JobStatus
from jobs.permissions.visibility import JobSelection, Visibility
from jobs.ports import Store
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from jobs.waiting import Progress, Waiting, WaitMode, WaitReport
from tests.contract.support import admit, admit_root, ending, start
from tests.support.reachable import names_in
from tests.unit.jobs.support import known, settle

pytestmark = pytest.mark.anyio

Read = Callable[[], Awaitable[JobSelection]]
ALL = ("ja", "jb", "jc")


class Tree:
    """A store, and jobs in it that end and are announced as a test says.

    Args:
        live: Its trees are in memory, and a wait on all of the batch is one on a live batch.
    """

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.store: Store = LiveStore(MemoryStore()) if live else MemoryStore()
        self.event_bus = JobEventBus()
        self.waiting = Waiting(self.event_bus)
        self.visibility = Visibility(self.store, None)

    def named(self, *ids: str) -> Read:
        if self.live and ids == ALL:
            return lambda: self.visibility.batch_selection("b1")

        async def read() -> JobSelection:
            return JobSelection(jobs=await self.visibility.jobs(ids))

        return read

    def under(self, root: str) -> Read:
        return lambda: self.visibility.subtree_selection(root)

    async def end(self, job_id: str, status: JobStatus = JobStatus.COMPLETED, *, tell: bool = True) -> None:
        if (await known(self.store, job_id)).status is JobStatus.QUEUED:
            await start(self.store, job_id)
        attempt = (await known(self.store, job_id)).attempt
        settled = await self.store.settle(job_id, attempt, ending(status), at=3.0)
        if tell:
            self.event_bus.publish(settled)

    async def wait(self, read: Read, mode: WaitMode = WaitMode.ALL, cursor: str | None = None) -> WaitReport:
        """Wait until the mode is met; a wait that is never met fails the test."""
        with anyio.fail_after(60):
            return await self.waiting.wait(read, mode=mode, seconds=60, cursor=cursor)

    async def look(self, read: Read, mode: WaitMode = WaitMode.ALL, cursor: str | None = None) -> WaitReport:
        return await self.waiting.wait(read, mode=mode, seconds=0, cursor=cursor)


@pytest.fixture(params=[False, True], ids=["rows", "live"])
async def tree(request: pytest.FixtureRequest) -> AsyncIterator[Tree]:
    built = Tree(live=request.param)
    await admit(built.store, "b1", *ALL)
    yield built
    assert "b1" not in names_in(built.event_bus), "a wait left a subscription behind"


def ids(report: WaitReport) -> list[str]:
    return [job.id for job in report.done]


async def reports_of(
    tree: Tree, read: Read, mode: WaitMode, *steps: Callable[[], Awaitable[None]], cursor: str | None = None
) -> list[WaitReport]:
    """Begin a wait, take steps until it is over, and return its report; the last step must be the one that ends it."""
    reports: list[WaitReport] = []

    async def wait() -> None:
        reports.append(await tree.wait(read, mode, cursor))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            for step in steps:
                await settle()
                assert not reports, "the wait was over too early"
                await step()
    return reports


async def test_a_wait_for_all_ends_with_the_last_job_and_reports_in_the_order_asked(tree: Tree):
    steps = [lambda name=name: tree.end(name) for name in ("ja", "jc", "jb")]
    (report,) = await reports_of(tree, tree.named("jc", "jb", "ja"), WaitMode.ALL, *steps)
    assert (ids(report), report.pending, report.total) == (["jc", "jb", "ja"], 0, 3)


async def test_a_wait_for_any_ends_with_the_first_job_whatever_became_of_it(tree: Tree):
    steps = [lambda: tree.end("jb", JobStatus.FAILED)]
    (report,) = await reports_of(tree, tree.named("ja", "jb", "jc"), WaitMode.ANY, *steps)
    assert (ids(report), report.pending) == (["jb"], 2)


async def test_a_wait_for_the_first_success_passes_over_failures_and_reports_them_too(tree: Tree):
    steps = [lambda: tree.end("ja", JobStatus.FAILED), lambda: tree.end("jb")]
    (report,) = await reports_of(tree, tree.named("ja", "jb", "jc"), WaitMode.FIRST_SUCCESS, *steps)
    assert (ids(report), report.pending) == (["ja", "jb"], 1)


async def test_a_wait_for_the_first_success_ends_when_there_can_be_none(tree: Tree):
    steps = [lambda name=name: tree.end(name, JobStatus.FAILED) for name in ("ja", "jb", "jc")]
    (report,) = await reports_of(tree, tree.named("ja", "jb", "jc"), WaitMode.FIRST_SUCCESS, *steps)
    assert (len(report.done), report.pending) == (3, 0)


@pytest.mark.parametrize("mode", WaitMode)
async def test_a_wait_for_jobs_that_are_over_and_reported_ends_at_once_with_nothing(tree: Tree, mode: WaitMode):
    for name in ("ja", "jb", "jc"):
        await tree.end(name)
    read = tree.named("ja", "jb", "jc")
    first = await tree.wait(read, mode)
    again = await tree.wait(read, mode, first.cursor)
    assert (len(first.done), ids(again), again.cursor) == (3, [], first.cursor)


@pytest.mark.parametrize("mode", WaitMode)
async def test_a_wait_for_nothing_is_over_at_once(tree: Tree, mode: WaitMode):
    report = await tree.wait(tree.named(), mode)
    assert (report.done, report.pending, report.total) == ((), 0, 0)


async def test_a_wait_of_no_time_reports_what_there_is(tree: Tree):
    await tree.end("jb")
    report = await tree.look(tree.named("ja", "jb"))
    assert (ids(report), report.pending, report.total) == (["jb"], 1, 2)


async def test_a_wait_whose_time_is_over_says_who_ended_meanwhile(tree: Tree):
    read = tree.named("ja", "jb")

    async def slow() -> JobSelection:
        selection = await read()
        await tree.end("ja", tell=False) if (await known(tree.store, "ja")).status is JobStatus.QUEUED else None
        return selection

    report = await tree.look(slow)
    assert ids(report) == ["ja"]


async def test_a_cursor_keeps_a_job_from_being_reported_twice(tree: Tree):
    read = tree.named("ja", "jb", "jc")
    await tree.end("jc")
    first = await tree.wait(read, WaitMode.ANY)
    await tree.end("ja")
    second = await tree.wait(read, WaitMode.ANY, first.cursor)
    await tree.end("jb")
    third = await tree.wait(read, WaitMode.ALL, second.cursor)
    assert [ids(first), ids(second), ids(third)] == [["jc"], ["ja"], ["jb"]]


async def retry(tree: Tree, job_id: str) -> None:
    again = await tree.store.requeue(job_id)
    assert again is not None
    tree.event_bus.publish(again)


@pytest.mark.parametrize("selection", ["named", "subtree"])
@pytest.mark.parametrize("mode", [WaitMode.ALL, WaitMode.ANY])
async def test_a_job_that_is_tried_again_is_reported_again_once_it_is_over_again(
    tree: Tree, selection: str, mode: WaitMode
):
    read = tree.named("ja", "jb") if selection == "named" else tree.under("b1")
    for name in ("ja", "jb", "jc"):
        await tree.end(name, JobStatus.FAILED)
    first = await tree.wait(read, mode)
    await retry(tree, "jb")
    waiting = await tree.look(read, mode, first.cursor)
    assert (ids(waiting), waiting.pending) == ([], 1)
    reports: list[WaitReport] = []

    async def wait() -> None:
        reports.append(await tree.wait(read, mode, first.cursor))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await settle()
            await tree.end("jb")
    later = await tree.look(read, mode, waiting.cursor)
    assert [ids(report) for report in (*reports, later)] == [["jb"], ["jb"]]
    assert ids(await tree.look(read, mode, later.cursor)) == []


@pytest.mark.parametrize("selection", ["named", "subtree"])
async def test_a_job_that_is_tried_again_during_a_wait_is_reported_once_it_is_over_again(tree: Tree, selection: str):
    read = tree.named("ja", "jb") if selection == "named" else tree.under("b1")
    await tree.end("jc", JobStatus.FAILED)
    await tree.end("ja", JobStatus.FAILED)
    first = await tree.look(read)
    steps = [lambda: retry(tree, "ja"), lambda: tree.end("ja"), lambda: tree.end("jb")]
    (report,) = await reports_of(tree, read, WaitMode.ALL, *steps, cursor=first.cursor)
    assert ids(report) == ["ja", "jb"]


async def test_a_job_of_which_the_next_attempt_is_heard_first_is_waited_for_again(tree: Tree):
    async def next_attempt() -> None:
        await tree.store.requeue("ja")
        await start(tree.store, "ja")
        tree.event_bus.publish(await known(tree.store, "ja"))

    steps = [lambda: tree.end("ja", JobStatus.FAILED), next_attempt, lambda: tree.end("jb"), lambda: tree.end("ja")]
    (report,) = await reports_of(tree, tree.named("ja", "jb"), WaitMode.ALL, *steps)
    assert [job.status for job in report.done] == [JobStatus.COMPLETED] * 2


@pytest.mark.parametrize("cursor", ["zebra", "-1", "0x1", " 1", "1_0", "\u0661", "1.5", "-", "1\n"])
async def test_what_is_no_cursor_is_refused_and_the_error_says_what_to_pass(tree: Tree, cursor: str):
    with pytest.raises(
        BadInputError, match=r"(?s)cursor: .* Pass the cursor of the last reply, or leave it out"
    ) as info:
        await tree.look(tree.named("ja"), cursor=cursor)
    assert info.value.field == "cursor"


async def test_an_empty_cursor_and_none_hear_of_everything(tree: Tree):
    await tree.end("ja")
    assert [ids(await tree.look(tree.named("ja"), cursor=cursor)) for cursor in ("", None, "0")] == [["ja"]] * 3


async def test_progress_is_told_at_once_and_after_a_change(tree: Tree):
    told: list[tuple[int, int]] = []
    first, second = anyio.Event(), anyio.Event()

    async def tell(progress: Progress) -> None:
        told.append((progress.over, progress.total))
        (second if progress.over else first).set()

    async def wait() -> None:
        await tree.waiting.wait(tree.named("ja", "jb"), mode=WaitMode.ALL, seconds=60, on_progress=tell)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await first.wait()
            assert told == [(0, 2)]
            await tree.end("ja")
            await second.wait()
            await tree.end("jb")
    assert told == [(0, 2), (1, 2)]


async def test_progress_is_told_while_nothing_changes_and_its_value_grows(tree: Tree, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(waiting_module, "PROGRESS_SECONDS", 0.01)
    monkeypatch.setattr(waiting_module, "LEAST_PROGRESS_SECONDS", 0.01)
    often = anyio.Event()
    told: list[Progress] = []

    async def tell(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 3:
            often.set()

    async with anyio.create_task_group() as group:
        with anyio.fail_after(60):
            group.start_soon(
                lambda: tree.waiting.wait(tree.named("ja"), mode=WaitMode.ALL, seconds=60, on_progress=tell)
            )
            await often.wait()
        group.cancel_scope.cancel()
    values = [progress.value for progress in told[:3]]
    assert values == sorted(set(values))
    assert max(values) < 1
    assert [progress.only.id for progress in told if progress.only] == ["ja"] * len(told)


def test_progress_grows_with_every_end_and_for_days_and_stays_below_the_total():
    values = [
        Progress(over=over, running=1, total=9, seconds=seconds).value
        for over, seconds in ((0, 0.0), (0, 5.0), (1, 5.1), (1, 10.0), (8, 10.1), (8, 86400.0), (8, 86405.0))
    ]
    assert values == sorted(set(values))
    assert max(values) < 9


async def test_a_failing_progress_report_ends_the_wait_and_leaves_nothing(tree: Tree):
    async def tell(_: Progress) -> None:
        raise anyio.BrokenResourceError

    with pytest.raises(anyio.BrokenResourceError):
        await tree.waiting.wait(tree.named("ja"), mode=WaitMode.ALL, seconds=60, on_progress=tell)


async def test_a_cancelled_wait_leaves_nothing(tree: Tree):
    async with anyio.create_task_group() as group:
        group.start_soon(tree.wait, tree.named("ja"))
        await settle()
        assert "b1" in names_in(tree.event_bus)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("read_number", [1, 2])
async def test_a_change_beside_any_read_is_not_missed(tree: Tree, read_number: int):
    reads = 0
    read = tree.named("ja")

    async def racing() -> JobSelection:
        nonlocal reads
        reads += 1
        selection = await read()
        if reads == read_number:
            await tree.end("ja")
        return selection

    assert ids(await tree.wait(racing)) == ["ja"]


async def test_a_subtree_that_grows_is_waited_for_as_a_whole(tree: Tree):
    root = await admit_root(tree.store, "jroot")

    async def grow() -> None:
        for job in await admit(tree.store, "b2", "jchild", parent_id=root.id):
            tree.event_bus.publish(job)

    steps = [grow, lambda: tree.end("jroot"), lambda: tree.end("jchild")]
    (report,) = await reports_of(tree, tree.under("jroot"), WaitMode.ALL, *steps)
    assert (ids(report), report.total) == (["jroot", "jchild"], 2)


async def test_news_that_come_in_another_order_than_the_rows_keep_the_cursor_right(tree: Tree):
    root = await admit_root(tree.store, "jroot")
    read = tree.under("jroot")
    admitted: list[Job] = []

    async def grow() -> None:
        admitted.extend(await admit(tree.store, "b2", "jfirst", parent_id=root.id))
        admitted.extend(await admit(tree.store, "b3", "jsecond", parent_id=root.id))
        tree.event_bus.publish(admitted[1])

    (first,) = await reports_of(tree, read, WaitMode.ANY, grow, lambda: tree.end("jsecond"))
    tree.event_bus.publish(admitted[0])
    await tree.end("jfirst")
    second = await tree.wait(read, WaitMode.ANY, first.cursor)
    assert [ids(first), ids(second)] == [["jsecond"], ["jfirst"]]


async def test_late_news_of_a_job_that_is_over_do_not_bring_it_back(tree: Tree):
    await start(tree.store, "ja")
    late = replace(await known(tree.store, "ja"), cancel_requested=True)

    async def end_then_announce_the_cancel() -> None:
        await tree.end("ja")
        tree.event_bus.publish(late)

    steps = [end_then_announce_the_cancel, lambda: tree.end("jb")]
    (report,) = await reports_of(tree, tree.named("ja", "jb"), WaitMode.ALL, *steps)
    assert ids(report) == ["ja", "jb"]


async def test_a_job_that_goes_back_in_line_is_waited_for_again(tree: Tree):
    async def lose() -> None:
        await start(tree.store, "ja")
        tree.event_bus.publish(await tree.store.settle("ja", 1, ending(JobStatus.QUEUED), at=3.0))

    async def end_second_attempt() -> None:
        await start(tree.store, "ja")
        tree.event_bus.publish(await known(tree.store, "ja"))
        tree.event_bus.publish(await tree.store.settle("ja", 2, ending(JobStatus.COMPLETED), at=4.0))

    (report,) = await reports_of(tree, tree.named("ja"), WaitMode.ALL, lose, end_second_attempt)
    assert [job.attempt for job in report.done] == [2]
