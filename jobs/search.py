"""Search over all trees: tasks and answers by their index, transcripts file by file, the newest first."""

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from jobs.errors import BadInputError
from jobs.processes.attempt_dir import AttemptDirectory, UnsafeDirectoryError
from jobs.store.search_index import END, START, JobFilter, SearchedJob, SearchIndex
from jobs.util.json_values import mapping, mappings, text
from jobs.util.text import redact, strip_terminal_codes

CATCH_UP_SECONDS = 3.0
"""Seconds that one call takes things into the index; the caller calls again where something is left."""

SCAN_SECONDS = 5.0
"""Seconds that one call reads transcripts."""

SCAN_BYTES = 1024**3
"""Bytes of transcripts that one call reads."""

BLOCK_BYTES = 4 * 1024 * 1024
"""Bytes of a transcript that are looked at together."""

BEFORE_CHARS, AFTER_CHARS = 120, 240
"""Characters of an excerpt around the first match."""

MAX_LIMIT = 200
"""Most hits of one call: its answer is one line of at most a megabyte."""

MOST_WORDS = 50
"""Most words of one search: the index takes time that grows with their square, and nobody else searches meanwhile."""

LINE_BYTES = 16 * 1024 * 1024
"""Bytes above which a line of a transcript is passed over, as in every other reading of it."""

