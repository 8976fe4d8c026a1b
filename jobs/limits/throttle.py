"""Throttle: how many jobs may run at once now, in all and for each account; and the file that keeps usage limits."""

import logging
import os
import random
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
from pydantic import TypeAdapter, ValidationError

from jobs.limits.account_limits import AccountLimits, Pause, UsageLimit
from jobs.ports import Clock
from jobs.waiting_for import WaitingFor

LOOK_SECONDS = 0.25
"""Seconds for which a reading of free memory is used."""

POKE_SECONDS = 0.05
"""Seconds between two looks whether memory is free again."""

LONGEST_LOOK_SECONDS = 1.0
"""Seconds between two looks whether a pause is over."""

_MOST_IDLE = 64
"""Accounts in their initial state that are kept all the same."""


class Throttle:
    """The limits of the machine, and those of each account.

    An account is named by the digest that `jobs.claude.account` makes, or by an empty text where none is known.

    Args:
        max_running: The machine's cap.
        max_starting: Most jobs whose process has been launched and has not yet said anything.
        free_memory: Returns the bytes of memory that are available.
        memory_floor: Bytes of free memory below which nothing is launched, unless nothing runs.
        clock: Time.
        jitter: Returns a number from 0 to 1.
        uses_extra: Tells whether jobs use what is paid for beyond a usage limit, now.
    """

    def __init__(
        self,
        *,
        max_running: int,
        max_starting: int,
        free_memory: Callable[[], int],
        memory_floor: int,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        uses_extra: Callable[[], bool] = lambda: False,
    ) -> None:
        self._max_running = max_running
        self._max_starting = max_starting
        self._free_memory = free_memory
        self._memory_floor = memory_floor
        self._clock = clock
        self._jitter = jitter
        self._uses_extra = uses_extra
        self._starting: set[str] = set()
        self._memory_seen: tuple[float, bool] = (-LOOK_SECONDS, True)
        self._observers: list[Callable[[], None]] = []
        self._accounts: dict[str, AccountLimits] = {}
        self._machine = self._new_limits()

    @property
    def pause(self) -> Pause | None:
        """Why nothing is launched on the whole machine, and until when; None where things go on."""
        return self._machine.pause

    @property
    def window(self) -> int:
        """How many jobs of the account with the narrowest window may run at once."""
        return min((limits.window for limits in self._accounts.values()), default=self._max_running)

    def of(self, account: str) -> AccountLimits:
        """Return the limits of an account."""
        if account not in self._accounts:
            self._drop_idle()
            self._accounts[account] = self._new_limits()
        return self._accounts[account]

    def pause_of(self, account: str) -> Pause | None:
        """Return why nothing of an account is launched, and until when; None where things go on."""
        limits = self._accounts.get(account)
        return self.pause or (limits.pause if limits else None)

    def pauses(self) -> Mapping[str, Pause]:
        """Return the pause of each account that has one."""
        return {name: pause for name, limits in self._accounts.items() if (pause := limits.pause) is not None}

    def usage_limits(self) -> Iterator[tuple[str, UsageLimit]]:
        """Yield each account with each usage limit of it that holds."""
        for name, limits in self._accounts.items():
            for limit in limits.limits:
                yield name, limit

    def observe(self, observer: Callable[[], None]) -> None:
        """Call something whenever a usage limit was noted or lifted; it must not wait."""
        self._observers.append(observer)

    def admits(self, running: int) -> bool:
        """Tell whether the machine has room for one more launch while this number of jobs runs."""
        return (
            running < self._max_running
            and self.pause is None
            and len(self._starting) < self._max_starting
            and (running == 0 or self._memory_suffices())
        )

    def admits_of(self, account: str, running: int) -> bool:
        """Tell whether one more job of an account may be launched while this number of them runs."""
        limits = self._accounts.get(account)
        return limits is None or limits.admits(running)

    def held_back_by(self, account: str, *, running: int, of_account: int) -> WaitingFor:
        """Return what a queued job of an account waits for: a slot, where nothing else delays it.

        Args:
            account: The account.
            running: How many jobs run.
            of_account: How many of them are of the account.
        """
        limits = self._accounts.get(account)
        if self.pause is not None:
            return WaitingFor.PAUSE
        if limits is not None and (limits.limits or limits.window <= of_account < self._max_running):
            return WaitingFor.LIMIT
        if limits is not None and limits.pause is not None:
            return WaitingFor.PAUSE
        return WaitingFor.SLOT if running == 0 or self._memory_suffices() else WaitingFor.MEMORY

    def look_again_in(self) -> float:
        """Return the seconds after which the gate may have opened by itself."""
        if self.pause is None and (not self._memory_suffices() or len(self._starting) >= self._max_starting):
            return POKE_SECONDS
        ends = [pause.until - self._clock.now() for pause in (self.pause, *self.pauses().values()) if pause is not None]
        return max(POKE_SECONDS, min([LONGEST_LOOK_SECONDS, *ends]))

    def launching(self, job_id: str) -> None:
        """Note that a job's process is being launched."""
        self._starting.add(job_id)

    def started(self, job_id: str) -> None:
        """Note that a job's process has spoken or is over."""
        self._starting.discard(job_id)

    def refused(self, because: str) -> None:
        """The system refused to start a process: launch nothing for a moment, longer each time."""
        self._machine.back_off(because)

    def launched(self) -> None:
        """Note that a process was started and did its work."""
        self._machine.on_success()

    def _new_limits(self) -> AccountLimits:
        return AccountLimits(self._max_running, self._clock, self._jitter, self._tell, self._uses_extra)

    def _tell(self) -> None:
        for observer in self._observers:
            observer()

    def _drop_idle(self) -> None:
        if len(self._accounts) >= _MOST_IDLE:
            for name in [name for name, limits in self._accounts.items() if limits.is_idle]:
                del self._accounts[name]

    def _memory_suffices(self) -> bool:
        seen_at, suffices = self._memory_seen
        now = self._clock.monotonic()
        if now - seen_at >= LOOK_SECONDS:
            suffices = self._free_memory() >= self._memory_floor
            self._memory_seen = (now, suffices)
        return suffices


logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024
"""Bytes above which the file is not ours."""

_LIMITS = TypeAdapter(dict[str, list[UsageLimit]])


class PauseFile:
    """Writes the limits of a throttle to a file of mode 0600 whenever they change; accounts are in it by digest alone.

    Args:
        path: The file.
        throttle: Whose limits they are.
    """

    def __init__(self, path: Path, throttle: Throttle) -> None:
        self._path = path
        self._throttle = throttle
        self._changed = anyio.Event()
        self._is_closed = False

    def restore(self) -> None:
        """Take over what an earlier engine kept. Blocks for a short read."""
        for account, limit in _read(self._path):
            self._throttle.of(account).restore(limit)
        self._throttle.observe(self._note)

    async def keep(self) -> None:
        """Write each change, for as long as the engine runs."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            if not self._is_closed:
                await anyio.to_thread.run_sync(self._write, self._text())
            if self._is_closed:
                # Changes that came while it was being written.
                self._remove()

    def end(self) -> None:
        """Empty the file: the person who asked the engine to stop wants jobs to be tried again."""
        self._is_closed = True
        self._changed.set()
        # In the loop: a client that is told that the engine stops must not find the file there.
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _note(self) -> None:
        self._changed.set()

    def _text(self) -> bytes:
        limits: dict[str, list[UsageLimit]] = {}
        for account, limit in self._throttle.usage_limits():
            if limit.is_known:
                limits.setdefault(account, []).append(limit)
        return _LIMITS.dump_json(limits) if limits else b""

    def _write(self, text: bytes) -> None:
        draft = self._path.with_suffix(".new")
        try:
            if not text or len(text) > MOST_BYTES:
                self._path.unlink(missing_ok=True)
                return
            draft.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(text + b"\n")
            if not self._is_closed:
                draft.replace(self._path)
        except OSError:
            # The next engine then finds the limit by a job that meets it.
            logger.warning("usage limits could not be kept in %s", self._path, exc_info=True)


def _read(path: Path) -> Iterator[tuple[str, UsageLimit]]:
    try:
        # Not blocking: a named pipe in the file's place must not hold the engine.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return
            text = file.read(MOST_BYTES + 1)
        found = _LIMITS.validate_json(text) if len(text) <= MOST_BYTES else {}
    except (OSError, ValidationError):
        return
    for account, limits in found.items():
        for limit in limits:
            yield account, limit
