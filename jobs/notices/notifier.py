"""Delivers the notices of the outbox to the hooks of the settings: at least once, again after a failure, bounded."""

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import anyio

from jobs.errors import StoreError
from jobs.ids import new_notice_id
from jobs.limits.budget import Ledger
from jobs.notice import (
    FailedNotice,
    Notice,
    NoticeEvent,
    NoticeKind,
    NoticeStore,
    about,
    shortened,
    sums,
    utc,
)
from jobs.notices.hooks import Hooks
from jobs.permissions.approvals import PermissionRequest
from jobs.ports import Clock, Store
from jobs.settings import Settings
from jobs.util.json_values import number

logger = logging.getLogger(__name__)

MOST_A_MINUTE = 20
"""Messages of one kind within a minute; what comes beyond them is put together into one."""

FIRST_RETRY_SECONDS = 1.0
"""Seconds until the second try; each further one is twice as far away."""

LONGEST_RETRY_SECONDS = 3600.0
"""Most seconds between two tries."""

MOST_TRIES = 20
"""Tries of a notice, about nine hours in all; then it is given up."""

SAME_BUDGET_SECONDS = 60.0
"""Seconds within which further jobs that end for the same budget are no further notice."""

_MINUTE = 60.0
_BATCH = 500
"""Notices that are put together into one message at most."""

_NAMED = 100
"""Ids that such a message names."""


class Notifier:
    """Delivers notices, one kind in one asyncio task, so that a slow hook of one delays none of the other.

    Args:
        settings: Whose hooks they are; read at each use.
        store: Where trees are kept.
        outbox: Where notices are kept.
        ledger: Knows which budget is used up.
        hooks: Delivers messages.
        clock: Time.
    """

    def __init__(
        self, *, settings: Settings, store: Store, outbox: NoticeStore, ledger: Ledger, hooks: Hooks, clock: Clock
    ) -> None:
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._ledger = ledger
        self._hooks = hooks
        self._clock = clock
        self._began = clock.now()
        self._news = {kind: anyio.Event() for kind in NoticeKind}
        self._sent: dict[NoticeKind, deque[float]] = {kind: deque() for kind in NoticeKind}
        self._budgets: dict[str, float] = {}
        outbox.note_ends(self.wanted, self.wake)

    def wanted(self) -> Collection[NoticeKind]:
        """Return the kinds of notices that a person wants now."""
        if self._settings.desktop_notices:
            return tuple(NoticeKind)
        return tuple(kind for kind in NoticeKind if self._hook(kind))

    def wake(self) -> None:
        """Look into the outbox soon."""
        for event in self._news.values():
            event.set()

    async def tell(self, event: NoticeEvent, body: Mapping[str, Any], *, notice_id: str | None = None) -> None:
        """Add a notice that calls for attention, where a person wants such.

        Args:
            event: What happened.
            body: What the message says besides: at least `id` and `next`, the command for a person.
            notice_id: The same for the same notice, or None for a new one.
        """
        if NoticeKind.ATTENTION not in self.wanted():
            return
        notice = Notice(
            id=notice_id or new_notice_id(),
            kind=NoticeKind.ATTENTION,
            body={"event": event.value, **body},
            at=self._clock.now(),
        )
        try:
            await self._outbox.add_notice(notice)
        except StoreError as error:
            logger.warning("the notice %s could not be kept: %s", event.value, error)
            return
        self.wake()

    async def permission(self, request: PermissionRequest) -> None:
        """Tell that a job waits for a permission, or take that back once the request is answered."""
        notice_id = f"n{request.id}"
        if not request.answered.is_set():
            body = {
                **about(request.job),
                "requestId": request.id,
                "tool": shortened(request.tool, most=100),
                "input": shortened(_arguments(request.arguments), request.secrets),
                "until": utc(self._clock.now() + self._settings.permission_seconds),
                "next": f"claude-jobs approve {request.id}",
            }
            await self.tell(NoticeEvent.PERMISSION_WANTED, body, notice_id=notice_id)
        elif NoticeKind.ATTENTION in self.wanted():
            try:
                await self._outbox.remove_notices([notice_id])
            except StoreError as error:
                logger.warning("a notice could not be taken back: %s", error)

    async def undelivered(self) -> list[str]:
        """Return a line for a person about each kind of which notices could not be delivered."""
        return [str(one) for one in await self._outbox.undelivered_notices()]

    async def deliver(self, kind: NoticeKind) -> None:
        """Deliver the notices of a kind, for as long as the engine runs."""
        while True:
            self._news[kind] = anyio.Event()
            seconds = await self._step(kind)
            with anyio.move_on_after(seconds):
                await self._news[kind].wait()

    async def _step(self, kind: NoticeKind) -> float | None:
        """Send at most one message; return the seconds until the next step, or None where there is nothing to do."""
        waiting = await self._outbox.notices(kind, limit=_BATCH)
        if not waiting:
            return None
        if kind not in self.wanted():
            await self._outbox.remove_notices([notice.id for notice in waiting])
            return 0.0
        now = self._clock.now()
        # One that is due later than it can be was put off before the clock was set back.
        due = [notice for notice in waiting if not 0 < notice.due_at - now <= _seconds_until_next(notice.attempts)]
        if not due:
            return waiting[0].due_at - now
        free, seconds = self._free(kind)
        if not free:
            return seconds
        group = due if free == 1 else due[:1]
        message = await self._message(group)
        if message is None:
            await self._outbox.remove_notices([notice.id for notice in group])
        else:
            self._sent[kind].append(self._clock.monotonic())
            await self._send(kind, group, message)
        return 0.0

    def _free(self, kind: NoticeKind) -> tuple[int, float]:
        """Return how many messages may be sent now, and the seconds until there is one more."""
        sent, now = self._sent[kind], self._clock.monotonic()
        while sent and sent[0] <= now - _MINUTE:
            sent.popleft()
        return MOST_A_MINUTE - len(sent), sent[0] + _MINUTE - now if sent else 0.0

    async def _message(self, group: Sequence[Notice]) -> Mapping[str, Any] | None:
        told = [message for notice in group if (message := await self._current(notice)) is not None]
        if len(told) <= 1:
            return told[0] if told else None
        return several(told)

    async def _current(self, notice: Notice) -> Mapping[str, Any] | None:
        """Return a notice's message, or None where there is nothing to tell any more."""
        match notice.body["event"]:
            case NoticeEvent.PERMISSION_WANTED if notice.at < self._began:
                # Of an engine before: its job asks again, and that is another request.
                return None
            case NoticeEvent.BUDGET_USED_UP if "reason" in notice.body:
                return await self._of_budget(notice)
        return notice.message

    async def _of_budget(self, notice: Notice) -> Mapping[str, Any] | None:
        """Return the message about the budget for which a job ended, or None where that was told of another job."""
        message = notice.message
        job = await self._store.job(notice.body["id"])
        owner = None if job is None else self._ledger.budget_exhausted(self._ledger.owners(job))
        if owner is not None and owner.usd is not None:
            message |= {
                "id": owner.path.rpartition("/")[2],
                "budgetUsd": owner.usd,
                "because": f"the ${owner.usd:.2f} of {owner.name} are used up",
                **sums((await self._store.rollup_under(owner.path)).usage),
            }
        now = self._clock.monotonic()
        # Where the last one was not delivered, this is its next try.
        told = (
            notice.attempts == 0 and now - self._budgets.get(message["id"], -SAME_BUDGET_SECONDS) < SAME_BUDGET_SECONDS
        )
        self._budgets = {name: at for name, at in self._budgets.items() if now - at < SAME_BUDGET_SECONDS}
        self._budgets[message["id"]] = now
        return None if told else message

    async def _send(self, kind: NoticeKind, group: Sequence[Notice], message: Mapping[str, Any]) -> None:
        # Shown once: a desktop that nobody sees needs no further try.
        is_first = not any(notice.attempts for notice in group)
        problem = await self._hooks.show(message) if is_first and self._settings.desktop_notices else None
        if problem is not None:
            logger.warning("a notice could not be shown on the desktop: %s", problem)
        hook = self._hook(kind)
        problem = None if hook is None else await self._hooks.deliver(hook, message)
        if problem is None:
            await self._outbox.remove_notices([notice.id for notice in group])
            return
        now = self._clock.now()
        failed = [_failed(notice, problem, now) for notice in group]
        await self._outbox.fail_notices(failed, at=now)
        for one in failed:
            then = "it is given up" if one.given_up else f"it is tried again in {one.due_at - now:g} s"
            logger.warning("on_%s, try %d of notice %s failed: %s; %s", kind, one.attempts, one.id, problem, then)

    def _hook(self, kind: NoticeKind) -> str | None:
        return self._settings.on_end if kind is NoticeKind.END else self._settings.on_attention


