"""A tree's client environment: on disk while the tree lives, for its user alone, and never half read."""

import errno
import os
import stat
from pathlib import Path

import pytest

from jobs.client_context import ClientContext, ClientContextStore
from jobs.errors import DiskFullError, StoreError

ORIGIN = ClientContext(cwd="/srv", env={"PATH": "/bin", "ODD": "a=b\n\u00e9"}, client="c")


@pytest.mark.anyio
async def test_an_origin_is_read_as_it_was_saved_and_only_its_user_may_read_it(tmp_path: Path):
    files = ClientContextStore(tmp_path)
    await files.save("t", ORIGIN)
    assert files.load("t") == ORIGIN
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "t", tmp_path / "t" / "origin.json")]
    assert modes == [0o700, 0o600]


@pytest.mark.anyio
async def test_an_origin_that_is_forgotten_leaves_the_trees_other_files(tmp_path: Path):
    files = ClientContextStore(tmp_path)
    await files.save("t", ORIGIN)
    (tmp_path / "t" / "j1").mkdir()
    files.forget("t")
    files.forget("t")
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["j1"]
    with pytest.raises(StoreError, match="client's environment"):
        files.load("t")


@pytest.mark.anyio
async def test_a_tree_that_was_not_admitted_leaves_nothing(tmp_path: Path):
    files = ClientContextStore(tmp_path)
    await files.save("t", ORIGIN)
    files.discard("t")
    files.discard("t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
async def test_an_origin_is_not_written_through_a_link(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "origin.json").symlink_to(elsewhere)
    with pytest.raises(StoreError):
        await ClientContextStore(tmp_path).save("t", ORIGIN)
    assert not elsewhere.exists()


@pytest.mark.anyio
async def test_on_a_full_disk_nothing_half_written_stays_and_nothing_else_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    transcript = tmp_path / "over" / "j1" / "1" / "out"
    transcript.parent.mkdir(parents=True)
    transcript.touch()

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    for root_id in ("new", "over"):
        with pytest.raises(DiskFullError):
            await ClientContextStore(tmp_path).save(root_id, ORIGIN)
    assert [path.name for path in tmp_path.iterdir()] == ["over"]
    assert transcript.exists()
    assert not (tmp_path / "over" / "origin.json").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"cwd": "/"}', "3", "null", '{"cwd": "/", "env": 3, "client": 1}']
)
def test_a_file_that_holds_something_else_is_a_store_error(tmp_path: Path, text: str):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "origin.json").write_text(text)
    with pytest.raises(StoreError, match="client's environment"):
        ClientContextStore(tmp_path).load("t")
