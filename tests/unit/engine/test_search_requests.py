"""The control request `search`: its hits, what it tells while the index is not complete, and its refusals."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import jobs.search
import jobs.store.search_index
from jobs.model import JobStatus
from jobs.store.sqlite import SqliteStore
from server.engine.search_requests import answer_search
from tests.contract.support import admit, bring_to
from tests.unit.jobs.test_search import Library

pytestmark = pytest.mark.anyio


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        yield Library(tmp_path, store)


async def ask(library: Library, search: Any) -> dict[str, Any]:
    """Ask as a client does, with values that went through JSON."""
    request = json.loads(json.dumps({"do": "search", "search": search}))
    answer: dict[str, Any] = json.loads(json.dumps(await answer_search(library.search, request)))
    return answer


async def ids(library: Library, text: str, **more: Any) -> list[str]:
    return [hit["jobId"] for hit in (await ask(library, {"text": text, **more}))["hits"]]


async def test_a_hit_tells_the_job_and_where_the_words_are(library: Library):
    await bring_to(library.store, "j1", JobStatus.COMPLETED)
    assert await ask(library, {"text": "task j1"}) == {
        "ok": True,
        "hits": [
            {
                "jobId": "j1",
                "rootId": "j1",
                "status": "completed",
                "submittedAt": 1.0,
                "where": "task",
                "excerpt": "task of j1",
                "matches": [[0, 4], [8, 10]],
            }
        ],
    }


async def test_a_search_is_narrowed_by_status_time_directory_and_number(library: Library):
    for number, status in enumerate((JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.QUEUED)):
        await bring_to(library.store, f"j{number}", status)
    await admit(library.store, "b1", "j3", at=5.0, cwd="/srv/below")
    assert await ids(library, "task") == ["j3", "j2", "j1", "j0"]
    assert await ids(library, "task", limit=2) == ["j3", "j2"]
    assert await ids(library, "task", jobs={"status": "failed"}) == ["j1"]
    assert await ids(library, "task", jobs={"status": None, "since": 2.0}) == ["j3"]
    assert await ids(library, "task", jobs={"before": 2.0, "status": "queued"}) == ["j2"]
    assert await ids(library, "task", jobs={"directory": "/srv/below"}) == ["j3"]
    assert await ids(library, "task", jobs={"directory": "/srv/b"}) == []


async def test_what_was_read_of_transcripts_is_told_where_they_were_asked_for(library: Library):
    await library.says("j1", "an ibex")
    await library.says("j2", "nothing")
    assert await ask(library, {"text": "ibex"}) == {"ok": True, "hits": []}
    answer = await ask(library, {"text": "ibex", "transcripts": True})
    assert [(hit["jobId"], hit["where"]) for hit in answer["hits"]] == [("j1", "transcript")]
    size = sum(out.stat().st_size for out in library.trees.glob("*/*/*/out"))
    assert answer["transcripts"] == {"searched": 2, "bytes": size, "notSearched": 0}


async def test_while_the_index_is_not_complete_that_alone_is_told(library: Library, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs.store.search_index, "PIECE", 2)
    monkeypatch.setattr(jobs.search, "CATCH_UP_SECONDS", 0.0)
    await admit(library.store, "b1", "j1", "j2", "j3")
    assert await ask(library, {"text": "task"}) == {"ok": True, "catchingUp": 1}
    assert await ids(library, "task") == ["j3", "j2", "j1"]


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"text": "* -"}, "TEXT: it has no letters or digits. Give words to search for."),
        ({"text": "x", "limit": 201}, "--limit: 201 is not between 1 and 200"),
        ({"text": "x", "limit": 0}, "--limit: 0 is not between 1 and 200"),
        ({"text": "x", "jobs": {"status": "lost"}}, "--status: give one of 'queued', 'running', 'completed', 'failed'"),
        ({"text": "x", "jobs": {"since": "soon", "directory": 4}}, "--since: give a number; --directory: give a text."),
        ({"text": "x", "jobs": {"before": float("nan")}}, "--before: give a finite number."),
        ({"text": "x", "jobs": {"state": "failed"}}, "jobs.state: there is no such field."),
        ({"text": "x", "limit": "many", "transcripts": "perhaps"}, "--limit: give a whole number; --transcripts: give"),
        ({"limit": 3}, "TEXT: it is missing."),
        (None, "search: give an object."),
    ],
)
async def test_a_search_that_cannot_be_done_is_refused_in_words(library: Library, search: Any, said: str):
    answer = await ask(library, search)
    assert answer["ok"] is False
    assert said in answer["error"]
    assert not any(word in answer["error"] for word in ("pydantic", "SearchRequest", "validation", "\n"))


async def test_an_index_that_cannot_be_read_is_an_answer_and_no_crash(tmp_path: Path):
    async with SqliteStore.open(tmp_path / "elsewhere.db") as store:
        answer = await ask(Library(tmp_path, store), {"text": "x"})
    assert answer["ok"] is False
    assert "jobs.db" in answer["error"]
