"""Reads Claude's stream: from each line of it what was said or done, as entries that a screen draws.

Every text comes from a job. It is without secrets and without what a terminal or a browser would act on, and it is
never markup. A line of any shape is read without an exception.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from jobs.claude.ndjson import UNREADABLE_CHARS, Line
from jobs.util.json_values import mapping, mappings, text, texts
from jobs.util.text import HIDDEN, beginning, is_secret_name, redact, strip_terminal_codes

MOST_CHARS: Final = 40_000
"""Most characters of one text on a page; with four bytes a character the largest line still fits into one."""

LINE_CHARS: Final = 120_000
"""Most characters of all texts of one line together, where texts are cut at all: a line may have 16 MB."""

MOST_PARTS: Final = 100
"""Most parts of one message that are read where texts are cut; Claude writes a line for each part."""

MOST_ARGUMENTS: Final = 30
"""Most arguments of one call that are read where texts are cut."""

_NAME_CHARS: Final = 200
_LEAST_CHARS: Final = 40
_ABOUT_CHARS: Final = 1000
_TITLE_CHARS: Final = 160
_SAID_CHARS: Final = 200_000

_MAIN: Final = ("command", "file_path", "path", "pattern", "url", "query", "description", "task", "prompt", "skill")
"""Arguments of a tool that show what a call is about, the most informative first."""

_TELLING: Final = frozenset(("compact_boundary", "task_notification", "session_writes_lost", "informational"))
"""Subtypes of system frames that matter to a person; the others concern the protocol."""

_OF_THE_PROTOCOL: Final = frozenset(
    (
        "system",
        "rate_limit_event",
        "stream_event",
        "control_request",
        "control_response",
        "control_cancel_request",
        "keep_alive",
        "tool_progress",
        "auth_status",
    )
)
"""Types of frames that say nothing to a person, or only in some of their subtypes."""

_WRAPPER: Final = re.compile(r"</?tool_use_error>")


class EntryKind(StrEnum):
    """Kind of an entry."""

    TASK = "task"
    """What the job, or a sub-agent, was asked."""
    TEXT = "text"
    THINKING = "thinking"
    CALL = "call"
    """A tool is called."""
    RESULT = "result"
    """What a tool returned."""
    NOTICE = "notice"
    ERROR = "error"
    """The CLI says that the attempt ended with an error."""
    ANSWER = "answer"
    """The answer, where the result frame alone has it; without text where it was said before."""
    STDERR = "stderr"


class Notice(StrEnum):
    """What a notice is about."""

    LINE = "line"
    """A line that is no frame; the text is its beginning."""
    LEFT_OUT = "left_out"
    """A line that is too long to be read."""
    UNKNOWN = "unknown"
    """Something that this version does not know."""
    TROUBLE = "trouble"
    """Of the API: an error after which it is asked again, a usage limit."""
    COMPACTED = "compacted"
    SAID = "said"
    """Words of the CLI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that was said or done.

    Args:
        kind: What it is.
        text: What was said, without secrets and terminal codes.
        chars: Characters that the text had before it was cut, else 0.
        at: Seconds since the epoch, where the stream says it.
        agent: Id of the call that began the sub-agent whose line this is, or empty.
        id: Of a call: its id, which its result names.
        of: Of a result: the id of its call.
        tool: Of a call: the tool's name.
        about: Of a call: what it is about, in one line.
        main: Of a call: the name of the argument that says so, or empty where all of them do.
        arguments: Of a call: names and values.
        lines: Of a result: how many lines it has.
        is_error: Of a result: the tool says that it failed.
        notice: Of a notice: what it is about.
    """

    kind: EntryKind
    text: str = ""
    chars: int = 0
    at: float | None = None
    agent: str = ""
    id: str = ""
    of: str = ""
    tool: str = ""
    about: str = ""
    main: str = ""
    arguments: tuple[tuple[str, str], ...] = ()
    lines: int = 0
    is_error: bool = False
    notice: Notice | None = None

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing of it to show."""
        return self.kind not in (EntryKind.CALL, EntryKind.RESULT) and not self.text.strip()

    @property
    def title(self) -> str:
        """Of a call: the tool and what it is about, in one line."""
        about = self.about if len(self.about) <= _TITLE_CHARS else f"{self.about[: _TITLE_CHARS - 1]}…"
        return f"{self.tool}({about})" if self.arguments else self.tool

    def as_json(self) -> dict[str, Any]:
        """Return it for a program; what it has no value for is left out."""
        row: dict[str, Any] = {"kind": str(self.kind)}
        if self.kind is EntryKind.CALL:
            row |= {"id": self.id, "tool": self.tool, "title": self.title, "arguments": [*map(list, self.arguments)]}
        else:
            row["text"] = self.text
        if self.kind is EntryKind.RESULT:
            row |= {"of": self.of, "lines": self.lines}
        known = {
            "chars": self.chars,
            "isError": self.is_error,
            "notice": self.notice,
            "at": self.at,
            "agent": self.agent,
        }
        return row | {name: value for name, value in known.items() if value}


