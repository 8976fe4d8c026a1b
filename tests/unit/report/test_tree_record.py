"""The record of a tree, as the engine answers `report`: the whole of one, a part of one, page by page."""

import json
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from jobs.model import JobStatus, Outcome, Reason, Usage
from jobs.paused import PausedPath, PausedPaths
from jobs.ports import Store
from jobs.store.memory import MemoryStore
from jobs.waiting_for import AttemptWait, Wait, WaitingFor
from server.client.wire import encode_line
from server.feed.entries import Said
from server.feed.index import FeedSources
from server.report.tree_record import ANSWER_CHARS, LEAST_CHARS, PAGE_BYTES, TreeRecords
from tests.contract.support import admit, admit_root, ending, known, start

pytestmark = pytest.mark.anyio


class Desk:
    """A store with a tree, and what reads records from it."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()
        self.waits: dict[str, Wait] = {}
        self.running: dict[str, list[AttemptWait]] = {}
        self.paused = PausedPaths()
        sources = SimpleNamespace(
            store=self.store,
            to_say=lambda job: Said(self.waits.get(job.id), self.paused.holds(job.path)),
            activity_of=lambda _: None,
            waits_of=lambda job_id: self.running.get(job_id, ()),
            paused_paths=self.paused,
            clock=SimpleNamespace(now=lambda: 100.0),
        )
        self.records = TreeRecords(cast("FeedSources", sources))

    async def pages(self, identity: str, *, answers: bool = True) -> list[dict[str, Any]]:
        pages: list[dict[str, Any]] = []
        while not pages or pages[-1]["more"]:
            cursor = {"cursor": pages[-1]["cursor"]} if pages else {}
            pages.append(await self.records.answer({"tree": identity, "answers": answers, **cursor}))
            assert pages[-1]["ok"], pages[-1]
            # What a control connection can carry.
            encode_line(pages[-1], "answer")
        return pages

    async def jobs(self, identity: str, *, answers: bool = True) -> dict[str, dict[str, Any]]:
        return {row["jobId"]: row for page in await self.pages(identity, answers=answers) for row in page["jobs"]}

    async def end(self, job_id: str, result: str | None = None, status: JobStatus = JobStatus.COMPLETED) -> None:
        attempt = await start(self.store, job_id)
        usage = Usage(cost_usd=0.25, input_tokens=100, output_tokens=10)
        outcome = Outcome(reason=Reason.COMPLETED, status=status, result=result, usage=usage, model="claude-x")
        await self.store.settle(job_id, attempt.number, outcome, at=9.0)


@pytest.fixture
async def desk() -> Desk:
    """A root with two batches; one of their jobs has a batch, too."""
    made = Desk()
    await admit_root(made.store, "j1", tasks={"j1": "the root"})
    await start(made.store, "j1")
    await admit(made.store, "b2", "j2", "j3", parent_id="j1")
    await start(made.store, "j2")
    await admit(made.store, "b4", "j4", parent_id="j2")
    await admit(made.store, "b5", "j5", parent_id="j1")
    return made


async def test_a_whole_tree_has_all_of_its_jobs(desk: Desk):
    [page] = await desk.pages("j1")
    assert [row["jobId"] for row in page["jobs"]] == ["j5", "j4", "j3", "j2", "j1"]
    assert page["tree"].pop("version")
    assert page["tree"] == {
        "id": "j1",
        "rootId": "j1",
        "isBatch": False,
        "client": "a client",
        "createdAt": 1.0,
        "now": 100.0,
    }


@pytest.mark.parametrize(
    ("identity", "jobs"),
    [("j2", {"j2", "j4"}), ("b2", {"j2", "j3", "j4"}), ("b4", {"j4"}), ("b5", {"j5"}), ("j5", {"j5"})],
)
async def test_a_part_of_a_tree_is_a_job_or_a_batch_with_all_below_it(desk: Desk, identity: str, jobs: set[str]):
    [page] = await desk.pages(identity)
    assert {row["jobId"] for row in page["jobs"]} == jobs
    assert (page["tree"]["id"], page["tree"]["rootId"]) == (identity, "j1")


async def test_a_batch_at_the_root_is_a_tree(desk: Desk):
    await admit(desk.store, "b7", "j7", "j8")
    [page] = await desk.pages("b7")
    assert {row["jobId"] for row in page["jobs"]} == {"j7", "j8"}
    assert page["tree"]["isBatch"] is True


@pytest.mark.parametrize("identity", ["j404", "b404", "", "None"])
async def test_what_is_not_there_is_an_error_in_words(desk: Desk, identity: str):
    answer = await desk.records.answer({"tree": identity})
    assert answer["ok"] is False
    assert "not found" in answer["error"]


async def test_a_job_has_its_attempts_with_what_they_waited_for_and_cost(desk: Desk):
    await desk.end("j3", "The answer.")
    desk.running["j2"] = [AttemptWait(what=WaitingFor.CHILDREN, since=5.0)]
    desk.waits["j2"] = Wait(what=WaitingFor.CHILDREN)
    jobs = await desk.jobs("j1")
    assert jobs["j3"]["attempts"] == [
        {
            "number": 1,
            "from": 2.0,
            "to": 9.0,
            "status": "completed",
            "reason": "completed",
            "costUsd": 0.25,
            "inputTokens": 100,
            "outputTokens": 10,
            "model": "claude-x",
        }
    ]
    assert jobs["j3"]["answer"] == "The answer."
    assert jobs["j2"]["attempts"] == [{"number": 1, "from": 2.0, "waits": [["children", 5.0]]}]
    assert jobs["j2"]["waitingFor"] == "children"


async def test_a_long_answer_is_read_whole_up_to_twice_of_what_is_shown(desk: Desk):
    await desk.end("j3", "x" * 100_000)
    jobs = await desk.jobs("j3")
    assert (len(jobs["j3"]["answer"]), jobs["j3"]["answerChars"]) == (2 * ANSWER_CHARS, 100_000)


async def test_without_answers_none_is_sent_and_of_a_task_only_its_beginning(desk: Desk):
    await admit(desk.store, "b6", "j6", parent_id="j1", tasks={"j6": "t" * 1900})
    await desk.end("j6", "The answer.")
    assert len((await desk.jobs("j6"))["j6"]["task"]) == 1900
    row = (await desk.jobs("j6", answers=False))["j6"]
    assert len(row["task"]) == 400
    assert "answer" not in row
    assert "excerpt" not in row
    assert "The answer." not in json.dumps(row)


async def test_many_jobs_come_in_pages_that_a_connection_can_carry_each_once():
    desk = Desk()
    ids = [f"j{number:04}" for number in range(1100)]
    await admit(desk.store, "b1", *ids)
    for job_id in ids[:60]:
        await desk.end(job_id, "\N{PILE OF POO}" * 20_000)
    pages = await desk.pages("b1")
    assert [row["jobId"] for page in pages for row in page["jobs"]] == ids[::-1]
    assert ["tree" in page for page in pages] == [True, *[False] * (len(pages) - 1)]
    assert len(pages) > 10
    [room] = {page["answerChars"] for page in pages}
    assert LEAST_CHARS < room < ANSWER_CHARS
    assert max(len(json.dumps(page)) for page in pages) < PAGE_BYTES + 12 * 2 * ANSWER_CHARS + 100_000


async def test_the_rows_of_a_small_batch_in_a_large_tree_are_found_in_one_answer():
    desk = Desk()
    await admit_root(desk.store, "j1")
    await start(desk.store, "j1")
    await admit(desk.store, "b2", "j2", parent_id="j1")
    await admit(desk.store, "b3", *(f"k{number}" for number in range(900)), parent_id="j1")
    [page] = await desk.pages("b2")
    assert [row["jobId"] for row in page["jobs"]] == ["j2"]


async def test_pauses_of_the_part_and_of_what_is_above_it_are_told_and_no_others(desk: Desk):
    paths = ["", "j1", "j1/j2", "j1/j2/j4", "j1/j3"]
    rows = [PausedPath(path=path, since=float(number)) for number, path in enumerate(paths)]
    await desk.store.pause(rows)
    desk.paused.put(rows)
    await desk.store.unpause(["j1/j2/j4"], at=50.0)
    desk.paused.drop(["j1/j2/j4"])
    [page] = await desk.pages("j2")
    assert page["tree"]["pauses"] == [[0.0, None, ""], [1.0, None, "j1"], [2.0, None, "j1/j2"], [3.0, 50.0, "j1/j2/j4"]]
    assert (await desk.jobs("j4"))["j4"]["paused"] is True


async def test_a_cursor_that_is_none_begins_at_the_beginning(desk: Desk):
    for cursor in ("x", "-1", "9" * 40, 7, None, ["1"]):
        page = await desk.records.answer({"tree": "j1", "answers": True, "cursor": cursor})
        assert len(page["jobs"]) == 5


async def test_the_event_loop_goes_on_while_a_page_is_made():
    desk = Desk()
    await admit(desk.store, "b1", *(f"j{number}" for number in range(200)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await anyio.lowlevel.checkpoint()
        before = turns
        await desk.records.answer({"tree": "b1", "answers": True})
        assert turns - before >= 4
        group.cancel_scope.cancel()


async def test_a_job_that_was_tried_again_has_both_attempts(desk: Desk):
    attempt = await start(desk.store, "j3")
    await desk.store.settle("j3", attempt.number, ending(JobStatus.FAILED, detail="It failed."), at=5.0)
    await desk.store.requeue("j3")
    await start(desk.store, "j3", at=7.0)
    row = (await desk.jobs("j3"))["j3"]
    assert [(one["number"], one.get("to")) for one in row["attempts"]] == [(1, 5.0), (2, None)]
    assert (await known(desk.store, "j3")).attempt == 2
