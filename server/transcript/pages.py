"""Pages of a transcript, by bytes of the file: for a screen that opens a transcript anywhere and follows it.

A page begins and ends between two lines, so that the next one, and the one before it, can be asked for without anything
that is kept here. What a reader knows of the lines before a page is kept for the next page all the same.
"""

import json
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from jobs.claude.ndjson import PIECE, Line, LineDecoder
from jobs.errors import JobsError
from jobs.model import Job, JobStatus
from jobs.ports import Store
from jobs.processes.attempt_dir import STDOUT, AttemptDirectory
from server.transcript.entries import Entry, EntryKind, EntryReader, Notice, entry_of

PAGE_BYTES: Final = 256 * 1024
"""Bytes of entries after which a page ends, as JSON writes them; a line that begins before that is on it."""

BACK_BYTES: Final = 128 * 1024
"""Bytes of the file that a page shows which is asked for by its end."""

READ_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the file after which a page ends: most lines may be of the protocol and show nothing."""

MOST_LINE: Final = 64 * 1024 * 1024
"""Bytes of a line after which no end of it is looked for: a job may make its file seem to be of any size."""

PRIMING: Final = 64 * 1024
"""Bytes before a page that are read again, so that an answer that was said there is not said again."""

KEPT_READERS: Final = 32
"""Readers that are kept, each for one transcript that is followed."""

SecretsOf = Callable[[str], Collection[str]]
"""Returns the secret values of a tree, by its id; may read a file."""


class NoSuchAttemptError(JobsError):
    """An attempt was asked for that has not begun.

    Args:
        job: The job.
        attempt: The number that was asked for.
    """

    def __init__(self, job: Job, attempt: int) -> None:
        self.job_id = job.id
        self.attempt = attempt
        super().__init__(f"Job {job.id} has no attempt {attempt}; its last one is {job.attempt}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which part of a transcript is wanted.

    Args:
        after: Byte at which the page begins.
        before: Byte before which the page ends, or None for a page that begins at `after`.
        at_end: The page ends where the transcript ends now.
    """

    after: int = 0
    before: int | None = None
    at_end: bool = False


FROM_THE_START: Final = Place()


@dataclass(frozen=True, slots=True, kw_only=True)
class _AttemptRead:
    """One attempt of which a page is wanted.

    Args:
        job: The job.
        number: The attempt.
        live: It is under way: a line without its end may go on.
        failed: It is over, and did not lead to an answer.
        task: What the job was asked, whole.
    """

    job: Job
    number: int
    live: bool
    failed: bool
    task: str


@dataclass(slots=True)
class _Reader:
    """What is known at a byte of the file of the lines before it."""

    decoder: LineDecoder
    entries: EntryReader


@dataclass(slots=True)
class _Page:
    """A page that is being read."""

    begin: int
    next: int
    entries: list[Entry] = field(default_factory=list)
    size: int = 0

    def add(self, entry: Entry) -> None:
        if not entry.is_blank:
            self.entries.append(entry)
            self.size += len(json.dumps(entry.as_json()))

    @property
    def is_full(self) -> bool:
        return self.size >= PAGE_BYTES or self.next - self.begin >= READ_BYTES


class TranscriptPages:
    """Reads pages of transcripts.

    Args:
        trees: The directory of the trees.
        store: Where jobs are kept.
        secrets_of: Returns the secret values of a tree; called in a thread.
    """

    def __init__(self, trees: Path, store: Store, secrets_of: SecretsOf) -> None:
        self._trees = trees
        self._store = store
        self._secrets_of = secrets_of
        self._kept: OrderedDict[tuple[str, int, int], _Reader] = OrderedDict()

    async def page(
        self, job: Job, attempt: int | None = None, place: Place = FROM_THE_START, known: Collection[str] = ()
    ) -> dict[str, Any]:
        """Return a page of an attempt's transcript, without blocking the event loop.

        Args:
            job: The job as it is now.
            attempt: Number of the attempt, or None for the last one.
            place: Which part.
            known: Secret values besides those of the tree: the environment of a tree that is over is not kept.

        Returns:
            `entries`; `from` and `next`, the bytes where the page begins and where the next one does; `more`, whether
            there is a next one now; `live`, whether the attempt is under way; `attempt` and `attempts`.

        Raises:
            NoSuchAttemptError: The attempt has not begun.
            UnsafeDirectoryError: A job has put something else in the directory's place.
            StoreError: The attempt cannot be read now.
        """
        number = job.attempt if attempt is None else attempt
        head = {"ok": True, "attempt": number, "attempts": job.attempt}
        if attempt is None and not number:
            return {**head, "entries": [], "from": 0, "next": 0, "more": False, "live": False}
        if not 0 < number <= job.attempt:
            raise NoSuchAttemptError(job, number)
        kept = await self._store.attempt(job.id, number)
        live = number == job.attempt and job.status is JobStatus.RUNNING
        task = await self._store.task(job.id) or job.spec.task
        failed = not live and (kept is None or kept.status is not JobStatus.COMPLETED)
        wanted = _AttemptRead(job=job, number=number, live=live, failed=failed, task=task)
        return head | await anyio.to_thread.run_sync(self._read, wanted, place, frozenset(known))

    def _read(self, wanted: _AttemptRead, place: Place, secrets: frozenset[str]) -> dict[str, Any]:
        directory = AttemptDirectory(self._trees / wanted.job.root_id / wanted.job.id / str(wanted.number))
        known = secrets.union(self._secrets_of(wanted.job.root_id))
        descriptor = directory.open_written(STDOUT)
        try:
            file = _File(descriptor)
            page = self._page_of(wanted, place, known, file)
        finally:
            if descriptor is not None:
                os.close(descriptor)
        if not wanted.live and page.next == file.size and place.before is None:
            page.entries += _end_of(wanted, directory, known, file)
            # One more than there are: what comes after the last line is told once.
            page.next = file.size + 1
        return {
            "entries": [entry.as_json() for entry in page.entries],
            "from": page.begin,
            "next": page.next,
            "more": page.next < file.end(live=wanted.live),
            "live": wanted.live,
        }

    def _page_of(self, wanted: _AttemptRead, place: Place, known: Collection[str], file: "_File") -> _Page:
        end = file.end(live=wanted.live)
        is_back = place.at_end or place.before is not None
        until = end if place.before is None else min(max(place.before, 0), end)
        begin = file.line_before(until - BACK_BYTES) if is_back else max(place.after, 0)
        page = _Page(begin=begin, next=begin)
        if begin < until:
            reader = self._kept.pop((wanted.job.id, wanted.number, begin), None) or _primed(begin, file, known)
            _fill(page, reader, file, until, is_whole=is_back)
            self._keep((wanted.job.id, wanted.number, page.next), reader)
            if page.begin == 0:
                page.entries.insert(0, entry_of(EntryKind.TASK, wanted.task, known))
        return page

    def _keep(self, followed: tuple[str, int, int], reader: _Reader) -> None:
        if not reader.decoder.offset == reader.decoder.read == followed[2]:
            return
        self._kept[followed] = reader
        while len(self._kept) > KEPT_READERS:
            self._kept.popitem(last=False)


