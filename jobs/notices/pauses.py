"""Notes the beginning and the end of pauses, by limits and budgets of accounts and by persons, over restarts too."""

from collections.abc import Iterable, Iterator
from typing import Any

import anyio

from jobs.event_bus import JobEventBus
from jobs.limits.account_budgets import AccountBudgets
from jobs.limits.throttle import Throttle
from jobs.model import Job
from jobs.notice import NotedPause, Notice, NoticeEvent, NoticeKind, NoticeStore, utc
from jobs.notices.notifier import Notifier
from jobs.ports import Clock
from jobs.store.live import LiveStore

_LONGEST_LOOK_SECONDS = 60.0
"""Seconds between two looks during a pause: the clocks by which it ends may differ."""

_SLACK_SECONDS = 0.1

_PATH, _BUDGET = "/", "$"
"""What the key of a paused path begins with, and that of an account whose budget is used up; the others are accounts
with a usage limit."""


class PauseNotices:
    """Adds a notice when a pause begins, and when it is over.

    Args:
        throttle: Knows the usage limits.
        budgets: Knows which daily and monthly budgets are used up.
        store: Knows which parts of the trees are paused.
        outbox: Where notices are kept, and which pauses were noted.
        notifier: Knows whether a person wants to be told.
        event_bus: Where pauses of parts of the trees are announced.
        clock: Time.
    """

    def __init__(
        self,
        *,
        throttle: Throttle,
        budgets: AccountBudgets,
        store: LiveStore,
        outbox: NoticeStore,
        notifier: Notifier,
        event_bus: JobEventBus,
        clock: Clock,
    ) -> None:
        self._throttle = throttle
        self._budgets = budgets
        self._store = store
        self._outbox = outbox
        self._notifier = notifier
        self._clock = clock
        self._changed = anyio.Event()
        throttle.observe(self._note_change)
        event_bus.observe_pauses(self._note_change)
        event_bus.observe(self._note_cost)

    async def keep(self) -> None:
        """Note each change, for as long as the engine runs."""
        noted = {pause.key: pause for pause in await self._outbox.noted_pauses()}
        while True:
            self._changed = anyio.Event()
            paused = self._paused()
            for key, pause in paused.items():
                if noted.get(key) != pause:
                    await self._began(pause, is_new=key not in noted)
            for key in noted.keys() - paused.keys():
                await self._ended(noted[key])
            noted = paused
            with anyio.move_on_after(self._until_next(paused.values())):
                await self._changed.wait()

    def _note_change(self, *_: object) -> None:
        self._changed.set()

    def _note_cost(self, job: Job) -> None:
        if job.ended_at is not None and self._budgets.are_set:
            self._changed.set()

    async def _began(self, pause: NotedPause, *, is_new: bool) -> None:
        if NoticeKind.ATTENTION not in self._notifier.wanted():
            return
        until = {} if pause.until is None else {"until": utc(pause.until)}
        way_on = f"resume {_id(pause)}".rstrip() if pause.key.startswith(_PATH) else "engine status"
        event = NoticeEvent.BUDGET_USED_UP if pause.key.startswith(_BUDGET) else NoticeEvent.PAUSE_BEGAN
        notice = self._notice(event, pause, {**until, "next": f"claude-jobs {way_on}"})
        await self._outbox.note_pause(pause, notice if is_new else None)
        self._notifier.wake()

    async def _ended(self, pause: NotedPause) -> None:
        # Of a path below which nothing lives, nothing goes on. Of everything, also what comes next does.
        path = pause.key.removeprefix(_PATH) if pause.key.startswith(_PATH) else ""
        is_told = not path or self._store.trees.lives(path)
        notice = self._notice(NoticeEvent.PAUSE_ENDED, pause, {"next": "claude-jobs list"})
        wanted = NoticeKind.ATTENTION in self._notifier.wanted()
        await self._outbox.note_pause(pause, notice if is_told and wanted else None, over=True)
        self._notifier.wake()

    def _notice(self, event: NoticeEvent, pause: NotedPause, more: dict[str, Any]) -> Notice:
        body = {"event": event.value, "id": _id(pause), "because": pause.because, **more}
        return Notice(kind=NoticeKind.ATTENTION, body=body, at=self._clock.now())

    def _paused(self) -> dict[str, NotedPause]:
        """Return the pauses that hold: of an account, the one that ends last."""
        found: dict[str, NotedPause] = {}
        for account, limit in self._throttle.usage_limits():
            if account not in found or limit.until > (found[account].until or 0.0):
                found[account] = NotedPause(key=account, until=limit.until, because=limit.because)
        return found | {pause.key: pause for pause in self._other_pauses()}

    def _other_pauses(self) -> Iterator[NotedPause]:
        for account, pause in self._budgets.pauses().items():
            yield NotedPause(key=f"{_BUDGET}{account}", until=pause.until, because=pause.because)
        for row in self._store.paused_paths.live():
            yield NotedPause(key=f"{_PATH}{row.path}", until=None, because=row.words_for(row.path))

    def _until_next(self, paused: Iterable[NotedPause]) -> float | None:
        ends = [pause.until for pause in paused if pause.until is not None]
        if not ends:
            return None
        return min(max(min(ends) - self._clock.now(), 0.0) + _SLACK_SECONDS, _LONGEST_LOOK_SECONDS)


def _id(pause: NotedPause) -> str:
    """Return the id of a job or a tree, nothing for everything, and the digest of an account."""
    return pause.key.removeprefix(_BUDGET).rpartition(_PATH)[2]