class TextCutter:
    """Cleans texts of a job, and cuts them where they are long.

    Args:
        known: Secret values; text in the form of a secret is hidden too.
        most: Most characters of a text, or None for all of it.
    """

    def __init__(self, known: Iterable[str] = (), most: int | None = MOST_CHARS) -> None:
        self._known = tuple(known)
        self._most = most
        self._room = LINE_CHARS

    @property
    def cuts(self) -> bool:
        """Whether anything is cut."""
        return self._most is not None

    def begin_line(self) -> None:
        """Give all texts of one line together `LINE_CHARS`, from here on."""
        self._room = LINE_CHARS

    def clean(self, said: str) -> str:
        """Return a text without secrets and terminal codes."""
        return redact(strip_terminal_codes(said), self._known)

    def cut(self, said: str) -> tuple[str, int]:
        """Return a text, clean, and the characters that it had where it was cut, else 0."""
        if self._most is None:
            return self.clean(said), 0
        most = min(self._most, self._room)
        self._room -= min(most, len(said))
        if len(said) <= most:
            return self.clean(said), 0
        return self._beginning(said, most), len(said)

    def without_half_a_secret(self, said: str) -> str:
        """Return a text whose end is missing without the half of a secret that may be at its end."""
        return beginning(said, len(said) - 1, self._known)

    def one_line(self, said: str, most: int) -> str:
        """Return the beginning of a text, clean, in one line of at most `most` characters."""
        if self._most is not None:
            most = min(most, max(self._room, _LEAST_CHARS))
        line = " ".join(self._beginning(said, MOST_CHARS).split())[:most]
        self._room -= min(len(line), self._room)
        return line

    def _beginning(self, said: str, most: int) -> str:
        # Redacted before it is cut: the beginning of a secret would not be recognised.
        return self.clean(beginning(said, 2 * most, self._known))[:most]


