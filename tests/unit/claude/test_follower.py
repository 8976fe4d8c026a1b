from pathlib import Path

import pytest

from jobs.claude.directory import AttemptDirectory
from jobs.claude.follower import PIECE, Follower

pytestmark = pytest.mark.anyio


@pytest.fixture
def directory(tmp_path: Path) -> AttemptDirectory:
    return AttemptDirectory.create(tmp_path / "attempt")


def append(directory: AttemptDirectory, data: bytes) -> None:
    with (directory.path / "out").open("ab") as file:
        file.write(data)


async def test_a_file_that_is_not_there_yet_holds_nothing_new(directory: AttemptDirectory) -> None:
    follower = Follower(directory)
    assert await follower.read() is None
    assert await follower.finish() == []


async def test_lines_come_once_and_a_half_line_waits_for_its_end(directory: AttemptDirectory) -> None:
    follower = Follower(directory)
    append(directory, b'{"n":1}\n{"n":')
    first = await follower.read()
    assert first is not None
    assert [line.frame for line in first] == [{"n": 1}]
    assert await follower.read() is None
    append(directory, b"2}\n")
    second = await follower.read()
    assert second is not None
    assert [(line.offset, line.frame) for line in second] == [(8, {"n": 2})]


async def test_one_read_takes_a_bounded_piece(directory: AttemptDirectory) -> None:
    line = b'{"n":"%s"}\n' % (b"x" * 1015)
    append(directory, line * (PIECE // 512))
    follower = Follower(directory)
    first = await follower.read()
    assert first is not None
    assert len(line) == 1024
    assert len(first) == PIECE // 1024
    assert len(first) + len(await follower.finish()) == PIECE // 512


async def test_the_unterminated_tail_of_an_ended_process_comes_with_the_finish(directory: AttemptDirectory) -> None:
    append(directory, b'{"n":1}\n{"n":2')
    lines = await Follower(directory).finish()
    assert [(line.frame, line.text, line.complete) for line in lines] == [({"n": 1}, "", True), (None, '{"n":2', False)]
