"""The engine's state of a connection and of a call: its services, its caller, and its open requests, limited.

Without the MCP SDK: it is needed before the SDK is loaded.
"""

import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from jobs.activity import Activity
from jobs.claude.command import SESSION
from jobs.client_context import ClientContext
from jobs.errors import BadInputError, JobsError
from jobs.event_bus import JobEventBus
from jobs.ids import hash_token
from jobs.limit_changes import LimitChanges
from jobs.manager import EnhancedJobManager
from jobs.model import Job
from jobs.notices.notifier import Notifier
from jobs.pausing import PauseService
from jobs.permissions.approvals import Approvals
from jobs.permissions.visibility import JobSelection, Visibility
from jobs.ports import Store
from jobs.processes.process_table import ProcessIdentity
from jobs.recursion_manager import RecursionManager
from jobs.sessions import SessionService
from jobs.settings import Settings, TreeSettings
from jobs.waiting import OnProgress, Waiting, WaitReport, plain_wait
from jobs.waiting_for import AttemptWait, Wait
from server.client.wire import Hello
from server.mcp import replies
from server.mcp.job_now import JobNow
from server.mcp.result_pages import Results

RequestId = int | str

MAX_WORKING: Final = 32
"""Most requests of one connection that are handled or whose reply is not sent yet; waiting calls do not count."""

MAX_OPEN: Final = 4096
"""Most unanswered requests of one connection, the waiting ones included: about 31 KB each (measured)."""

MAX_OPEN_BYTES: Final = 32 * 1024 * 1024
"""Most bytes of the unanswered requests: two of the longest messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services that handlers call; built once by the engine.

    Args:
        settings: The engine's settings.
        for_tree: Returns the settings that a tree takes from its client, given the variables that the client sent.
        store: Where trees are kept.
        manager: Admits, runs and cancels.
        sessions: Continues sessions and retries jobs.
        recursion: Slots, parking and statistics.
        pausing: Pauses and resumes.
        waiting: Waits.
        event_bus: Where changes of jobs are announced.
        start_soon: Starts a coroutine function in the engine's task group.
        transcript: Path of the output file of a job's attempt.
        approvals: Permission requests of jobs.
        activity_of: Returns what a job does now, or None where no attempt of it runs.
        wait_of: Returns what a job waits for, or None where it works or is over.
        waits_of: Returns the waits of the running attempt of a job so far.
        now: Returns seconds since the epoch.
        resident: Returns the bytes of memory that the engine holds.
        in_use: Returns which `claude` and which accounts jobs use, with nothing secret; blocks.
        end_pauses: Forgets usage limits, so that the next engine keeps none.
        limits: Reads and changes limits of trees.
        notifier: Tells a person what needs attention.
        context_of: Returns the client context of a tree, or raises `StoreError` where the tree is over.
        own_commands: Hooks that run: the engine is their parent, and they are the person's all the same.
    """

    settings: Settings
    for_tree: Callable[[Mapping[str, str] | None], TreeSettings]
    store: Store
    manager: EnhancedJobManager
    sessions: SessionService
    recursion: RecursionManager
    pausing: PauseService
    waiting: Waiting
    event_bus: JobEventBus
    start_soon: Callable[..., object]
    transcript: Callable[[Job], str]
    approvals: Approvals
    activity_of: Callable[[Job], Activity | None]
    wait_of: Callable[[Job], Wait | None]
    waits_of: Callable[[str], Sequence[AttemptWait]]
    now: Callable[[], float]
    resident: Callable[[], int]
    in_use: Callable[[], Mapping[str, Any]]
    end_pauses: Callable[[], None]
    limits: LimitChanges
    notifier: Notifier
    context_of: Callable[[str], ClientContext]
    own_commands: Collection[ProcessIdentity]

    def now_of(self, job: Job) -> JobNow:
        """Return a job as it is now."""
        return JobNow(job=job, activity=self.activity_of(job), wait=self.wait_of(job), at=self.now())


