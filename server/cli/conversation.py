"""Renders an attempt's output for a person: as in Claude Code, without the frames that only programs need."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from jobs.claude.ndjson import Line
from jobs.util.json_values import mapping, mappings, text, texts
from jobs.util.text import beginning, redact, strip_terminal_codes
from server.cli.lines import one_line

_MAIN: Final = ("command", "file_path", "path", "pattern", "url", "query", "description", "task", "prompt", "skill")
"""Arguments of a tool that show what a call is about, the most informative first."""

_RESULT_LINES: Final = 3
"""Lines of a tool's result that are shown, as in Claude Code."""

_LINE_CHARS: Final = 300
_TEXT_CHARS: Final = 20_000
_ARGUMENT_COLUMNS: Final = 160

_TELLING: Final = frozenset(("compact_boundary", "task_notification", "session_writes_lost", "informational"))
"""Subtypes of system frames that matter to a person; the others concern the protocol."""

_WRAPPER: Final = re.compile(r"</?tool_use_error>")


class Conversation:
    """Renders one attempt line by line.

    Args:
        known: Secret values; text in the form of a secret is redacted too.
        whole: Show results, arguments and thoughts in full.
    """

    def __init__(self, known: Iterable[str] = (), *, whole: bool = False) -> None:
        self._known = tuple(known)
        self._whole = whole
        self._calls: dict[str, str] = {}
        self._last_call = ""
        self._said = ""
        self._trouble = ""

    def rows(self, line: Line) -> Iterator[str]:
        """Yield the lines that show one line of output; many show as nothing."""
        if line.frame is None:
            yield from self._no_frame(line)
            return
        # A subagent's lines are shown below the call that started it.
        indent = "    " if text(line.frame.get("parent_tool_use_id")) else ""
        yield from (f"{indent}{row}".rstrip() for row in self._frame(line.frame))

    def _no_frame(self, line: Line) -> Iterator[str]:
        if line.dropped:
            yield f"▲ A line of {line.dropped} bytes was left out."
        else:
            yield from self._paragraph("", line.text)

    def _frame(self, frame: Mapping[str, Any]) -> Iterator[str]:
        match frame.get("type"):
            case "assistant" | "user":
                yield from self._message(frame)
            case "result":
                yield from self._result(frame)
            case "system":
                yield from self._system(frame)
            case "rate_limit_event":
                info = mapping(frame.get("rate_limit_info"))
                if info.get("status") == "rejected":
                    yield from self._once(f"▲ usage limit reached {text(info.get('rateLimitType'))}")

    def _message(self, frame: Mapping[str, Any]) -> Iterator[str]:
        content = mapping(frame.get("message")).get("content")
        mark = "● " if frame.get("type") == "assistant" else "> "
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else mappings(content)
        for block in blocks:
            yield from self._block(block, mark)

    def _block(self, block: Mapping[str, Any], mark: str) -> Iterator[str]:
        kind = text(block.get("type"))
        if kind == "text":
            said = text(block.get("text"))
            self._said += f"\n{said}"
            self._last_call = ""
            yield from self._paragraph(mark, said)
        elif kind == "thinking" and self._whole:
            yield from self._paragraph("✻ ", text(block.get("thinking")))
        elif kind.endswith("tool_use"):
            yield from self._call(block)
        elif kind.endswith("tool_result"):
            yield from self._tool_result(block)

    def _call(self, block: Mapping[str, Any]) -> Iterator[str]:
        self._said = ""
        arguments = mapping(block.get("input"))
        name = _tool_name(text(block.get("name")))
        main = next((key for key in _MAIN if text(arguments.get(key)).strip()), "")
        about = arguments.get(main) if main else ", ".join(f"{key}: {_shown(arguments[key])}" for key in arguments)
        title = f"{name}({one_line(self._clean(_shown(about)), _ARGUMENT_COLUMNS)})" if arguments else name
        self._last_call = text(block.get("id"))
        self._calls[self._last_call] = title
        yield f"● {title}"
        if self._whole:
            for key, value in arguments.items():
                given = self._clean(_shown(value))
                if given not in title or main not in ("", key):
                    yield from self._paragraph(f"     {key}: ", given)

    def _tool_result(self, block: Mapping[str, Any]) -> Iterator[str]:
        of = text(block.get("tool_use_id"))
        if of != self._last_call and of in self._calls:
            # Something else was shown since the call.
            yield f"● {self._calls[of]}"
        self._last_call = of
        said = _WRAPPER.sub("", _content(block.get("content"))).strip("\n")
        if block.get("is_error") and not said.startswith("Error"):
            said = f"Error: {said}"
        yield from self._paragraph("  ⎿  ", said or "(no output)", most=None if self._whole else _RESULT_LINES)

    def _result(self, frame: Mapping[str, Any]) -> Iterator[str]:
        answer = text(frame.get("result"))
        kind = text(frame.get("subtype"))
        errors = "; ".join(texts(frame.get("errors")))
        told = bool(answer.strip()) and _squeezed(answer) in _squeezed(self._said)
        self._said, self._last_call = "", ""
        if frame.get("is_error") or kind.startswith("error"):
            what = kind.removeprefix("error_").replace("_", " ") if kind.startswith("error") else "ended with an error"
            why = errors or ("" if told else answer)
            yield from self._paragraph("✗ ", f"{what}: {why}" if why else what)
        elif not told:
            yield from self._paragraph("● ", answer)

    def _system(self, frame: Mapping[str, Any]) -> Iterator[str]:
        kind = text(frame.get("subtype"))
        if kind == "api_retry":
            status = frame.get("error_status")
            what = text(frame.get("error")) or "error"
            yield from self._once(
                f"▲ the API answered: {what}{f' (HTTP {status})' if status else ''}; it is asked again"
            )
        elif kind == "compact_boundary":
            yield "✻ The conversation was compacted."
        elif kind in _TELLING:
            said = (text(frame.get(name)) for name in ("summary", "content", "message", "error_code"))
            self._said += (news := next((one for one in said if one), ""))
            yield from self._paragraph("▲ ", news)

    def _once(self, trouble: str) -> Iterator[str]:
        """Yield a repeated problem only once, until it changes."""
        trouble = self._clean(trouble)
        if trouble != self._trouble:
            self._trouble = trouble
            yield trouble

    def _paragraph(self, mark: str, said: str, *, most: int | None = None) -> Iterator[str]:
        """Yield the lines of a text, the first behind a mark and the others below its text."""
        if not self._whole and len(said) > _TEXT_CHARS:
            # Redacted before it is cut: a truncated secret would not be recognised.
            kept = self._clean(beginning(said, 2 * _TEXT_CHARS, self._known))[:_TEXT_CHARS]
            lines = [*kept.split("\n"), f"… +{len(said) - _TEXT_CHARS} characters (--all shows them)"]
        else:
            lines = self._clean(said).split("\n")
        while lines and not lines[-1].strip():
            lines.pop()
        while lines and not lines[0].strip():
            lines.pop(0)
        # A single further line is shown instead of counted.
        if most is not None and len(lines) > most + 1:
            left = len(lines) - most
            lines = [*lines[:most], f"… +{left} lines (--all shows them)"]
        indent = " " * len(mark)
        for index, line in enumerate(lines):
            cut = most is not None and len(line) > _LINE_CHARS
            yield (
                f"{indent if index else mark}{line[: _LINE_CHARS - 1]}…"
                if cut
                else f"{indent if index else mark}{line}"
            )

    def _clean(self, said: str) -> str:
        return redact(strip_terminal_codes(said), self._known)


def _tool_name(name: str) -> str:
    # "mcp__server__tool" is "server:tool".
    return ":".join(name.removeprefix("mcp__").split("__", 1)) if name.startswith("mcp__") else name


def _shown(value: Any) -> str:
    return text(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _content(content: Any) -> str:
    if isinstance(content, str):
        return text(content)
    parts = (text(part.get("text")) or f"[{text(part.get('type')) or 'part'}]" for part in mappings(content))
    return "\n".join(parts)


def _squeezed(words: str) -> str:
    return "".join(words.split())