_PLAIN_RUN = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A place where all of the words are.

    Args:
        job: The job.
        where: "task", "answer" or "transcript".
        excerpt: A part of it on one line, without terminal codes; of a transcript without secrets of known forms.
        matches: Beginning and end of each match in it.
    """

    job: SearchedJob
    where: str
    excerpt: str
    matches: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What was read of the transcripts.

    Args:
        files: How many were searched.
        bytes: How many bytes they have.
        left: How many were not, because time, bytes or hits were used up.
    """

    files: int
    bytes: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Result of a search.

    Args:
        hits: The newest jobs first: those of tasks and answers, then those of transcripts.
        catching_up: How many jobs are not in the index yet; where there are any, nothing was searched.
        scan: What was read of the transcripts, or None where they were not asked for.
    """

    hits: Sequence[Hit] = ()
    catching_up: int = 0
    scan: Scan | None = None


def words_of(query: str) -> list[str]:
    """Return the words of what a person typed, each once; nothing in it is an operator.

    Raises:
        BadInputError: It has no letter and no digit, or too many words.
    """
    found = (word for word in strip_terminal_codes(query).split() if any(map(str.isalnum, word)))
    words = list(dict.fromkeys(found))
    if not words:
        raise BadInputError("TEXT", "it has no letters or digits", "Give words to search for.")
    if len(words) > MOST_WORDS:
        raise BadInputError("TEXT", f"it has {len(words)} words", f"Give at most {MOST_WORDS}.")
    return words


class Search:
    """Searches the jobs of a state directory, one search at a time and off the event loop.

    Args:
        index: The index of tasks and answers.
        trees: Directory of the job directories.
    """

    def __init__(self, index: SearchIndex, trees: Path) -> None:
        self._index = index
        self._trees = trees
        self._thread = anyio.CapacityLimiter(1)

    async def find(self, query: str, jobs: JobFilter, *, limit: int, transcripts: bool) -> Found:
        """Return the newest places that have all of the words of a query.

        Args:
            query: As a person typed it.
            jobs: Which jobs are searched.
            limit: Most hits.
            transcripts: Read transcripts too, for jobs that have the words neither in their task nor in their answer.

        Raises:
            BadInputError: The query has no word.
            StoreError: The database or the index cannot be used.
        """
        words = words_of(query)
        if not 1 <= limit <= MAX_LIMIT:
            raise BadInputError("--limit", f"{limit} is not between 1 and {MAX_LIMIT}", "Give fewer, or narrow it.")
        return await anyio.to_thread.run_sync(self._find, words, jobs, limit, transcripts, limiter=self._thread)

    async def forget_deleted(self) -> None:
        """Remove the texts of deleted jobs from the index.

        Raises:
            StoreError: The database or the index cannot be used.
        """
        await anyio.to_thread.run_sync(self._index.forget_deleted, limiter=self._thread)

    def _find(self, words: Sequence[str], jobs: JobFilter, limit: int, transcripts: bool) -> Found:
        if left := self._index.catch_up(CATCH_UP_SECONDS):
            return Found(catching_up=left)
        hits = [_hit(one.job, one.where, one.excerpt) for one in self._index.find(words, jobs, limit=limit)]
        if not transcripts:
            return Found(hits=hits)
        scanner = _Scanner(self._trees, words)
        known = {hit.job.id for hit in hits}
        others = [job for job in self._index.with_transcripts(jobs) if job.id not in known]
        found, scan = scanner.scan(others, limit - len(hits))
        return Found(hits=[*hits, *found], scan=scan)


def _hit(job: SearchedJob, where: str, marked: str) -> Hit:
    """Return a hit of an excerpt in which `START` and `END` are around each match."""
    # Terminal codes first: the marks are control characters too.
    parts = [strip_terminal_codes(part) for part in re.split(f"[{START}{END}]", marked)]
    excerpt, matches = "", []
    for index, part in enumerate(parts):
        shown = re.sub(r"\s+", " ", part)
        if excerpt.endswith(" "):
            shown = shown.removeprefix(" ")
        if index % 2 and shown:
            matches.append((len(excerpt), len(excerpt) + len(shown)))
        excerpt += shown
    return _cut(Hit(job=job, where=where, excerpt=excerpt.rstrip(), matches=matches))


def _cut(hit: Hit) -> Hit:
    """Return a hit with at most the characters around its first match: one word may be of any length."""
    first = hit.matches[0][0] if hit.matches else 0
    begin, end = max(0, first - BEFORE_CHARS), first + AFTER_CHARS
    matches = [(start - begin, min(stop, end) - begin) for start, stop in hit.matches if start < end]
    return replace(hit, excerpt=hit.excerpt[begin:end], matches=matches)


class _Scanner:
    """Searches transcripts.

    Args:
        trees: Directory of the job directories.
        words: All of them are in one message where it is found.
    """

    def __init__(self, trees: Path, words: Sequence[str]) -> None:
        self._trees = trees
        self._patterns = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in words]
        # What is looked for in the bytes, before any line is read as JSON, which may spell all else in another way.
        runs = [max(_PLAIN_RUN.findall(word), key=len, default="") for word in words]
        self._needles = [run.lower().encode() for run in runs if run]
        self._bytes = 0
        self._until = time.monotonic() + SCAN_SECONDS

    def scan(self, jobs: Sequence[SearchedJob], limit: int) -> tuple[list[Hit], Scan]:
        """Read the transcripts of jobs, and return the hits and what was read."""
        hits: list[Hit] = []
        files, total = 0, sum(job.attempt for job in jobs)
        for job in jobs:
            if len(hits) >= limit:
                break
            for number in range(job.attempt, 0, -1):
                if self._is_over():
                    return hits, Scan(files=files, bytes=self._bytes, left=total - files)
                files += 1
                if (excerpt := self._first(self._trees / job.root_id / job.id / str(number))) is not None:
                    hits.append(_hit(job, "transcript", excerpt))
                    # Its earlier attempts need no look.
                    files += number - 1
                    break
        return hits, Scan(files=files, bytes=self._bytes, left=total - files)

    def _is_over(self) -> bool:
        return self._bytes >= SCAN_BYTES or time.monotonic() >= self._until

    def _first(self, directory: Path) -> str | None:
        try:
            descriptor = AttemptDirectory(directory).open_written("out")
        except (OSError, UnsafeDirectoryError):
            return None
        if descriptor is None:
            return None
        try:
            return next((found for line in self._lines(descriptor) if (found := self._in_line(line))), None)
        finally:
            os.close(descriptor)

    def _lines(self, descriptor: int) -> Iterator[bytes]:
        """Yield the lines that may have all of the words."""
        rest = b""
        while not self._is_over() and (block := os.read(descriptor, BLOCK_BYTES)):
            self._bytes += len(block)
            whole, newline, tail = (rest + block).rpartition(b"\n")
            rest = tail if newline else whole + tail
            if len(rest) > LINE_BYTES:
                rest = b""
            yield from self._candidates(whole if newline else b"")
        yield from self._candidates(rest)

    def _candidates(self, lines: bytes) -> Iterator[bytes]:
        if not self._has_needles(lines):
            return
        for line in lines.split(b"\n"):
            if self._has_needles(line):
                yield line

    def _has_needles(self, data: bytes) -> bool:
        lowered = data.lower()
        return all(needle in lowered for needle in self._needles)

    def _in_line(self, line: bytes) -> str | None:
        try:
            frame = json.loads(line)
        except (ValueError, RecursionError):
            return None
        said = "\n".join(_said(frame)) if isinstance(frame, dict) else ""
        if self._first_match(said) is None:
            return None
        # The whole of it: cut anywhere, a secret would have no known form any more. One that has the word is no match.
        said = redact(said)
        at = self._first_match(said)
        return None if at is None else self._excerpt(said, at)

    def _first_match(self, said: str) -> int | None:
        """Return where the first of the words is, or None where one of them is missing."""
        firsts = [pattern.search(said) for pattern in self._patterns]
        return min(found.start() for found in firsts if found) if all(firsts) else None

    def _excerpt(self, said: str, at: int) -> str:
        shown = said[max(0, at - BEFORE_CHARS) : at + AFTER_CHARS]
        for pattern in self._patterns:
            shown = pattern.sub(lambda found: f"{START}{found[0].strip(START + END)}{END}", shown)
        return f"{'…' if at > BEFORE_CHARS else ''}{shown}{'…' if at + AFTER_CHARS < len(said) else ''}"


def _said(frame: dict[str, Any]) -> Iterator[str]:
    """Yield what a message says, calls and is answered; the result frame repeats the last one."""
    if frame.get("type") not in {"assistant", "user"}:
        return
    content = mapping(frame.get("message")).get("content")
    if isinstance(content, str):
        yield content
    for block in mappings(content):
        yield text(block.get("text")) or text(block.get("thinking"))
        yield from _texts_in(block.get("input"))
        yield from _texts_in(block.get("content"))


def _texts_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from _texts_in(each)
        case list():
            for each in value:
                yield from _texts_in(each)
        case _:
            return
