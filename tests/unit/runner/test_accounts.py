"""Which account a tree uses: looked up once for all trees of a client, and again where it may have changed."""

import json
from pathlib import Path

import anyio
import pytest

from jobs.claude.account import account_key
from jobs.client_context import ClientContext, ClientContextStore
from jobs.limits.throttle import Throttle
from jobs.runner import accounts as accounts_module
from jobs.runner.accounts import LOOK_SECONDS, Accounts
from jobs.scheduler import Scheduler
from orchestration.limits import TreeLimits
from tests.support.waiting import until
from tests.unit.jobs.support import Clock, job, settle

pytestmark = pytest.mark.anyio


class Clients:
    """Trees of clients in a home of their own, and how often their accounts were looked up."""

    def __init__(self, home: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.client_contexts = ClientContextStore(home / "trees")
        self.accounts = Accounts(self.client_contexts, clock)
        self.looks = 0
        monkeypatch.setattr(accounts_module, "account_key", self._look)

    def tree(self, root_id: str, **env: str) -> str:
        self.client_contexts.write(root_id, ClientContext(cwd="/", env={"HOME": str(self.home), **env}))
        return root_id

    def log_in(self, who: str) -> None:
        (self.home / ".claude.json").write_text(json.dumps({"oauthAccount": {"accountUuid": who}, "pad": who * 9}))

    def _look(self, env: dict[str, str]) -> str:
        self.looks += 1
        return account_key(env)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clients(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clients:
    return Clients(tmp_path, clock, monkeypatch)


async def test_all_trees_of_a_client_are_looked_up_once(clients: Clients):
    for number in range(50):
        await clients.accounts.look_up(clients.tree(f"t{number}"))
    await clients.accounts.look_up(clients.tree("other", ANTHROPIC_API_KEY="sk-other"))
    assert clients.looks == 2
    assert len({clients.accounts.of(f"t{number}") for number in range(50)}) == 1
    assert clients.accounts.of("other") not in {"", clients.accounts.of("t0")}


async def test_a_login_is_looked_at_again_after_a_while(clients: Clients, clock: Clock):
    clients.log_in("one")
    await clients.accounts.look_up(clients.tree("t"))
    before = clients.accounts.of("t")
    clients.log_in("another")
    await clients.accounts.look_up("t")
    assert clients.accounts.of("t") == before
    clock.moved += LOOK_SECONDS
    await clients.accounts.look_up("t")
    assert clients.accounts.of("t") != before


async def test_a_tree_without_an_environment_has_no_account(clients: Clients):
    await clients.accounts.look_up("unknown")
    assert clients.accounts.of("unknown") == ""


async def test_a_tree_that_is_over_is_forgotten(clients: Clients):
    await clients.accounts.look_up(clients.tree("t"))
    clients.client_contexts.forget("t")
    assert clients.accounts.of("t") == ""
    await clients.accounts.look_up(clients.tree("t"))
    assert clients.looks == 2


async def test_who_waits_for_a_limit_goes_on_with_another_login(
    clients: Clients, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(accounts_module, "LOOK_SECONDS", 0.01)
    throttle = Throttle(max_running=9, max_starting=9, free_memory=lambda: 1, memory_floor=0, clock=clock)
    scheduler = Scheduler(TreeLimits(), 9, throttle, clients.accounts.of)
    clients.log_in("one")
    await clients.accounts.look_up(clients.tree("t"))
    account = clients.accounts.of("t")
    throttle.of(account).on_usage_limit(clock.now() + 1000, "five_hour")
    served: list[bool] = []

    async def stand() -> None:
        async with scheduler.slot(job("j", root="t")) as granted:
            served.append(granted)

    async def is_served() -> bool:
        return bool(served)

    async with anyio.create_task_group() as group:
        group.start_soon(clients.accounts.follow_logins, scheduler, throttle)
        group.start_soon(stand)
        await settle()
        assert (served, scheduler.waiting(account)) == ([], 1)
        clients.log_in("another")
        await until(is_served, 60.0)
        group.cancel_scope.cancel()
    assert served == [True]
