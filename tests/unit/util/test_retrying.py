"""Patience with a storage that fails for a while."""

import anyio
import pytest

from jobs.errors import DiskFullError, StoreError
from jobs.util import retrying
from jobs.util.retrying import retry_while_unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.0)


class Disk:
    """Refuses some times, then works."""

    def __init__(self, *refusals: StoreError) -> None:
        self.refusals = list(refusals)
        self.asked = 0

    async def write(self) -> str:
        self.asked += 1
        if self.refusals:
            raise self.refusals.pop(0)
        return "written"


async def test_what_fails_for_now_is_tried_until_it_works() -> None:
    disk = Disk(DiskFullError("settle"), StoreError("settle", "disk I/O error", transient=True))
    with anyio.fail_after(60):
        assert await retry_while_unavailable(disk.write, "settling") == "written"

    assert disk.asked == 3


async def test_what_fails_for_good_is_raised() -> None:
    disk = Disk(StoreError("settle", "it has been closed"))
    with pytest.raises(StoreError, match="closed"):
        await retry_while_unavailable(disk.write, "settling")

    assert disk.asked == 1