class EntryReader:
    """Reads one attempt line by line.

    Args:
        known: Secret values; text in the form of a secret is hidden too.
        most: Most characters of a text, or None for all of it.
    """

    def __init__(self, known: Iterable[str] = (), *, most: int | None = MOST_CHARS) -> None:
        self._texts = TextCutter(known, most)
        self._said: list[str] = []
        self._said_chars = 0
        self._trouble = ""

    def entries(self, line: Line) -> Iterator[Entry]:
        """Yield what one line of output says, maybe nothing."""
        self._texts.begin_line()
        if line.frame is None:
            yield self._no_frame(line)
            return
        agent, at = self._name(line.frame.get("parent_tool_use_id")), _time_of(line.frame)
        for values in self._frame(line.frame):
            yield Entry(agent=agent, at=at, **values)

    def _no_frame(self, line: Line) -> Entry:
        if line.dropped:
            said = f"A line of {line.dropped} bytes was left out."
            return Entry(kind=EntryKind.NOTICE, notice=Notice.LEFT_OUT, text=said)
        whole = len(line.text) < UNREADABLE_CHARS
        said = line.text if whole else self._texts.without_half_a_secret(line.text)
        chars = 0 if whole else max(len(said), line.end - line.offset)
        return Entry(kind=EntryKind.NOTICE, notice=Notice.LINE, text=self._texts.clean(said), chars=chars)

    def _frame(self, frame: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        kind = frame.get("type")
        if kind in ("assistant", "user"):
            yield from self._message(frame)
        elif kind == "result":
            yield from self._result(frame)
        elif kind == "system":
            yield from self._system(frame)
        elif kind == "rate_limit_event":
            info = mapping(frame.get("rate_limit_info"))
            if info.get("status") == "rejected":
                yield from self._once(f"usage limit reached {text(info.get('rateLimitType'))}")
        elif not isinstance(kind, str) or kind not in _OF_THE_PROTOCOL:
            yield _unknown(f"a line of the kind {self._name(kind) or '(none)'}")

    def _message(self, frame: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        content = mapping(frame.get("message")).get("content")
        said = EntryKind.TEXT if frame.get("type") == "assistant" else EntryKind.TASK
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        elif not isinstance(content, list):
            yield _unknown("a message without content")
            return
        kept = content[:MOST_PARTS] if self._texts.cuts else content
        for block in kept:
            yield from self._block(mapping(block), said)
        if len(kept) < len(content):
            yield _notice(Notice.LEFT_OUT, f"{len(content) - len(kept)} more parts of a message were left out.")

    def _block(self, block: Mapping[str, Any], said: EntryKind) -> Iterator[dict[str, Any]]:
        kind = text(block.get("type"))
        if kind == "text":
            self._add_said(f"\n{text(block.get('text'))}")
            yield {"kind": said, **self._cut(text(block.get("text")))}
        elif kind == "thinking":
            yield {"kind": EntryKind.THINKING, **self._cut(text(block.get("thinking")))}
        elif kind.endswith("tool_use"):
            yield self._call(block)
        elif kind.endswith("tool_result"):
            yield self._tool_result(block)
        else:
            yield _unknown(f"a part of the kind {self._name(kind) or '(none)'}")

    def _call(self, block: Mapping[str, Any]) -> dict[str, Any]:
        self._forget_said()
        given = mapping(block.get("input"))
        names = list(given)[:MOST_ARGUMENTS] if self._texts.cuts else list(given)
        main = next((name for name in _MAIN if text(given.get(name)).strip()), "")
        shown = {name: HIDDEN if is_secret_name(name) else _shown(given[name]) for name in names}
        about = _shown(given[main]) if main else ", ".join(f"{name}: {value}" for name, value in shown.items())
        arguments = [(self._name(name), self._cut_note(value)) for name, value in shown.items()]
        if len(names) < len(given):
            arguments.append(("…", f"{len(given) - len(names)} more arguments"))
        return {
            "kind": EntryKind.CALL,
            "id": self._name(block.get("id")),
            "tool": _tool_name(self._name(block.get("name"))),
            "about": self._texts.one_line(about, _ABOUT_CHARS),
            "main": main,
            "arguments": tuple(arguments),
        }

    def _tool_result(self, block: Mapping[str, Any]) -> dict[str, Any]:
        said = _WRAPPER.sub("", _content(block.get("content"))).strip("\n")
        return {
            "kind": EntryKind.RESULT,
            "of": self._name(block.get("tool_use_id")),
            "lines": said.count("\n") + 1 if said else 0,
            "is_error": bool(block.get("is_error")),
            **self._cut(said),
        }

    def _result(self, frame: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        answer = text(frame.get("result"))
        kind = text(frame.get("subtype"))
        errors = "; ".join(texts(frame.get("errors")))
        told = bool(answer.strip()) and _squeezed(answer) in _squeezed("".join(self._said))
        self._forget_said()
        if frame.get("is_error") or kind.startswith("error"):
            what = kind.removeprefix("error_").replace("_", " ") if kind.startswith("error") else "ended with an error"
            why = errors or ("" if told else answer)
            yield {"kind": EntryKind.ERROR, **self._cut(f"{what}: {why}" if why else what)}
        else:
            yield {"kind": EntryKind.ANSWER, **self._cut("" if told else answer)}

    def _system(self, frame: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        kind = text(frame.get("subtype"))
        if kind == "api_retry":
            status = frame.get("error_status")
            what = text(frame.get("error")) or "error"
            http = f" (HTTP {_shown(status)})" if status else ""
            yield from self._once(f"the API answered: {what}{http}; it is asked again")
        elif kind == "compact_boundary":
            yield _notice(Notice.COMPACTED, "The conversation was compacted.")
        elif kind in _TELLING:
            said = (text(frame.get(name)) for name in ("summary", "content", "message", "error_code"))
            news = next((one for one in said if one), "")
            self._add_said(news)
            yield {**_notice(Notice.SAID, ""), **self._cut(news)}

    def _once(self, trouble: str) -> Iterator[dict[str, Any]]:
        """Yield a repeated problem only once, until it changes."""
        cut = self._cut(trouble)
        if cut["text"] != self._trouble:
            self._trouble = cut["text"]
            yield {**_notice(Notice.TROUBLE, ""), **cut}

    def _add_said(self, said: str) -> None:
        # An answer that is longer than this is shown twice.
        if self._said_chars < _SAID_CHARS:
            self._said.append(said)
            self._said_chars += len(said)

    def _forget_said(self) -> None:
        self._said, self._said_chars = [], 0

    def _cut(self, said: str) -> dict[str, Any]:
        kept, chars = self._texts.cut(said)
        return {"text": kept, "chars": chars}

    def _cut_note(self, value: str) -> str:
        kept, chars = self._texts.cut(value)
        return f"{kept}\n… {chars - len(kept)} characters more" if chars else kept

    def _name(self, value: Any) -> str:
        """Return a name or an id in one line."""
        return self._texts.one_line(text(value), _NAME_CHARS)


def _notice(about: Notice, said: str) -> dict[str, Any]:
    return {"kind": EntryKind.NOTICE, "notice": about, "text": said}


def _unknown(what: str) -> dict[str, Any]:
    return _notice(Notice.UNKNOWN, f"Not shown: {what}.")


def _tool_name(name: str) -> str:
    # "mcp__server__tool" is "server:tool".
    return ":".join(name.removeprefix("mcp__").split("__", 1)) if name.startswith("mcp__") else name


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return text(value)
    try:
        return text(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return "[too deep]"


def _content(content: Any) -> str:
    if isinstance(content, str):
        return text(content)
    parts = (text(part.get("text")) or f"[{text(part.get('type')) or 'part'}]" for part in mappings(content))
    return "\n".join(parts)


def _squeezed(words: str) -> str:
    return "".join(words.split())


def _time_of(frame: Mapping[str, Any]) -> float | None:
    said = frame.get("timestamp")
    if not isinstance(said, str) or len(said) > _NAME_CHARS:
        return None
    try:
        return datetime.fromisoformat(said).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def entry_of(kind: EntryKind, said: str, known: Collection[str]) -> Entry:
    """Return an entry of a text that is no part of the stream: the task, or what was written to stderr.

    Args:
        kind: What it is.
        said: The text.
        known: Secret values.
    """
    kept, chars = TextCutter(known).cut(said)
    return Entry(kind=kind, text=kept, chars=chars)
