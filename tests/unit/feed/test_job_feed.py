"""The job feed over the control socket: everything once, then what changed, and nothing kept for a slow reader."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from server.client.state_dir import StatePaths
from server.client.wire import Role
from server.feed import index, watch
from tests.unit.engine.test_connection import Wire, caller, running_engine, wire

pytestmark = pytest.mark.anyio


class Watcher:
    """A client that asks for page after page and keeps what it was told."""

    def __init__(self, client: Wire) -> None:
        self._client = client
        self.cursor: str | None = None
        self.jobs: dict[str, dict[str, Any]] = {}
        self.trees: dict[str, dict[str, Any]] = {}
        self.pages: list[dict[str, Any]] = []

    async def ask(self, **request: Any) -> dict[str, Any]:
        await self._client.send(json.dumps(request).encode())
        return await self._client.receive()

    async def page(self, **more: Any) -> dict[str, Any]:
        page = await self.ask(do="feed", **({"cursor": self.cursor} if self.cursor else {}), **more)
        assert page["ok"] is True, page
        self.pages.append(page)
        if page["reset"]:
            self.jobs.clear()
            self.trees.clear()
        self.cursor = page["cursor"]
        self.jobs |= {row["jobId"]: row for row in page["jobs"]}
        self.trees |= {row["rootId"]: row for row in page["trees"]}
        for root_id in page["gone"]:
            self.trees.pop(root_id)
            self.jobs = {name: row for name, row in self.jobs.items() if row["rootId"] != root_id}
        return page

    async def everything(self) -> None:
        while (await self.page())["more"]:
            pass

    async def until(self, status: str, count: int) -> None:
        with anyio.fail_after(60):
            while sum(row["status"] == status for row in self.jobs.values()) != count:
                await self.page()


@asynccontextmanager
async def watcher(paths: StatePaths) -> AsyncIterator[Watcher]:
    async with wire(paths) as client:
        await client.greet(role=Role.CONTROL)
        yield Watcher(client)


async def started(client: Wire, *tasks: str, tool: str = "claude_run_batch_async") -> dict[str, Any]:
    answer = await client.ask("tools/call", name=tool, arguments={"tasks": list(tasks)})
    reply: dict[str, Any] = json.loads(answer["result"]["content"][0]["text"])
    return reply


async def test_what_is_there_comes_first_and_then_only_what_changed(home: Path, tmp_path: Path):
    gate = tmp_path / "gate"
    async with running_engine(home) as paths, caller(paths) as client:
        await started(client, "stub:say=first", "stub:say=second", tool="claude_run_batch")
        async with watcher(paths) as seen:
            await seen.everything()
            assert seen.pages[0]["reset"] is True
            assert [row["excerpt"] for row in seen.jobs.values()] == ["first", "second"]
            ids = (await started(client, f"stub:wait={gate} stub:cost=0.5", f"stub:wait={gate}"))["jobIds"]
            await seen.until("running", 2)
            told = [row["jobId"] for page in seen.pages[1:] for row in page["jobs"]]
            assert set(told) == set(ids)
            gate.touch()
            await seen.until("completed", 4)
        root = seen.jobs[ids[0]]["rootId"]
        assert seen.trees[root]["costUsd"] == 0.501
        assert seen.trees[root]["counts"] == {"completed": 2}


async def test_a_tree_whose_root_is_a_job_that_comes_later_is_there_too(home: Path, tmp_path: Path):
    async with running_engine(home) as paths, caller(paths) as client, watcher(paths) as seen:
        await seen.everything()
        task = f"stub:wait={tmp_path}/gate"
        await client.ask("tools/call", name="claude_run_async", arguments={"task": task})
        await seen.until("running", 1)
        (tmp_path / "gate").touch()
        await seen.until("completed", 1)
        [job_id] = seen.jobs
        assert [*seen.trees] == [job_id]


async def test_changes_come_at_most_once_a_second_however_many_there_are(home: Path):
    async with running_engine(home, max_concurrent='{"0": 50}') as paths, caller(paths) as client:
        async with watcher(paths) as seen:
            await seen.everything()
            began = anyio.current_time()
            await started(client, *["stub:say=ok"] * 60)
            await seen.until("completed", 60)
            took = anyio.current_time() - began
        assert len(seen.pages) - 1 <= took + 2


async def test_many_jobs_come_in_pages_that_fit_into_a_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "PAGE_BYTES", 60_000)
    async with running_engine(home) as paths, caller(paths) as client:
        reply = await started(client, *[f"stub:wait={tmp_path}/never {'😀' * 300} {number}" for number in range(60)])
        async with watcher(paths) as seen:
            await seen.everything()
            assert len(seen.pages) > 2
            assert all(len(json.dumps(page)) < 100_000 for page in seen.pages)
            # They come in the order of their changes, and some start between two pages.
            assert sorted(seen.jobs, key=lambda job_id: seen.jobs[job_id]["order"]) == reply["jobIds"]
        await client.ask("tools/call", name="claude_kill_job", arguments={"jobId": reply["batchId"]})


async def test_a_cursor_of_another_engine_gets_everything_again(home: Path):
    async with running_engine(home) as paths, caller(paths) as client:
        await started(client, "stub:say=first", tool="claude_run_batch")
        async with watcher(paths) as seen:
            for cursor in ("0123abcd.1", "nonsense", "\ud800"):
                seen.cursor = cursor
                page = await seen.page()
                assert (page["reset"], len(page["jobs"])) == (True, 1)


async def test_a_tree_that_a_person_deletes_leaves_the_list(home: Path):
    async with running_engine(home) as paths, caller(paths) as client:
        await started(client, "stub:say=first", tool="claude_run_batch")
        async with watcher(paths) as seen, watcher(paths) as other:
            await seen.everything()
            [root] = seen.trees
            assert (await other.ask(do="prune", trees=[root]))["trees"] == [root]
            await seen.page()
        assert (seen.trees, seen.jobs) == ({}, {})


async def test_of_trees_that_are_over_the_newest_are_kept_and_the_others_are_said_to_be_gone(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index, "ENDED_JOBS", 4)
    async with running_engine(home) as paths, caller(paths) as client, watcher(paths) as seen:
        await seen.everything()
        for number in range(4):
            await started(client, f"stub:say=a{number}", f"stub:say=b{number}", tool="claude_run_batch")
            await seen.page()
        with anyio.fail_after(60):
            while len(seen.trees) > 2:
                await seen.page()
    assert sorted(row["excerpt"] for row in seen.jobs.values()) == ["a2", "a3", "b2", "b3"]


async def test_one_connection_can_ask_for_all_of_a_job_between_two_pages(home: Path):
    async with running_engine(home) as paths, caller(paths) as client, watcher(paths) as seen:
        await started(client, "stub:say=answered", tool="claude_run_batch")
        await seen.everything()
        [job_id] = seen.jobs
        details = await seen.ask(do="job", job=job_id)
        assert (details["task"], details["answer"], details["requests"]) == ("stub:say=answered", "answered", [])
        assert details["rights"]["permissionMode"] == "acceptEdits"
        assert [attempt["number"] for attempt in details["attempts"]] == [1]
        assert (await seen.ask(do="job", job="jnone"))["error"] == "Job jnone not found"
