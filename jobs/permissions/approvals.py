"""Permission requests of running jobs: asked by the CLI, answered by a parent job or a person."""

import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import anyio

from jobs.activity import described_call, shown
from jobs.errors import NotFoundError
from jobs.ids import contains
from jobs.model import LIVE, Job
from jobs.permissions.rights import permits_call, rights_of

logger = logging.getLogger(__name__)

Answerer = Literal["deny", "parent", "person"]

MOST_OPEN = 16
"""Requests of one job that may be open at once; the CLI asks for one call after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Decision on a request.

    Args:
        allowed: The call may be made.
        why: For the model of the job that asked: why not.
    """

    allowed: bool
    why: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class PermissionRequest:
    """A tool call that waits for permission.

    Args:
        id: "p" and random digits, so that no answer to a request of an earlier engine meets another one.
        job: The job that wants to make the call.
        tool: The tool.
        arguments: Its arguments.
        asked_at: Seconds on the monotonic clock.
        secrets: Values in the arguments that are never shown.
        shown: Ids of the jobs that were shown it.
        dismissed: A person was shown it and did not want to decide there.
        answered: Set once it is no longer open.
        decision: The decision, from then on.
    """

    id: str
    job: Job
    tool: str
    arguments: Mapping[str, Any]
    asked_at: float
    secrets: Collection[str] = ()
    shown: set[str] = field(default_factory=set)
    dismissed: bool = False
    answered: anyio.Event = field(default_factory=anyio.Event)
    decision: Decision = Decision(
        allowed=False, why="Nobody answered in time, so it is denied. Go on without this call."
    )

    @property
    def call(self) -> str:
        """The call in one short line, without secrets."""
        return shown(described_call(self.tool, self.arguments, self.job.spec.cwd), self.secrets)


class NoteWait(Protocol):
    """Notes whether a job waits for an answer."""

    async def __call__(self, job: Job, /, *, waits: bool) -> None:
        """Note it."""
        ...


async def _note_nothing(_: Job, /, *, waits: bool) -> None:
    """Note nothing."""