def _primed(begin: int, file: "_File", known: Collection[str]) -> _Reader:
    """Return a reader that knows what is shortly before a byte."""
    start = file.line_before(begin - PRIMING, PIECE)
    reader = _Reader(decoder=LineDecoder(start), entries=EntryReader(known))
    if 0 < begin - start <= PIECE:
        for lines in file.lines(reader.decoder, begin):
            for line in lines:
                for _ in reader.entries.entries(line):
                    pass
    if reader.decoder.offset != begin:
        reader.decoder = LineDecoder(begin)
    return reader


def _fill(page: _Page, reader: _Reader, file: "_File", until: int, *, is_whole: bool) -> None:
    """Add what the lines say to a page, until it is full or, where it is to be whole, to their end."""
    is_rest = not file.begins_line(page.begin)
    for lines in file.lines(reader.decoder, until):
        if is_rest:
            # Its beginning may hold the second half of a secret.
            page.add(Entry(kind=EntryKind.NOTICE, notice=Notice.LEFT_OUT, text="The rest of a line was left out."))
        else:
            for line in lines:
                for entry in reader.entries.entries(line):
                    page.add(entry)
        is_rest = any(not line.complete for line in lines)
        page.next = reader.decoder.offset
        if page.is_full and not is_whole:
            return


def _end_of(
    wanted: _AttemptRead, directory: AttemptDirectory, known: Collection[str], file: "_File"
) -> Iterator[Entry]:
    """Yield what is told after the last line of an attempt that is over."""
    said = directory.error_tail() if wanted.failed or not file.size else ""
    if said:
        yield entry_of(EntryKind.STDERR, said, known)
    elif not file.is_there:
        said = "There is no transcript of this attempt: it wrote nothing, or its files were removed."
        yield Entry(kind=EntryKind.NOTICE, notice=Notice.LEFT_OUT, text=said)


class _File:
    """The file of an attempt's output, as large as it is now.

    Args:
        descriptor: The open file, or None where there is none.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = -1 if descriptor is None else descriptor
        status = None if descriptor is None else os.fstat(descriptor)
        self.is_there = status is not None and stat.S_ISREG(status.st_mode)
        self.size = status.st_size if status is not None and self.is_there else 0
        self._end: int | None = None

    def end(self, *, live: bool) -> int:
        """Return the byte after the last line; while it is written, one without its end is none yet."""
        if not live:
            return self.size
        if self._end is None:
            self._end = self.line_before(self.size)
        return self._end

    def line_before(self, byte: int, most: int = MOST_LINE) -> int:
        """Return the last byte, at most this one, at which a line begins; where none does, one that is `most` before.

        Args:
            byte: A byte of the file; before its beginning counts as its beginning.
            most: Bytes in front of it that are searched.
        """
        least = max(0, byte - most)
        while byte > least:
            start = max(least, byte - PIECE)
            found = self._read(start, byte - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            byte = start
        return least

    def begins_line(self, byte: int) -> bool:
        """Tell whether a line begins at a byte."""
        return byte == 0 or self._read(byte - 1, 1) == b"\n"

    def lines(self, decoder: LineDecoder, until: int) -> Iterator[Sequence[Line]]:
        """Yield what each line says, up to a byte; one that goes on there is no line, except at the end of the file.

        After each the decoder is where the next one begins.
        """
        while chunk := self._read(decoder.read, min(PIECE, until - decoder.read)):
            at = 0
            while (newline := chunk.find(b"\n", at)) >= 0:
                yield decoder.feed(chunk[at : newline + 1])
                at = newline + 1
            if at and decoder.read + len(chunk) - at < until:
                # The next piece begins where this line does.
                continue
            decoder.feed(chunk[at:])
            if decoder.read - decoder.offset >= MOST_LINE:
                yield decoder.close()
        if decoder.read >= self.size and decoder.read > decoder.offset:
            yield decoder.close()

    def _read(self, byte: int, count: int) -> bytes:
        try:
            return os.pread(self._descriptor, count, byte) if count > 0 else b""
        except OSError:
            return b""
