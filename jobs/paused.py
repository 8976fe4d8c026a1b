"""Paused parts of the trees: which a person or a job has paused, and which job is below one of them."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

EVERYTHING = ""
"""The path of a pause of all trees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedPath:
    """A part of the trees in which no job starts before it is resumed.

    Args:
        path: The path of a job or of a tree, or `EVERYTHING`; all below it is paused as well.
        since: Seconds since the epoch.
        by_job: The job that asked for it, or None for a person or a program, whose pause no job lifts.
        ends_running: Jobs that run there are ended and queued again.
    """

    path: str
    since: float
    by_job: str | None = None
    ends_running: bool = False

    @property
    def id(self) -> str | None:
        """The id of the job or tree, or None for everything."""
        return self.path.rpartition("/")[2] or None

    def __str__(self) -> str:
        """Say who paused what, and the command that ends it."""
        what = f" {self.id}" if self.id else ""
        return f"paused because {self._who} paused{what or ' everything'}: `claude-jobs resume{what}` lets it go on"

    def words_for(self, path: str) -> str:
        """Return who paused a path, and with what above it."""
        above = "" if path == self.path else f", with {self.id or 'everything'}"
        return f"paused by {self._who}{above}"

    @property
    def _who(self) -> str:
        return "a person" if self.by_job is None else f"job {self.by_job}"

    def joined(self, earlier: "PausedPath | None") -> "PausedPath":
        """Return this pause on top of an earlier one of the same path: it began then, and the stricter one counts."""
        if earlier is None:
            return self
        return replace(
            earlier,
            by_job=earlier.by_job and self.by_job and earlier.by_job,
            ends_running=earlier.ends_running or self.ends_running,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedPause:
    """A pause of a part of the trees that somebody has ended.

    Args:
        path: As of `PausedPath`.
        since: Seconds since the epoch.
        until: Seconds since the epoch.
        by_job: The job that had asked for it, or None for a person or a program.
    """

    path: str
    since: float
    until: float
    by_job: str | None = None


class PausedPaths:
    """The paused paths of a store, in memory. A question takes as many steps as the path is long, and one without any.

    Args:
        rows: What the store holds.
        lives: Tells whether a job at or below a path is queued or running.
    """

    def __init__(self, rows: Iterable[PausedPath] = (), lives: Callable[[str], bool] = lambda _: True) -> None:
        self._rows: dict[str, PausedPath] = {}
        self._above: Counter[str] = Counter()
        self._lives = lives
        self.put(rows)

    def put(self, rows: Iterable[PausedPath]) -> None:
        """Add rows, each in the place of one with its path."""
        for row in rows:
            if row.path not in self._rows:
                self._above.update(_above(row.path))
            self._rows[row.path] = row

    def drop(self, paths: Iterable[str]) -> None:
        """Remove the rows of these paths."""
        for path in paths:
            if self._rows.pop(path, None) is not None:
                self._above -= Counter(_above(path))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is paused."""
        return not self._rows

    def at(self, path: str) -> PausedPath | None:
        """Return the pause of exactly this path, or None."""
        return self._rows.get(path)

    def covering(self, path: str) -> Iterator[PausedPath]:
        """Yield the pauses that hold for a path, the outermost first."""
        if self._rows:
            for one in (*_above(path), path):
                if (row := self._rows.get(one)) is not None:
                    yield row

    def outermost(self, path: str) -> PausedPath | None:
        """Return the pause that has to be lifted before a job of this path goes on, or None where none holds."""
        return next(self.covering(path), None)

    def holds(self, path: str) -> bool:
        """Tell whether a pause holds for a path."""
        # Asked for each job: where nothing is paused it costs one look.
        return bool(self._rows) and self.outermost(path) is not None

    def ends(self, path: str) -> bool:
        """Tell whether a pause holds for a path that ends what runs there."""
        return any(row.ends_running for row in self.covering(path))

    def holds_back(self, path: str) -> bool:
        """Tell whether something that lives below a path is paused, or the path itself."""
        if not self._rows:
            return False
        return self.holds(path) or (path in self._above and any(self._lives(row.path) for row in self.under(path)))

    def under(self, path: str) -> list[PausedPath]:
        """Return the pauses of a path and of all below it."""
        if path == EVERYTHING:
            return list(self._rows.values())
        below = f"{path}/"
        return [row for name, row in self._rows.items() if name == path or name.startswith(below)]

    def live(self, root_ids: Collection[str] | None = None) -> list[PausedPath]:
        """Return the pauses under which a job is queued or running, and that of everything, as they began.

        Args:
            root_ids: Only those that hold in one of these trees; None for all.
        """
        wanted = None if root_ids is None else {EVERYTHING, *root_ids} if root_ids else frozenset[str]()
        rows = [row for row in self._rows.values() if wanted is None or row.path.partition("/")[0] in wanted]
        # Nobody is to wonder about a pause of everything once the first job comes.
        return sorted((row for row in rows if not row.path or self._lives(row.path)), key=lambda row: row.since)


def _above(path: str) -> tuple[str, ...]:
    """Return the paths above a path, the outermost first: everything, the tree, and so on."""
    if path == EVERYTHING:
        return ()
    names = path.split("/")
    return (EVERYTHING, *("/".join(names[:count]) for count in range(1, len(names))))
