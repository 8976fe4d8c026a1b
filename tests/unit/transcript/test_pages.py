"""Pages of a transcript: forwards and backwards, while it grows and once it is over, and of a file of any shape."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.model import Job, JobStatus
from jobs.ports import Store
from jobs.processes.attempt_dir import UnsafeDirectoryError
from jobs.store.memory import MemoryStore
from server.transcript.pages import BACK_BYTES, MOST_LINE, PAGE_BYTES, NoSuchAttemptError, Place, TranscriptPages
from tests.contract.support import admit_root, ending, known, start
from tests.unit.transcript.streams import answer, said, text

pytestmark = pytest.mark.anyio

KEY = "sk-ant-api03-" + "aB3" * 20


@dataclass
class Desk:
    """One running job, its files, and what reads them."""

    store: Store
    trees: Path
    pages: TranscriptPages
    number: int = 1

    @property
    def directory(self) -> Path:
        return self.trees / "j1" / "j1" / str(self.number)

    def write(self, *data: bytes) -> None:
        with (self.directory / "out").open("ab") as file:
            file.writelines(data)

    async def job(self) -> Job:
        return await known(self.store, "j1")

    async def end(self, status: JobStatus = JobStatus.COMPLETED) -> None:
        await self.store.settle("j1", self.number, ending(status), at=3.0)

    async def page(self, *, attempt: int | None = None, **place: Any) -> dict[str, Any]:
        return await self.pages.page(await self.job(), attempt, Place(**place))

    async def forwards(self, after: int = 0) -> list[dict[str, Any]]:
        pages = [await self.page(after=after)]
        while pages[-1]["more"]:
            pages.append(await self.page(after=pages[-1]["next"]))
        return pages


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    store = MemoryStore()
    await admit_root(store, "j1", tasks={"j1": "Count to three."})
    await start(store, "j1")
    made = Desk(store=store, trees=tmp_path, pages=TranscriptPages(tmp_path, store, lambda _: {"the word of the tree"}))
    made.directory.mkdir(parents=True, mode=0o700)
    (made.directory / "out").touch()
    return made


def texts(*pages: dict[str, Any]) -> list[str]:
    return [entry["text"] for page in pages for entry in page["entries"]]


async def test_a_transcript_is_followed_line_by_line_and_half_a_line_is_none(desk: Desk):
    assert (await desk.page())["entries"] == []
    first, second = said(text("one")), said(text("two"))
    desk.write(first, second[:20])
    page = await desk.page()
    assert texts(page) == ["Count to three.", "one"]
    assert (page["from"], page["next"], page["more"], page["live"]) == (0, len(first), False, True)
    assert texts(await desk.page(after=page["next"])) == []
    desk.write(second[20:])
    page = await desk.page(after=page["next"])
    assert (texts(page), page["next"]) == (["two"], len(first + second))


async def test_the_last_line_of_an_attempt_that_is_over_counts_without_its_newline(desk: Desk):
    desk.write(said(text("one")), answer("two").strip())
    assert texts(await desk.page()) == ["Count to three.", "one"]
    await desk.end()
    page = await desk.page()
    assert texts(page) == ["Count to three.", "one", "two"]
    assert (page["live"], page["more"]) == (False, False)


async def test_an_answer_that_an_earlier_page_said_is_not_said_again(desk: Desk):
    desk.write(said(text("The answer.")))
    page = await desk.page()
    desk.write(answer("The answer."))
    assert texts(await desk.page(after=page["next"])) == []
    # Nor by a reader that has not read the earlier page.
    other = TranscriptPages(desk.trees, desk.store, lambda _: ())
    assert texts(await other.page(await desk.job(), None, Place(after=page["next"]))) == []


async def test_what_failed_ends_with_its_stderr_which_is_told_once(desk: Desk):
    desk.write(said(text("one")))
    (desk.directory / "err").write_text(f"Cannot go on: {KEY}\nthe word of the tree\n")
    followed = await desk.page()
    await desk.end(JobStatus.FAILED)
    page = await desk.page(after=followed["next"])
    assert [entry["kind"] for entry in page["entries"]] == ["stderr"]
    assert texts(page) == ["Cannot go on: [redacted]\n[redacted]"]
    assert (await desk.page(after=page["next"]))["entries"] == []
    assert [entry["kind"] for entry in (await desk.page(at_end=True))["entries"]] == ["task", "text", "stderr"]


async def test_what_completed_shows_no_stderr(desk: Desk):
    desk.write(said(text("one")))
    (desk.directory / "err").write_text("a warning\n")
    await desk.end()
    assert "a warning" not in texts(await desk.page())


async def test_a_long_transcript_comes_in_pages_with_every_line_once_forwards_and_backwards(desk: Desk):
    desk.write(*(said(text(f"{number} {'x' * 1000}")) for number in range(1500)))
    expected = [*range(1500)]
    pages = await desk.forwards()
    assert [int(one.split()[0]) for one in texts(*pages)[1:]] == expected
    assert len(pages) > 4
    assert max(len(json.dumps(page)) for page in pages) < PAGE_BYTES + 4000
    back = [await desk.page(at_end=True)]
    while back[-1]["from"]:
        back.append(await desk.page(before=back[-1]["from"]))
    assert [page["from"] for page in back[:-1]] == [page["next"] for page in back[1:]]
    assert [int(one.split()[0]) for one in texts(*back[::-1])[1:]] == expected
    assert max(len(json.dumps(page)) for page in back) < BACK_BYTES + 4000


async def test_lines_that_show_nothing_end_a_page_too(desk: Desk):
    desk.write(b'{"type":"stream_event","of":"%b"}\n' % (b"x" * 2000) * 5000, said(text("after all")))
    pages = await desk.forwards()
    assert len(pages) == 3
    assert texts(*pages) == ["Count to three.", "after all"]


async def test_a_huge_line_is_left_out_and_the_next_one_is_shown(desk: Desk):
    desk.write(said(text("one")), b"x" * (17 * 2**20) + b"\n", said(text("three")))
    noted = f"A line of {17 * 2**20 + 1} bytes was left out."
    assert texts(*await desk.forwards()) == ["Count to three.", "one", noted, "three"]
    assert texts(await desk.page(at_end=True)) == [noted, "three"]


async def test_a_file_that_seems_to_be_of_any_size_takes_a_bounded_time_a_page(desk: Desk):
    desk.write(said(text("one")))
    os.truncate(desk.directory / "out", 2**40)
    await desk.end(JobStatus.FAILED)
    page = await desk.page()
    assert texts(page)[:2] == ["Count to three.", "one"]
    assert page["more"]
    assert page["next"] <= 2 * MOST_LINE
    page = await desk.page(after=page["next"])
    assert texts(page) == ["The rest of a line was left out."]
    assert (await desk.page(at_end=True))["next"] == 2**40 + 1


async def test_a_page_that_begins_inside_a_line_shows_no_half_of_a_secret(desk: Desk):
    line = said(text(f"it is {KEY}"))
    desk.write(line, said(text("two")))
    for after in range(1, len(line)):
        assert texts(await desk.page(after=after)) == ["The rest of a line was left out.", "two"]


@pytest.mark.parametrize("place", [{"after": 10**15}, {"before": 10**15}, {"before": 0}, {"before": 3}, {"after": -5}])
async def test_a_place_that_is_not_there_is_answered(desk: Desk, place: dict[str, int]):
    desk.write(said(text("one")))
    page = await desk.page(**place)
    assert page["ok"]
    assert set(texts(page)) <= {"Count to three.", "one"}


async def test_each_attempt_has_its_own_and_one_that_has_not_begun_is_refused(desk: Desk):
    desk.write(said(text("the first")))
    await desk.end(JobStatus.FAILED)
    await desk.store.requeue("j1")
    await start(desk.store, "j1")
    desk.number = 2
    desk.directory.mkdir()
    desk.write(said(text("the second")))
    assert texts(await desk.page())[1:] == ["the second"]
    page = await desk.page(attempt=1)
    assert texts(page)[1:] == ["the first"]
    assert (page["attempt"], page["attempts"], page["live"]) == (1, 2, False)
    with pytest.raises(NoSuchAttemptError, match="no attempt 3; its last one is 2"):
        await desk.page(attempt=3)


async def test_a_job_that_has_not_begun_has_an_empty_page(tmp_path: Path):
    store = MemoryStore()
    job = await admit_root(store, "j2")
    page = await TranscriptPages(tmp_path, store, lambda _: ()).page(job)
    assert page == {
        "ok": True, "attempt": 0, "attempts": 0, "entries": [], "from": 0, "next": 0, "more": False, "live": False
    }  # fmt: skip


async def test_a_transcript_that_was_removed_is_said_to_be_gone(desk: Desk):
    (desk.directory / "out").unlink()
    assert (await desk.page())["entries"] == []
    await desk.end()
    page = await desk.page()
    assert texts(page) == ["There is no transcript of this attempt: it wrote nothing, or its files were removed."]
    assert (await desk.page(after=page["next"]))["entries"] == []


async def test_what_a_job_puts_in_the_files_place_is_not_followed(desk: Desk, tmp_path: Path):
    out = desk.directory / "out"
    secret = tmp_path / "secret"
    secret.write_text("elsewhere\n")
    out.unlink()
    out.symlink_to(secret)
    assert "elsewhere" not in texts(await desk.page())
    out.unlink()
    os.mkfifo(out)
    assert texts(await desk.page()) == []
    out.unlink()
    out.mkdir()
    assert texts(await desk.page()) == []
    desk.directory.rename(tmp_path / "moved")
    desk.directory.symlink_to(tmp_path / "moved")
    with pytest.raises(UnsafeDirectoryError):
        await desk.page()