class Approvals:
    """The open requests, kept in memory: what was open when the engine ended is asked of the next one, under a new id.

    Args:
        answerer: Who answers.
        seconds: Seconds after which a request is denied.
        monotonic: Returns seconds that never jump.
        secrets_of: Returns the secret values that the jobs of a tree know, by the id of its root.
        note: Called with a job whenever it begins to wait for an answer, and once it waits for none any more.
        on_change: Called with each request when it is made, and once it is answered; it must not wait.
    """

    def __init__(
        self,
        answerer: Answerer,
        seconds: float,
        monotonic: Callable[[], float],
        secrets_of: Callable[[str], Collection[str]] = lambda _: (),
        note: NoteWait = _note_nothing,
        on_change: Callable[[PermissionRequest], object] = lambda _: None,
    ) -> None:
        self._answerer = answerer
        self._seconds = seconds
        self._monotonic = monotonic
        self._secrets_of = secrets_of
        self._note = note
        self._on_change = on_change
        self._open: dict[str, PermissionRequest] = {}
        self._listeners: dict[anyio.CancelScope, Callable[[PermissionRequest], bool]] = {}
        self._news = anyio.Event()

    @property
    def answerer(self) -> Answerer:
        """Who answers."""
        return self._answerer

    async def ask(
        self, job: Job, tool: str, arguments: Mapping[str, Any], *, above: Sequence[Job] | None = None
    ) -> Decision:
        """Wait until the request is decided, at most the set time, and return the decision.

        Args:
            job: The job that asks.
            tool: The tool.
            arguments: Its arguments.
            above: The jobs above it: where none of them may decide and no client listens, the answer is no at
                once. None where they are not known.
        """
        if self._answerer == "deny":
            return Decision(allowed=False, why="This call is not permitted, and nobody can be asked. Go on without it.")
        if sum(request.job.id == job.id for request in self._open.values()) >= MOST_OPEN:
            return Decision(allowed=False, why="Too many of this job's requests are open. Go on without this call.")
        request = PermissionRequest(
            id=f"p{secrets.token_hex(4)}",
            job=job,
            tool=tool,
            arguments=arguments,
            asked_at=self._monotonic(),
            secrets=self._secrets_of(job.root_id),
        )
        if above is not None and not self._can_be_heard(request, above):
            return Decision(allowed=False, why="No live job above this one may permit this call. Go on without it.")
        self._add(request)
        logger.info("job %s waits for permission %s to use %s", job.id, request.id, tool)
        try:
            await self._note(job, waits=True)
            with anyio.move_on_after(self._seconds):
                await request.answered.wait()
        finally:
            self._open.pop(request.id, None)
            request.answered.set()
            self._on_change(request)
            if job.id not in self.waiting():
                with anyio.CancelScope(shield=True):
                    await self._note(job, waits=False)
        return request.decision

    def open_to(self, caller: Job | None) -> Sequence[PermissionRequest]:
        """Return the requests that a caller may answer, the oldest first.

        Args:
            caller: A job, or None for a person: a person may answer all of them.
        """
        return [request for request in self._open.values() if self._may_answer(caller, request)]

    def mark_shown(
        self, caller: Job | None, paths: Iterable[str] | None = None, *, client: str | None = None
    ) -> Sequence[PermissionRequest]:
        """Return the requests that a caller is to be shown unasked, and mark them as shown to a job.

        Where only a person decides, none is shown: a model would try to answer it.

        Args:
            caller: A job, or None for a caller outside every tree.
            paths: Where the subtrees lie whose requests are meant, or None for all that the caller may answer.
            client: Name of a client outside every tree, or None.
        """
        requests = self.open_to(caller) if self._answerer == "parent" else ()
        if paths is not None:
            requests = _within(paths, requests)
        for request in requests:
            request.shown.add(_hearer(caller, client))
        return requests

    def to_show(self, paths: Iterable[str]) -> Sequence[PermissionRequest]:
        """Return the requests to show a person who waits for these subtrees: none where a parent decides.

        Args:
            paths: Where the subtrees lie.
        """
        if self._answerer != "person":
            return ()
        return _within(paths, [one for one in self._open.values() if not one.dismissed])

    async def next_to_show(self, paths: Iterable[str]) -> PermissionRequest:
        """Wait until there is a request to show a person who waits for these subtrees, and return it."""
        asked = tuple(paths)
        while not (found := self.to_show(asked)):
            await self._news.wait()
        return found[0]

    def waiting(self) -> frozenset[str]:
        """Return the ids of the jobs that wait for permission."""
        return frozenset(request.job.id for request in self._open.values())

    def open_of(self, job_id: str) -> PermissionRequest | None:
        """Return the oldest open request of a job, or None."""
        return next((one for one in self._open.values() if one.job.id == job_id), None)

    def seconds_left(self, request: PermissionRequest) -> float:
        """Return the seconds after which a request is denied."""
        return request.asked_at + self._seconds - self._monotonic()

    def answer(self, request_id: str, caller: Job | None, *, allow: bool) -> PermissionRequest:
        """Decide a request.

        Raises:
            NotFoundError: It is not open, or not the caller's to answer.
        """
        request = self._open.get(request_id)
        if request is None or not self._may_answer(caller, request):
            raise NotFoundError("Request", request_id)
        who = "the person" if caller is None else f"job {caller.id}"
        request.decision = Decision(allowed=allow, why="" if allow else f"Denied by {who}. Go on without this call.")
        request.answered.set()
        del self._open[request_id]
        logger.info("%s %s %s", who, "allows" if allow else "denies", request_id)
        return request

    @contextmanager
    def wake_on_new(
        self, caller: Job | None, paths: Iterable[str] | None = None, *, client: str | None = None
    ) -> Iterator[anyio.CancelScope]:
        """Cancel what runs inside as soon as there is a request that the caller may answer and was not shown.

        Args:
            caller: A job, which is woken by everything below it, or None for a caller outside every tree.
            paths: Where the subtrees lie that a caller outside every tree waits for; without them it is never woken.
            client: Name of a client outside every tree, or None.
        """
        asked = () if paths is None else tuple(paths)

        def is_news(request: PermissionRequest) -> bool:
            if self._answerer != "parent" or _hearer(caller, client) in request.shown:
                return False
            return self._may_answer(caller, request) if caller is not None else bool(_within(asked, [request]))

        with anyio.CancelScope() as scope:
            if any(map(is_news, self._open.values())):
                scope.cancel()
            else:
                self._listeners[scope] = is_news
            try:
                yield scope
            finally:
                self._listeners.pop(scope, None)

    def _can_be_heard(self, request: PermissionRequest, above: Iterable[Job]) -> bool:
        """Tell whether an answer is possible: a root job's client may call at any time, others need a listener."""
        if self._answerer != "parent" or request.job.parent_id is None:
            return True
        if any(one.status in LIVE and self._may_answer(one, request) for one in above):
            return True
        return any(is_news(request) for is_news in self._listeners.values())

    def _add(self, request: PermissionRequest) -> None:
        self._open[request.id] = request
        self._on_change(request)
        self._news.set()
        self._news = anyio.Event()
        for scope, is_news in self._listeners.items():
            if is_news(request):
                scope.cancel()

    def _may_answer(self, caller: Job | None, request: PermissionRequest) -> bool:
        """Tell whether a caller may answer: a person always, a job for those below it and where it may do it itself."""
        if caller is None:
            return True
        below = contains(caller.path, request.job.path) and caller.id != request.job.id
        own = rights_of(caller.spec)
        return self._answerer == "parent" and below and permits_call(own, request.tool, request.arguments)


def _hearer(caller: Job | None, client: str | None) -> str:
    return caller.id if caller is not None else f"client {client}"


def _within(paths: Iterable[str], requests: Iterable[PermissionRequest]) -> Sequence[PermissionRequest]:
    asked = tuple(paths)
    return [one for one in requests if any(contains(path, one.job.path) for path in asked)]
