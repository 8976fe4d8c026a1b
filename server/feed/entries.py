"""What the index of the job feed holds: jobs and trees with their finished rows, and the order of their changes."""

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.activity import Activity
from jobs.model import Job, Tree
from jobs.paused import EndedPause
from jobs.waiting_for import Wait
from server.feed.rows import bytes_of
from server.feed.sums import SumNode, TreeSums

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class Rendered:
    """A finished row: watchers of the same jobs are sent the same row, so it is made once.

    It keeps one form of the row: a tree of 10,000 jobs would take 40 MB in both.

    Args:
        row: The row; nobody changes it.
    """

    __slots__ = ("_row", "_text")

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row: Mapping[str, Any] | None = row
        self._text = ""

    @property
    def row(self) -> Mapping[str, Any]:
        """The row."""
        row: Mapping[str, Any] = json.loads(self._text) if self._row is None else self._row
        return row

    @property
    def text(self) -> str:
        """The row as JSON in ASCII, in one line."""
        if self._row is not None:
            self._text, self._row = _ENCODER.encode(self._row), None
        return self._text

    def about_bytes(self) -> int:
        """Return about how many bytes the row has as JSON; where that is not made yet, rather too many than too few."""
        return len(self._text) if self._row is None else bytes_of(self._row)


@dataclass(frozen=True, slots=True)
class Said:
    """What a row says of a job that nothing announces.

    Args:
        wait: What the job waits for, or None.
        is_paused: Whether a person or a job has paused it.
    """

    wait: Wait | None = None
    is_paused: bool = False

    def is_like(self, other: "Said") -> bool:
        """Tell whether a person reads the same in both."""
        return self == other or _in_seconds(self) == _in_seconds(other)


def _in_seconds(said: Said) -> tuple[object, ...]:
    wait = said.wait
    if wait is None:
        return (None, said.is_paused)
    # The end of a wait for a permission is computed each time, and differs by some microseconds.
    return (wait.what, wait.because, wait.until and round(wait.until), said.is_paused)


@dataclass(slots=True, eq=False)
class Entry:
    """A job in the index, or a tree of which only its own row changed, or one that was dropped.

    Attributes:
        root_id: Its tree.
        job: The job as it was last announced, or None for a tree.
        is_gone: Whether it says that the tree was dropped.
        node: Sums of what is below the job.
        activity: What the job's running attempt did when it was last announced, or None.
        said: What its rows say that nothing announces, or None where no row was made since it was announced.
        attempts: Rows of the job's attempts that are over, as far as they were read.
        ended_attempts: Up to which number they were read.
        short: Its short row, or None where that has to be made.
        detailed: Its detailed row, or None where that has to be made.
    """

    root_id: str
    job: Job | None = None
    is_gone: bool = False
    node: SumNode | None = None
    activity: Activity | None = None
    said: Said | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    ended_attempts: int = 0
    short: Rendered | None = None
    detailed: Rendered | None = None


class ChangeOrder:
    """Entries in the order of their last change, each with the version that the change had."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, int] = OrderedDict()

    def put(self, key: str, version: int) -> None:
        """Note a change; its version is higher than all before it."""
        self._versions[key] = version
        self._versions.move_to_end(key)

    def drop(self, key: str) -> int:
        """Forget an entry and return the version of its last change; 0 where it is not there."""
        return self._versions.pop(key, 0)

    def newest_first(self, version: int) -> Iterator[tuple[str, int]]:
        """Yield the entries that changed after a version, with theirs; nothing may change meanwhile."""
        for key, changed in reversed(self._versions.items()):
            if changed <= version:
                return
            yield key, changed


@dataclass(slots=True, eq=False)
class KnownTree:
    """A tree in the index.

    Attributes:
        sums: Sums over its jobs.
        version: That of its last change.
        jobs: Ids of its jobs.
        live: Ids of those that are queued or running.
        was_asked_for: It was read because a watcher named it.
        tree: The tree as the rows have it.
        is_paused: Whether the rows say that it is paused.
        short: Its short row of `made_at`, or None where that has to be made.
        detailed: Its detailed row of `made_at`, or None where that has to be made.
        timed: That with its pauses, or None where that has to be made.
        ended_pauses: Pauses in it that were ended, or None where they have to be read.
        made_at: The version that the rows have.
    """

    sums: TreeSums
    version: int = 0
    jobs: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)
    was_asked_for: bool = False
    tree: Tree | None = None
    is_paused: bool = False
    short: Rendered | None = None
    detailed: Rendered | None = None
    timed: Rendered | None = None
    ended_pauses: Sequence[EndedPause] | None = None
    made_at: int = -1


class EndedTrees:
    """Trees that are over and that no watcher has named, in the order in which they are dropped."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._jobs = 0
        self._named: Counter[str] = Counter()

    def name(self, root_id: str) -> None:
        """Keep a tree for a watcher, however many there are."""
        self._named[root_id] += 1
        self.take(root_id)

    def unname(self, root_id: str) -> bool:
        """Keep a tree no longer for a watcher, and tell whether it was the last one that had named it."""
        self._named[root_id] -= 1
        if self._named[root_id]:
            return False
        del self._named[root_id]
        return True

    def take(self, root_id: str) -> None:
        """Count a tree no more: it lives again, or is gone."""
        self._jobs -= self._sizes.pop(root_id, 0)

    def add(self, root_id: str, jobs: int, *, is_next: bool = False) -> None:
        """Count a tree that is over, unless a watcher has named it.

        Args:
            root_id: The tree.
            jobs: Number of its jobs.
            is_next: It is the next one to be dropped; otherwise the last.
        """
        self.take(root_id)
        if root_id in self._named:
            return
        self._sizes[root_id] = jobs
        self._sizes.move_to_end(root_id, last=not is_next)
        self._jobs += jobs

    def surplus(self, most: int) -> str | None:
        """Return the tree to drop next, or None while they have at most so many jobs together, or there is but one."""
        return next(iter(self._sizes)) if self._jobs > most and len(self._sizes) > 1 else None
