"""A tree as a trace that ui.perfetto.dev opens: one track for each job, below that of the job that started it.

The fields are those of TrackEvent, https://perfetto.dev/docs/reference/trace-packet-proto, as in release 59.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from server.report.job_times import Part, attempts_of, parts_of, pauses_of
from server.report.protobuf_writer import Message
from server.report.wording import counted, in_words, name_of

Row = Mapping[str, Any]

_PACKET_OF_TRACE: Final = 1
_SEQUENCE: Final = 1
_BOOTTIME, _REALTIME = 6, 1
_PID: Final = 1


class _Packet(IntEnum):
    CLOCK_SNAPSHOT = 6
    TIMESTAMP = 8
    SEQUENCE_ID = 10
    TRACK_EVENT = 11
    SEQUENCE_FLAGS = 13
    TRACK_DESCRIPTOR = 60


class _Track(IntEnum):
    UUID = 1
    NAME = 2
    PROCESS = 3
    PARENT_UUID = 5
    COUNTER = 8
    CHILD_ORDERING = 11
    SIBLING_ORDER_RANK = 12
    SIBLING_MERGE_BEHAVIOR = 15


class _Event(IntEnum):
    DEBUG_ANNOTATIONS = 4
    TYPE = 9
    TRACK_UUID = 11
    CATEGORIES = 22
    NAME = 23
    COUNTER_VALUE = 30
    DOUBLE_COUNTER_VALUE = 44
    FLOW_IDS = 47
    TERMINATING_FLOW_IDS = 48


class _Type(IntEnum):
    SLICE_BEGIN = 1
    SLICE_END = 2
    INSTANT = 3
    COUNTER = 4


class _Annotation(IntEnum):
    INT_VALUE = 4
    DOUBLE_VALUE = 5
    STRING_VALUE = 6
    NAME = 10


_EXPLICIT: Final = 3
"""Of `child_ordering`: by the ranks of the tracks."""
_NO_MERGE: Final = 2
"""Of `sibling_merge_behavior`: two jobs of one name have two tracks."""
_STATE_CLEARED: Final = 1
_COUNT: Final = 2

_IDLE: Final[Mapping[str, str]] = {
    "queued": "queued",
    "paused": "paused",
    "children": "waits for its jobs",
    "permission": "waits for a permission",
}
_FACTS: Final = ("status", "reason", "costUsd", "inputTokens", "outputTokens", "model", "cliVersion")


def perfetto_trace(document: Row) -> Iterator[bytes]:
    """Yield the parts of the trace.

    Times are those of the day, in nanoseconds since the epoch. What goes on has no end.

    Args:
        document: What `document_of` returned; answers are not used.
    """
    yield from map(_framed, _Tree(document).packets())


def _framed(packet: Message) -> bytes:
    return bytes(Message().message(_PACKET_OF_TRACE, packet.number(_Packet.SEQUENCE_ID, _SEQUENCE)))


class _Tree:
    """Writes the packets of one tree.

    Args:
        document: What `document_of` returned.
    """

    def __init__(self, document: Row) -> None:
        self._tree: Row = document["tree"]
        self._jobs: Sequence[Row] = document["jobs"]
        self._now: float = self._tree["now"]
        self._names = {row["jobId"]: name_of(row) for row in self._jobs}
        self._parents = {row["jobId"]: row.get("parentJobId", "") for row in self._jobs}
        self._process = _uuid("process", self._tree["id"])
        self._top = _uuid("tree", self._tree["id"])

    def packets(self) -> Iterator[Message]:
        """Yield all packets: first the tracks, then what is on them."""
        yield self._clocks()
        yield from self._tracks()
        yield from self._whole()
        for row in self._jobs:
            yield from self._job(row)
        yield from self._counters()

    def _clocks(self) -> Message:
        clocks = Message()
        for clock in (_BOOTTIME, _REALTIME):
            # The times of this trace are the time of day.
            clocks.message(1, Message().number(1, clock).number(2, _nanoseconds(self._tree["createdAt"])))
        return Message().message(_Packet.CLOCK_SNAPSHOT, clocks).number(_Packet.SEQUENCE_FLAGS, _STATE_CLEARED)

    def _tracks(self) -> Iterator[Message]:
        title = self._tree.get("title") or self._tree["id"]
        process = Message().number(1, _PID).text(6, title)
        yield _track(Message().number(_Track.UUID, self._process).message(_Track.PROCESS, process))
        # Children of a process are ordered by the viewer; those of this track by us.
        name = counted(len(self._jobs), "job")
        top = Message().number(_Track.UUID, self._top).text(_Track.NAME, name)
        yield _track(top.number(_Track.PARENT_UUID, self._process).number(_Track.CHILD_ORDERING, _EXPLICIT))
        ranks: dict[int, int] = {}
        for row in self._jobs:
            parent = self._parents[row["jobId"]]
            above = _uuid("job", parent) if parent in self._names else self._top
            ranks[above] = rank = ranks.get(above, -1) + 1
            job = Message().number(_Track.UUID, _uuid("job", row["jobId"])).text(_Track.NAME, self._names[row["jobId"]])
            job.number(_Track.PARENT_UUID, above).number(_Track.SIBLING_ORDER_RANK, rank)
            job.number(_Track.CHILD_ORDERING, _EXPLICIT).number(_Track.SIBLING_MERGE_BEHAVIOR, _NO_MERGE)
            yield _track(job)

    def _whole(self) -> Iterator[Message]:
        tree = self._tree
        names = ("id", "jobs", "costUsd", "maxBudgetUsd", "inputTokens", "outputTokens")
        facts = {name: tree.get(name) for name in names}
        begun = _event(_Type.SLICE_BEGIN, self._top, name=tree.get("title") or tree["id"], category="tree", facts=facts)
        yield _at(tree["createdAt"], begun)
        if "endedAt" in tree:
            yield _at(tree["endedAt"], _event(_Type.SLICE_END, self._top))

    def _job(self, row: Row) -> Iterator[Message]:
        job_id, parent_id = row["jobId"], self._parents[row["jobId"]]
        has_parent = parent_id in self._names
        track, parent, name = _uuid("job", job_id), _uuid("job", parent_id), self._names[job_id]
        spawn, end = _uuid("spawn", job_id), _uuid("end", job_id)
        if has_parent:
            started = _event(_Type.INSTANT, parent, name=f"starts {name}", category="spawn")
            yield _at(row["createdAt"], started.fixed(_Event.FLOW_IDS, spawn))
        for place, (at, event) in enumerate(self._slices(row, track)):
            if has_parent and not place:
                # The flow from the job above ends where this one begins.
                event.fixed(_Event.TERMINATING_FLOW_IDS, spawn)
            yield _at(at, event)
        if "endedAt" in row:
            ended = _event(
                _Type.INSTANT, track, name=in_words(row["status"]), category="end", facts=_facts(row, job_id)
            )
            yield _at(row["endedAt"], ended.fixed(_Event.FLOW_IDS, end) if has_parent else ended)
            if has_parent:
                told = _event(_Type.INSTANT, parent, name=f"{name}: {in_words(row['status'])}", category="end")
                yield _at(row["endedAt"], told.fixed(_Event.TERMINATING_FLOW_IDS, end))

    def _slices(self, row: Row, track: int) -> Iterator[tuple[float, Message]]:
        """Yield the slices of a job, in their order: the queue, its attempts, and in these what it waits for."""
        above = [row["jobId"]]
        while (parent := self._parents.get(above[-1])) in self._parents:
            above.append(str(parent))
        pauses = self._tree.get("pauses", ())
        held = pauses_of([self._tree["rootId"], *above], pauses, self._now) if pauses else []
        attempts = {attempt["number"]: attempt for attempt in attempts_of(row)}
        for number, group in groupby(parts_of(row, held, self._now), key=attrgetter("attempt")):
            parts = [*group]
            attempt = attempts.get(number)
            if attempt is None:
                inner = {"paused"}
                name = next((_IDLE[part.what] for part in parts if part.what not in inner), _IDLE["queued"])
                begun = _event(_Type.SLICE_BEGIN, track, name=name, category="queue", facts={"job": row["jobId"]})
            else:
                inner = {"children", "permission"}
                facts = _facts(attempt, row["jobId"])
                name = f"attempt {number}: {_fate(attempt)}"
                begun = _event(_Type.SLICE_BEGIN, track, name=name, category="attempt", facts=facts)
            yield parts[0].since, begun
            yield from _inner(track, [part for part in parts if part.what in inner])
            if not parts[-1].is_open:
                yield parts[-1].until, _event(_Type.SLICE_END, track)

    def _counters(self) -> Iterator[Message]:
        running: list[tuple[float, float]] = []
        at_work: list[tuple[float, float]] = []
        costs: list[tuple[float, float]] = [(self._tree["createdAt"], 0.0)]
        for row in self._jobs:
            for attempt in attempts_of(row):
                until = attempt.get("to", self._now)
                running += ((attempt["from"], 1), (until, -1))
                costs.append((until, attempt.get("costUsd", 0.0)))
            for part in parts_of(row, (), self._now):
                if part.what == "working":
                    at_work += ((part.since, 1), (part.until, -1))
        yield from self._counter("Running jobs", running)
        yield from self._counter("Jobs at work", at_work)
        yield from self._counter("Cost so far", costs, unit="USD")

    def _counter(self, name: str, changes: Sequence[tuple[float, float]], unit: str = "") -> Iterator[Message]:
        track = _uuid(name, self._tree["id"])
        counter = Message().text(6, unit) if unit else Message().number(3, _COUNT)
        described = Message().number(_Track.UUID, track).text(_Track.NAME, name)
        yield _track(described.number(_Track.PARENT_UUID, self._process).message(_Track.COUNTER, counter))
        value = 0.0
        for at, group in groupby(sorted(changes), key=lambda change: _nanoseconds(change[0])):
            value += sum(change for _, change in group)
            event = Message().number(_Event.TYPE, _Type.COUNTER).number(_Event.TRACK_UUID, track)
            if unit:
                event.real(_Event.DOUBLE_COUNTER_VALUE, round(value, 6))
            else:
                event.number(_Event.COUNTER_VALUE, int(value))
            yield Message().number(_Packet.TIMESTAMP, at).message(_Packet.TRACK_EVENT, event)


def _inner(track: int, parts: Sequence[Part]) -> Iterator[tuple[float, Message]]:
    for part in parts:
        category = "pause" if part.what == "paused" else "wait"
        yield part.since, _event(_Type.SLICE_BEGIN, track, name=_IDLE[part.what], category=category)
        if not part.is_open:
            yield part.until, _event(_Type.SLICE_END, track)


def _fate(attempt: Row) -> str:
    # Slices of one name have one colour, whatever digits are in it.
    if "to" not in attempt:
        return "running"
    return in_words(attempt.get("reason") or attempt.get("status") or "over")


def _facts(row: Row, job_id: str) -> dict[str, Any]:
    return {"job": job_id, **{name: row.get(name) for name in _FACTS}}


def _event(kind: _Type, track: int, *, name: str = "", category: str = "", facts: Row | None = None) -> Message:
    event = Message().number(_Event.TYPE, kind).number(_Event.TRACK_UUID, track)
    if name:
        event.text(_Event.NAME, name).text(_Event.CATEGORIES, category)
    for key, value in (facts or {}).items():
        if value is not None:
            event.message(_Event.DEBUG_ANNOTATIONS, _annotation(key, value))
    return event


def _annotation(name: str, value: Any) -> Message:
    annotation = Message().text(_Annotation.NAME, name)
    if isinstance(value, int):
        return annotation.number(_Annotation.INT_VALUE, value)
    if isinstance(value, float):
        return annotation.real(_Annotation.DOUBLE_VALUE, value)
    return annotation.text(_Annotation.STRING_VALUE, str(value))


def _track(descriptor: Message) -> Message:
    return Message().message(_Packet.TRACK_DESCRIPTOR, descriptor)


def _at(at: float, event: Message) -> Message:
    return Message().number(_Packet.TIMESTAMP, _nanoseconds(at)).message(_Packet.TRACK_EVENT, event)


def _nanoseconds(at: float) -> int:
    # By microseconds: a time of day in seconds has no more digits.
    return round(at * 1e6) * 1000


def _uuid(kind: str, identity: str) -> int:
    """Return a number of 64 bits that is not 0, the same in each trace of a tree."""
    return int.from_bytes(hashlib.blake2b(f"{kind} {identity}".encode(), digest_size=8).digest()) or 1
