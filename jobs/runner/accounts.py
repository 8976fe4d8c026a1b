"""Accounts of the trees: looks them up, and notices a new login while jobs wait for a limit of the old account."""

import math
from dataclasses import dataclass
from functools import partial

import anyio

from jobs.claude.account import account_key
from jobs.client_context import ClientContextStore
from jobs.errors import StoreError
from jobs.limits.throttle import Throttle
from jobs.ports import Clock
from jobs.scheduler import Scheduler
from jobs.util.keyed import SingleFlight

LOOK_SECONDS = 2.0
"""How old what is known of a login may be where a batch begins or jobs wait for a limit."""


@dataclass(slots=True, eq=False)
class _Client:
    """An environment from which many trees may come: it is looked at once for all of them."""

    environment: frozenset[tuple[str, str]]
    account: str = ""
    looked_at: float = -math.inf
    trees: int = 0


class Accounts:
    """Names the account of each tree: all jobs of a tree have the environment of the client that began it.

    Args:
        client_contexts: Where each tree's client environment is kept.
        clock: Time.
    """

    def __init__(self, client_contexts: ClientContextStore, clock: Clock) -> None:
        self._client_contexts = client_contexts
        self._clock = clock
        self._clients: dict[frozenset[tuple[str, str]], _Client] = {}
        self._by_tree: dict[str, _Client] = {}
        self._looks = SingleFlight[str]()
        client_contexts.on_forget(self._forget)

    def of(self, root_id: str) -> str:
        """Return the account of a tree as it was last looked up, or an empty text where it was not."""
        client = self._by_tree.get(root_id)
        return client.account if client is not None else ""

    async def look_up(self, root_id: str) -> None:
        """Look up which account a tree uses, unless that is known for less than `LOOK_SECONDS`."""
        client = self._by_tree.get(root_id)
        if client is None:
            try:
                environment = frozenset(self._client_contexts.load(root_id).env.items())
            except StoreError:
                # Its launch says what is missing.
                return
            client = self._by_tree[root_id] = self._clients.setdefault(environment, _Client(environment))
            client.trees += 1
        if self._clock.monotonic() - client.looked_at < LOOK_SECONDS:
            return
        # In a thread: Claude Code's own files may be large, or on a file system that does not answer.
        key = partial(account_key, dict(client.environment))
        client.account = await self._looks.call(client.environment, key)
        client.looked_at = self._clock.monotonic()

    async def follow_logins(self, scheduler: Scheduler, throttle: Throttle) -> None:
        """For as long as the engine runs, let jobs that wait for a limit go on once another login is in force."""
        limit_came = anyio.Event()

        def wake() -> None:
            limit_came.set()

        throttle.observe(wake)
        while True:
            if not throttle.pauses():
                await limit_came.wait()
                limit_came = anyio.Event()
            await anyio.sleep(LOOK_SECONDS)
            for account in throttle.pauses():
                for root_id in scheduler.queued_trees(account):
                    await self.look_up(root_id)
                    scheduler.move(root_id)

    def _forget(self, root_id: str) -> None:
        client = self._by_tree.pop(root_id, None)
        if client is not None:
            client.trees -= 1
            if not client.trees:
                self._clients.pop(client.environment, None)