class UnknownTokenError(JobsError):
    """A connection brought a token that no running job holds."""

    def __init__(self) -> None:
        super().__init__("This job's token is not valid: the job is over. End this process.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The other end of a connection.

    Args:
        client_context: The client's directory and environment, for trees that it begins.
        token_hash: Hash of the token it brought, or None for a person or a program outside every tree.
        settings: The client's variables that name settings, or None where it sent none.
    """

    client_context: ClientContext
    token_hash: str | None = None
    settings: Mapping[str, str] | None = None


def caller_of(hello: Hello) -> Caller:
    """Return the caller that a hello describes.

    Raises:
        UnknownTokenError: Its token has no valid form.
        BadInputError: Its directory is not valid UTF-8.
    """
    return Caller(client_context=_client_context(hello), token_hash=_token_hash(hello), settings=hello.settings)


async def calling_job(store: Store, caller: Caller) -> Job | None:
    """Return the calling job, or None for a caller outside every tree.

    Raises:
        UnknownTokenError: The job is over, so its token is no longer good.
    """
    if caller.token_hash is None:
        return None
    job = await store.caller(caller.token_hash)
    if job is None:
        raise UnknownTokenError
    return job


def _token_hash(hello: Hello) -> str | None:
    if not hello.token:
        return None
    if not hello.token.isascii():
        raise UnknownTokenError
    return hash_token(hello.token)


def _client_context(hello: Hello) -> ClientContext:
    """Return the client context of a client's trees, with only text that the database and a process can take.

    Variables of the client's own session are left out, even where the client names them.

    Raises:
        BadInputError: Its directory has a name that is not UTF-8.
    """
    try:
        hello.cwd.encode()
    except UnicodeEncodeError:
        raise BadInputError(
            "cwd", "the working directory's name is not UTF-8", "Start the client in a directory with another name."
        ) from None
    client = (hello.session or hello.client or "").encode("utf-8", "replace").decode()
    env = {name: value for name, value in hello.env.items() if _may_pass(name, value)}
    return ClientContext(cwd=hello.cwd, env=env, client=client or None, umask=hello.umask)


def _may_pass(name: str, value: str) -> bool:
    if name.startswith(SESSION):
        return False
    try:
        os.fsencode(name + value)
    except UnicodeEncodeError:
        return False
    return True


class FlowControl:
    """Counts the open requests of one connection and holds back those that are too many.

    A client that sends and does not read gets no further than `MAX_WORKING` replies: its other requests are not handled
    before it has read. A call that waits for jobs or for a person leaves room for others meanwhile, and takes
    its place again before it builds its reply.
    """

    def __init__(self) -> None:
        self._working = 0
        self._line: deque[anyio.Event] = deque()
        self._sizes: dict[RequestId, deque[int]] = {}
        self._open = 0
        self._bytes = 0
        self._one_ended = anyio.Event()

    async def begin(self, request_id: RequestId, size: int) -> None:
        """Wait for room and count a request as open.

        Args:
            request_id: Its id; an id that is in use already is counted separately.
            size: Its bytes.
        """
        while self._open >= MAX_OPEN or (self._open and self._bytes + size > MAX_OPEN_BYTES):
            self._one_ended = anyio.Event()
            await self._one_ended.wait()
        await self._enter()
        self._open += 1
        self._bytes += size
        self._sizes.setdefault(request_id, deque()).append(size)

    def end(self, request_id: RequestId) -> None:
        """Count a request as closed: its reply has been sent, or it gets none."""
        sizes = self._sizes.get(request_id)
        if sizes is None:
            return
        self._bytes -= sizes.popleft()
        if not sizes:
            del self._sizes[request_id]
        self._open -= 1
        self._leave()
        self._one_ended.set()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Leave room for other requests while the block runs, in which the call only waits."""
        self._leave()
        entered = False
        try:
            yield
            await self._enter()
            entered = True
        finally:
            if not entered:
                # The call was cancelled or failed: the rest of it needs no room.
                self._working += 1

    async def _enter(self) -> None:
        if self._working < MAX_WORKING and not self._line:
            self._working += 1
            return
        turn = anyio.Event()
        self._line.append(turn)
        entered = False
        try:
            await turn.wait()
            entered = True
        finally:
            if not entered:
                # Cancelled before its turn, or at that moment.
                self._leave() if turn.is_set() else self._line.remove(turn)

    def _leave(self) -> None:
        self._working -= 1
        while self._line and self._working < MAX_WORKING:
            self._line.popleft().set()
            self._working += 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Connection:
    """One client's connection.

    Args:
        services: What handlers call.
        caller: The other end of the connection.
        flow: Counts its open requests.
    """

    services: Services
    caller: Caller
    flow: FlowControl = field(default_factory=FlowControl)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a tool.

    Args:
        services: What handlers call.
        job: The calling job, or None for a caller outside every tree.
        client_context: The caller's directory and environment.
        tool_use_id: The client's id of this call, or None; a submission is idempotent under it.
        on_progress: Reports where a wait is, or None where the caller does not ask for it.
        wait_wrapper: Runs a wait, given it and a reader of its jobs; it may show permission forms meanwhile.
        flow: Counts the open requests of the caller's connection.
        whole: Replies are for a program, which cuts them itself.
    """

    services: Services
    job: Job | None
    client_context: ClientContext
    tool_use_id: str | None
    on_progress: OnProgress | None
    wait_wrapper: Callable[
        [Callable[[], Awaitable[WaitReport]], Callable[[], Awaitable[JobSelection]]], Awaitable[WaitReport]
    ] = plain_wait
    flow: FlowControl = field(default_factory=FlowControl)
    whole: bool = False

    @property
    def visibility(self) -> Visibility:
        """What this caller may see."""
        return Visibility(self.services.store, self.job)

    @property
    def results(self) -> Results:
        """The reader of result pages."""
        return Results(store=self.services.store, transcript=self.services.transcript, waits=self._why_it_waits)

    def _why_it_waits(self, job: Job) -> str:
        wait = self.services.wait_of(job)
        paused = replies.paused(self.services.recursion.all_pauses((job.root_id,))).get("paused", "")
        return paused or (f"waiting for {wait.what.words}" if wait else "")
