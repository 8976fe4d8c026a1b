"""Whose settings an attempt loads: a directory's own where the person trusts it; a child no others than its parent."""

from pathlib import Path

import pytest

from jobs.claude.command import USER_ONLY, WITH_PROJECT
from jobs.client_context import ClientContextStore
from jobs.runner.launch_plan import LaunchPlanner
from jobs.settings import Settings
from jobs.store.memory import MemoryStore
from tests.contract.support import admit, admit_root
from tests.unit.jobs.support import known, preparation_of

pytestmark = pytest.mark.anyio


class House:
    """A parent and its child over a directory tree of which one half is trusted."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.trusted = home / "trusted"
        for name in ("trusted/sub", "other"):
            (home / name).mkdir(parents=True)
        self.store = MemoryStore()
        settings = Settings(home=home / "state", trusted_directories=(self.trusted,))
        self.launch_planner: LaunchPlanner = preparation_of(
            settings, self.store, ClientContextStore(home / "state" / "trees")
        )

    async def admit(self, directory: Path) -> None:
        """Admit the parent, or its child where it is there already, to work in a directory."""
        if await self.store.job("jparent") is None:
            await admit_root(self.store, "jparent", cwd=str(directory))
        else:
            await admit(self.store, "b2", "jchild", parent_id="jparent", cwd=str(directory))

    async def launch(self, job_id: str) -> str:
        """Claim a job as the launcher does and return whose settings it loads."""
        sources = await self.launch_planner.setting_sources(await known(self.store, job_id))
        assert await self.store.claim(job_id, session_id="s", token_hash=None, at=1.0, setting_sources=sources)
        return sources


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize(
    ("parent", "child", "loaded"),
    [
        ("trusted", "trusted", WITH_PROJECT),
        # Other settings than those that the parent loaded may permit more than it was permitted.
        ("trusted", "trusted/sub", USER_ONLY),
        ("other", "trusted", USER_ONLY),
        ("other", "other", USER_ONLY),
    ],
)
async def test_a_child_loads_the_settings_that_its_parent_loaded_and_no_others(
    house: House, parent: str, child: str, loaded: str
):
    await house.admit(house.home / parent)
    assert await house.launch("jparent") == (WITH_PROJECT if parent == "trusted" else USER_ONLY)
    await house.admit(house.home / child)
    assert await house.launch("jchild") == loaded


async def test_trust_that_was_given_after_the_parents_launch_does_not_reach_its_child(house: House):
    await house.admit(house.trusted)
    await house.store.claim("jparent", session_id="s", token_hash=None, at=1.0, setting_sources=USER_ONLY)
    await house.admit(house.trusted)
    assert await house.launch("jchild") == USER_ONLY


async def test_a_parents_directory_that_is_reached_through_a_link_is_the_same(house: House):
    (house.home / "link").symlink_to(house.trusted)
    await house.admit(house.home / "link")
    await house.launch("jparent")
    await house.admit(house.trusted)
    assert await house.launch("jchild") == WITH_PROJECT