def several(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the one message into which several are put together; the same for the same ones."""
    ids = [str(message["noticeId"]) for message in messages]
    statuses = Counter(message["status"] for message in messages if "status" in message)
    return {
        "noticeId": "n" + hashlib.sha256("".join(sorted(ids)).encode()).hexdigest()[:16],
        "at": messages[-1]["at"],
        "event": NoticeEvent.SEVERAL.value,
        "id": "",
        "count": len(messages),
        "events": dict(Counter(message["event"] for message in messages)),
        "statuses": dict(statuses),
        "costUsd": round(sum(number(message.get("costUsd")) or 0.0 for message in messages), 6),
        "ids": [message["id"] for message in messages[:_NAMED]],
        "noticeIds": ids[:_NAMED],
        "next": "claude-jobs list",
    }


def _failed(notice: Notice, problem: str, now: float) -> FailedNotice:
    attempts = notice.attempts + 1
    due_at, given_up = now + _seconds_until_next(attempts), attempts >= MOST_TRIES
    return FailedNotice(id=notice.id, attempts=attempts, due_at=due_at, error=problem, given_up=given_up)


def _seconds_until_next(attempts: int) -> float:
    """Return the seconds between the last one of so many tries and the next one."""
    return min(FIRST_RETRY_SECONDS * 2 ** (attempts - 1), LONGEST_RETRY_SECONDS) if attempts else 0.0


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in arguments.items())
