"""Draws an attempt's output for a person: as in Claude Code, without the frames that only programs need."""

from collections.abc import Iterable, Iterator
from typing import Final

from jobs.claude.ndjson import Line
from server.cli.lines import one_line
from server.transcript.entries import Entry, EntryKind, EntryReader, Notice

_RESULT_LINES: Final = 3
"""Lines of a tool's result that are shown, as in Claude Code."""

_LINE_CHARS: Final = 300
_TEXT_CHARS: Final = 20_000
_ARGUMENT_COLUMNS: Final = 160

_MARKS: Final = {
    EntryKind.TEXT: "● ",
    EntryKind.TASK: "> ",
    EntryKind.THINKING: "✻ ",
    EntryKind.ANSWER: "● ",
    EntryKind.ERROR: "✗ ",
    EntryKind.NOTICE: "▲ ",
}


class Conversation:
    """Draws one attempt line by line.

    Args:
        known: Secret values; text in the form of a secret is redacted too.
        whole: Show results, arguments and thoughts in full.
    """

    def __init__(self, known: Iterable[str] = (), *, whole: bool = False) -> None:
        self._reader = EntryReader(known, most=None if whole else _TEXT_CHARS)
        self._whole = whole
        self._calls: dict[str, str] = {}
        self._last_call = ""

    def rows(self, line: Line) -> Iterator[str]:
        """Yield the lines that show one line of output; many show as nothing."""
        for entry in self._reader.entries(line):
            # A subagent's lines are shown below the call that started it.
            indent = "    " if entry.agent else ""
            yield from (f"{indent}{row}".rstrip() for row in self._draw(entry))

    def _draw(self, entry: Entry) -> Iterator[str]:
        match entry.kind:
            case EntryKind.CALL:
                yield from self._call(entry)
            case EntryKind.RESULT:
                yield from self._tool_result(entry)
            case EntryKind.NOTICE:
                yield from self._notice(entry)
            case EntryKind.THINKING if not self._whole:
                return
            case kind:
                if kind is not EntryKind.THINKING:
                    self._last_call = ""
                yield from _paragraph(_MARKS[kind], entry)

    def _call(self, entry: Entry) -> Iterator[str]:
        title = f"{entry.tool}({one_line(entry.about, _ARGUMENT_COLUMNS)})" if entry.arguments else entry.tool
        self._last_call = entry.id
        self._calls[entry.id] = title
        yield f"● {title}"
        if self._whole:
            for name, given in entry.arguments:
                if given not in title or entry.main not in ("", name):
                    yield from _lines(f"     {name}: ", given)

    def _tool_result(self, entry: Entry) -> Iterator[str]:
        if entry.of != self._last_call and entry.of in self._calls:
            # Something else was shown since the call.
            yield f"● {self._calls[entry.of]}"
        self._last_call = entry.of
        failed = "Error: " if entry.is_error and not entry.text.startswith("Error") else ""
        most = None if self._whole else _RESULT_LINES
        yield from _paragraph(f"  ⎿  {failed}", entry, indent=5, most=most, empty="(no output)")

    def _notice(self, entry: Entry) -> Iterator[str]:
        match entry.notice:
            case Notice.UNKNOWN:
                return
            case Notice.COMPACTED:
                yield f"✻ {entry.text}"
            case Notice.LINE:
                yield from _lines("", entry.text)
            case _:
                yield from _paragraph(_MARKS[entry.kind], entry)


def _paragraph(
    mark: str, entry: Entry, *, indent: int | None = None, most: int | None = None, empty: str = ""
) -> Iterator[str]:
    """Yield the lines of an entry's text, the first behind a mark and the others below its text."""
    cut = f"\n… +{entry.chars - len(entry.text)} characters (--all shows them)" if entry.chars else ""
    return _lines(mark, f"{entry.text or empty}{cut}", indent=indent, most=most)


def _lines(mark: str, said: str, *, indent: int | None = None, most: int | None = None) -> Iterator[str]:
    lines = said.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    # A single further line is shown instead of counted.
    if most is not None and len(lines) > most + 1:
        left = len(lines) - most
        lines = [*lines[:most], f"… +{left} lines (--all shows them)"]
    other = " " * (len(mark) if indent is None else indent)
    for index, line in enumerate(lines):
        cut = most is not None and len(line) > _LINE_CHARS
        yield f"{other if index else mark}{line[: _LINE_CHARS - 1]}…" if cut else f"{other if index else mark}{line}"
