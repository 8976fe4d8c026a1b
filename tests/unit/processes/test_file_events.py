import gc
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from jobs.processes import file_events
from jobs.processes.file_events import GAP, FileEvents

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="inotify")]


@pytest.fixture
def output(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


async def test_a_write_is_heard_and_many_writes_are_heard_together(output: int) -> None:
    heard = anyio.Event()
    times: list[float] = []

    def on_write() -> None:
        times.append(anyio.current_time())
        heard.set()

    with FileEvents().watching([output], on_write) as told:
        assert told
        os.write(output, b"x")
        with anyio.fail_after(60):
            await heard.wait()
        until = anyio.current_time() + 10 * GAP
        while anyio.current_time() < until:
            os.write(output, b"x")
            await anyio.lowlevel.checkpoint()
    assert all(later - earlier >= GAP / 2 for earlier, later in pairwise(times))


async def test_a_file_that_was_removed_is_still_heard(output: int, tmp_path: Path) -> None:
    heard = anyio.Event()
    (tmp_path / "out").unlink()
    with FileEvents().watching([output], heard.set):
        os.write(output, b"x")
        with anyio.fail_after(60):
            await heard.wait()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_one_descriptor_serves_all_files_for_as_long_as_the_events_are_there(output: int) -> None:
    before = open_files()
    events = FileEvents()
    for _ in range(3):
        with events.watching([output], lambda: None), events.watching([output], lambda: None):
            assert open_files() == before + 1
    assert open_files() == before + 1


async def test_a_file_that_is_watched_again_is_told_of_as_soon_as_nothing_of_the_earlier_watch_is_left(
    output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_events, "REMOVE_SECONDS", 0.01)
    events, heard, stale = FileEvents(), anyio.Event(), anyio.Event()
    with events.watching([output], stale.set):
        pass
    told = False
    with anyio.fail_after(60):
        while not told:
            await anyio.sleep(0.01)
            with events.watching([output], heard.set) as told:
                if told:
                    os.write(output, b"x")
                    await heard.wait()
    assert not stale.is_set()


def test_the_descriptor_ends_with_the_event_loop(tmp_path: Path) -> None:
    async def watch() -> None:
        with (tmp_path / "out").open("w") as file, FileEvents().watching([file.fileno()], lambda: None):
            pass

    anyio.run(watch)
    gc.collect()
    before = open_files()
    for _ in range(3):
        anyio.run(watch)
    gc.collect()
    assert open_files() == before


async def test_no_file_is_not_told_of() -> None:
    with FileEvents().watching([], lambda: None) as told:
        assert not told
