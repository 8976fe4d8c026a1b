from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from jobs.claude.ndjson import PIECE, SMALL, Line, OutputTail
from jobs.processes.attempt_dir import AttemptDirectory

pytestmark = pytest.mark.anyio


@pytest.fixture
def directory(tmp_path: Path) -> AttemptDirectory:
    return AttemptDirectory.create(tmp_path / "attempt")


async def rest(output_tail: OutputTail) -> list[Line]:
    return [line async for lines in output_tail.rest() for line in lines]


def append(directory: AttemptDirectory, data: bytes) -> None:
    with (directory.path / "out").open("ab") as file:
        file.write(data)


async def test_a_file_that_is_not_there_yet_holds_nothing_new(directory: AttemptDirectory) -> None:
    output_tail = OutputTail(directory)
    assert await output_tail.read() is None
    assert await rest(output_tail) == []


async def test_lines_come_once_and_a_half_line_waits_for_its_end(directory: AttemptDirectory) -> None:
    output_tail = OutputTail(directory)
    append(directory, b'{"n":1}\n{"n":')
    first = await output_tail.read()
    assert first is not None
    assert [line.frame for line in first] == [{"n": 1}]
    assert await output_tail.read() is None
    append(directory, b"2}\n")
    second = await output_tail.read()
    assert second is not None
    assert [(line.offset, line.frame) for line in second] == [(8, {"n": 2})]


async def test_one_read_takes_a_bounded_piece(directory: AttemptDirectory) -> None:
    line = b'{"n":"%s"}\n' % (b"x" * 1015)
    append(directory, line * (PIECE // 512))
    output_tail = OutputTail(directory)
    first = await output_tail.read()
    assert first is not None
    assert len(line) == 1024
    assert len(first) == PIECE // 1024
    assert len(first) + len(await rest(output_tail)) == PIECE // 512


async def test_the_unterminated_tail_of_an_ended_process_comes_with_the_finish(directory: AttemptDirectory) -> None:
    append(directory, b'{"n":1}\n{"n":2')
    lines = await rest(OutputTail(directory))
    assert [(line.frame, line.text, line.complete) for line in lines] == [({"n": 1}, "", True), (None, '{"n":2', False)]


async def test_a_little_output_takes_no_thread_and_much_does(directory: AttemptDirectory) -> None:
    threads = anyio.to_thread.current_default_thread_limiter()
    threads.total_tokens = 1
    held = anyio.Event()
    # Whoever needs a shared thread waits from here on.
    await threads.acquire_on_behalf_of(held)
    output_tail = OutputTail(directory)
    append(directory, b'{"n":1}\n')
    with anyio.fail_after(60):
        assert [line.frame for line in await output_tail.read() or ()] == [{"n": 1}]
    # A line whose beginning was read is parsed as a whole.
    append(directory, b'"' + SMALL * b"x")
    with anyio.move_on_after(0.05) as waited:
        await output_tail.read()
    assert waited.cancelled_caught
    threads.release_on_behalf_of(held)


async def test_the_tail_of_stderr_is_read_where_there_is_any(directory: AttemptDirectory) -> None:
    output_tail = OutputTail(directory)
    for name in ("out", "err"):
        (directory.path / name).touch()
    output_tail.hold()
    assert output_tail.error_tail() == ""
    (directory.path / "err").write_text("went wrong\n")
    assert output_tail.error_tail() == "went wrong"
