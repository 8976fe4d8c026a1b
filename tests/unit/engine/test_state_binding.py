"""The location of a state directory, written down when an engine starts."""

import errno
from pathlib import Path

import pytest

from jobs.store.memory import MemoryStore
from server.client.location import Location, read_location, write_location
from server.client.state_dir import prepare
from server.engine.state_binding import bind

pytestmark = pytest.mark.anyio


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("server.engine.state_binding.write_location", refuse)


@pytest.mark.usefixtures("full_disk")
async def test_a_full_disk_does_not_keep_an_engine_from_a_directory_without_a_location(home: Path):
    paths = prepare(home / "state")
    bound = await bind(paths, MemoryStore())
    assert bound.path == str(paths.home)
    assert read_location(paths.home) is None


@pytest.mark.usefixtures("full_disk")
async def test_a_copy_is_not_served_before_its_own_location_is_written(home: Path):
    paths = prepare(home / "state")
    write_location(paths.home, Location(key="original", path="/elsewhere"))
    with pytest.raises(OSError, match="No space left"):
        await bind(paths, MemoryStore())


async def test_a_copy_does_not_serve_the_page_of_the_original(home: Path):
    paths = prepare(home / "state")
    await bind(paths, MemoryStore())
    paths.page.write_text("{}")
    await bind(paths, MemoryStore())
    assert paths.page.exists()
    write_location(paths.home, Location(key="original", path="/elsewhere"))
    await bind(paths, MemoryStore())
    assert not paths.page.exists()
