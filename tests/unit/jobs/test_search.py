"""The search: its index catches up in pieces, transcripts are read up to a bound, and excerpts show no secret."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio.to_thread
import pytest

import jobs.search
import jobs.store.search_index
from jobs.errors import BadInputError, StoreError
from jobs.model import JobStatus
from jobs.search import Found, Search, words_of
from jobs.store.search_index import JobFilter, SearchIndex
from jobs.store.sqlite import SqliteStore
from server.cli.search import fitted
from server.cli.times import age_seconds
from tests.contract.support import admit, bring_to, ending, start

pytestmark = pytest.mark.anyio


class Library:
    """A store, its index, and the directories of its jobs."""

    def __init__(self, home: Path, store: SqliteStore) -> None:
        self.store = store
        self.trees = home / "trees"
        self.index = SearchIndex(home / "search.db", home / "jobs.db")
        self.search = Search(self.index, self.trees)

    async def find(self, text: str, *, transcripts: bool = False, limit: int = 20, **jobs: object) -> Found:
        return await self.search.find(text, JobFilter(**jobs), limit=limit, transcripts=transcripts)  # type: ignore[arg-type]

    async def ids(self, text: str) -> list[str]:
        return [hit.job.id for hit in (await self.find(text)).hits]

    async def says(self, job_id: str, *texts: str) -> None:
        """Start a job whose transcript says these things."""
        await bring_to(self.store, job_id, JobStatus.RUNNING)
        directory = self.trees / job_id / job_id / "1"
        directory.mkdir(parents=True, mode=0o700)
        frames = [{"type": "assistant", "message": {"content": [{"type": "text", "text": each}]}} for each in texts]
        (directory / "out").write_text("".join(f"{json.dumps(frame)}\n" for frame in frames))


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        yield Library(tmp_path, store)


async def test_the_index_is_made_in_pieces_and_nothing_is_searched_before_it_is_whole(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jobs.store.search_index, "PIECE", 2)
    monkeypatch.setattr(jobs.search, "CATCH_UP_SECONDS", 0.0)
    await admit(library.store, "b1", *[f"j{number}" for number in range(5)])

    assert [(await library.find("task")).catching_up for _ in range(2)] == [3, 1]
    assert await library.ids("task") == ["j4", "j3", "j2", "j1", "j0"]


async def test_a_job_is_found_while_it_lives_then_by_its_answer_and_then_by_that_of_its_retry(library: Library):
    await bring_to(library.store, "j1", JobStatus.RUNNING)
    assert await library.ids("task of j1") == ["j1"]
    await library.store.settle("j1", 1, replace(ending(JobStatus.FAILED), detail="a walrus"), at=3.0)
    assert await library.ids("walrus") == ["j1"]
    await library.store.requeue("j1")
    await start(library.store, "j1")
    await library.store.settle("j1", 2, ending(JobStatus.COMPLETED, result="an okapi"), at=4.0)
    assert await library.ids("okapi") == ["j1"]
    assert await library.ids("walrus") == []


async def test_a_deleted_job_is_found_no_more_and_its_text_is_gone(library: Library):
    await bring_to(library.store, "j1", JobStatus.COMPLETED)
    assert await library.ids("j1") == ["j1"]
    await library.store.delete_tree("j1")
    assert await library.ids("j1") == []
    await library.search.forget_deleted()


async def test_a_long_task_is_found_by_its_end(library: Library):
    await admit(library.store, "b1", "j1", tasks={"j1": "x " * 5000 + "narwhal"})
    assert await library.ids("narwhal") == ["j1"]


async def test_transcripts_are_read_newest_first_until_the_bound_and_the_rest_is_told(
    library: Library, monkeypatch: pytest.MonkeyPatch
):
    for number in range(4):
        await library.says(f"j{number}", "nothing", "an ibex is here" if number != 2 else "none")
    found = await library.find("ibex", transcripts=True)
    assert [hit.job.id for hit in found.hits] == ["j3", "j1", "j0"]
    assert found.scan is not None
    assert (found.scan.files, found.scan.left) == (4, 0)

    one = await library.find("ibex", transcripts=True, limit=1)
    assert one.scan is not None
    assert ([hit.job.id for hit in one.hits], one.scan.files, one.scan.left) == (["j3"], 1, 3)

    monkeypatch.setattr(jobs.search, "SCAN_BYTES", 1)
    cut = await library.find("ibex", transcripts=True)
    assert cut.scan is not None
    assert (cut.scan.files, cut.scan.left) == (1, 3)


@pytest.mark.parametrize("text", ["an ibex", "IBEX", "façade", "it's", '"quoted"', "a\\b"])
async def test_a_transcript_is_searched_for_what_was_said_however_it_is_written_down(library: Library, text: str):
    await library.says("j1", 'an ibex before a façade, it\'s "quoted"', "a\\b")
    found = await library.find(text, transcripts=True)
    assert [hit.where for hit in found.hits] == ["transcript"]


async def test_the_excerpt_of_a_transcript_shows_no_key(library: Library):
    await library.says("j1", f"ibex sk-ant-api03-{'k' * 95} and on")
    [hit] = (await library.find("ibex", transcripts=True)).hits
    assert hit.excerpt == "ibex [redacted] and on"
    assert [hit.excerpt[start:end] for start, end in hit.matches] == ["ibex"]


@pytest.mark.parametrize(
    "secret",
    [
        f"sk-ant-api03-{'k1' * 20}-ibex-{'k2' * 20}",
        "Authorization: Bearer ibex-0123456789abcdefghij",
        "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *["MIIEow12" * 8] * 25, "-----END RSA PRIVATE KEY-----"])
        + " ibex",
    ],
)
async def test_an_excerpt_shows_no_part_of_a_key_that_has_the_word_or_begins_far_before_it(
    library: Library, secret: str
):
    await library.says("j1", secret)
    found = await library.find("ibex", transcripts=True)
    assert [hit.excerpt for hit in found.hits] in ([], ["[redacted] ibex"])


async def test_a_file_that_is_no_transcript_is_passed_over(library: Library):
    await library.says("j1", "an ibex")
    out = library.trees / "j1" / "j1" / "1" / "out"
    out.write_bytes(b'ibex\n{"type": "assistant", "message": ["ibex"]}\n[["ibex"]]\n\xff ibex')
    found = await library.find("ibex", transcripts=True)
    assert found.hits == []


async def test_a_database_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path):
    search = Search(SearchIndex(tmp_path / "search.db", tmp_path / "none.db"), tmp_path)
    with pytest.raises(StoreError):
        await search.find("x", JobFilter(), limit=1, transcripts=False)
    assert not await anyio.to_thread.run_sync((tmp_path / "none.db").exists)


def test_a_query_is_words_and_nothing_else():
    assert words_of(' NEAR( "two words" * \x1b[31m- foo-bar') == ["NEAR(", '"two', 'words"', "foo-bar"]
    with pytest.raises(BadInputError, match="no letters or digits"):
        words_of("* - ( \x1b[31m")


def test_a_query_has_each_word_once_and_a_bounded_number_of_them():
    assert words_of("a b " * 1000) == ["a", "b"]
    with pytest.raises(BadInputError, match=r"200 words.*at most 50"):
        words_of(" ".join(map(str, range(200))))


@pytest.mark.parametrize(
    ("age", "seconds"), [("90s", 90), ("30m", 1800), ("2H", 7200), ("1.5d", 129_600), ("1 w", 604_800)]
)
def test_an_age_is_a_number_and_a_unit(age: str, seconds: float):
    assert age_seconds(age) == seconds


@pytest.mark.parametrize("age", ["", "3", "d", "-3d", "3 days", "1e9d", "nan"])
def test_anything_else_is_no_age(age: str):
    with pytest.raises(ValueError, match="is not an age"):
        age_seconds(age)


@pytest.mark.parametrize("room", [20, 33, 60, 500])
@pytest.mark.parametrize("at", [0, 5, 90, 195])
def test_an_excerpt_is_cut_around_its_first_match(room: int, at: int):
    excerpt = f"{'word ' * (at // 5)}ibex {'more ' * ((200 - at) // 5)}"[:200].strip()
    start = excerpt.index("ibex")
    shown, matches = fitted(excerpt, [(start, start + 4)], room)
    assert len(shown) <= room
    assert [shown[begin:end] for begin, end in matches] == ["ibex"]
