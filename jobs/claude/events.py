"""From a line of output to the short event that people read; the whole line stays in the file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jobs.claude.framer import Line
from jobs.claude.shapes import mapping, mappings, number, plain, text, texts
from jobs.redaction import redact

TEXT_LIMIT: Final = 2000
_KIND_LIMIT = 80

_SILENT: Final = frozenset({"control_response", "control_request", "stream_event", "keep_alive"})
"""Frames of the protocol that tell a person nothing; the answer to our first line alone has 40 kB."""

_TELLING: Final = ("command", "file_path", "path", "pattern", "url", "query", "description", "task", "prompt")
"""Arguments of a tool that say what a call is about, the most telling first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Something that a process reported, in short.

    Args:
        kind: The frame's type, and its subtype after a dot where it has one.
        text: What a person would want to see of it, at most `TEXT_LIMIT` characters.
    """

    kind: str
    text: str


def event_of(line: Line, known: Iterable[str] = ()) -> JobEvent | None:
    """Return what a person would want to see of a line, or None where that is nothing; never raises.

    Args:
        line: The line.
        known: Values that are secret, besides what has the form of a secret.
    """
    if line.frame is None:
        kind, said = (
            ("oversize", f"A line of {line.dropped} bytes was dropped.") if line.dropped else ("text", line.text)
        )
    elif text(line.frame.get("type")) in _SILENT:
        return None
    else:
        kind, said = _kind(line.frame), _said(line.frame)
    # Cut afterwards: a key that lacks its end would not be known.
    return JobEvent(kind=kind, text=plain(redact(plain(said, 2 * TEXT_LIMIT), known), TEXT_LIMIT))


def _kind(frame: Mapping[str, Any]) -> str:
    parts = (text(frame.get("type")) or "unknown", text(frame.get("subtype")))
    return plain(".".join(part for part in parts if part), _KIND_LIMIT)


def _said(frame: Mapping[str, Any]) -> str:
    match frame.get("type"):
        case "assistant" | "user":
            return _message(frame)
        case "result":
            return text(frame.get("result")) or "; ".join(texts(frame.get("errors")))
        case "rate_limit_event":
            return _limit(mapping(frame.get("rate_limit_info")))
        case "system":
            return _system(frame)
        case _:
            return ""


def _message(frame: Mapping[str, Any]) -> str:
    content = mapping(frame.get("message")).get("content")
    if isinstance(content, str):
        return content
    return " · ".join(said for block in mappings(content) if (said := _block(block)))


def _block(block: Mapping[str, Any]) -> str:
    match block.get("type"):
        case "text":
            return text(block.get("text"))
        case "tool_use":
            return _call(block)
        case "tool_result":
            content = block.get("content")
            inner = text(content) or " ".join(text(part.get("text")) for part in mappings(content))
            return f"{'error' if block.get('is_error') else 'result'}: {inner}"
        case _:
            return ""


def _call(block: Mapping[str, Any]) -> str:
    arguments = mapping(block.get("input"))
    about = next((said for name in _TELLING if (said := text(arguments.get(name)))), "")
    return f"{text(block.get('name'))}: {about}" if about else text(block.get("name"))


def _limit(info: Mapping[str, Any]) -> str:
    return " ".join(part for part in (text(info.get("rateLimitType")), text(info.get("status"))) if part)


def _system(frame: Mapping[str, Any]) -> str:
    match frame.get("subtype"):
        case "init":
            return text(frame.get("model"))
        case "api_retry":
            return _retry(frame)
        case "permission_denied":
            return f"{text(frame.get('tool_name'))} was not permitted"
        case _:
            named = (text(frame.get(name)) for name in ("summary", "content", "description", "message", "error_code"))
            return next((said for said in named if said), "")


def _retry(frame: Mapping[str, Any]) -> str:
    delay = (number(frame.get("retry_delay_ms")) or 0.0) / 1000
    attempt, most = number(frame.get("attempt")) or 0, number(frame.get("max_retries")) or 0
    what = text(frame.get("error")) or "error"
    status = number(frame.get("error_status"))
    shown = f"{what} (HTTP {status:.0f})" if status else what
    return f"{shown}, attempt {attempt:.0f} of {most:.0f}, again in {delay:.1f} s"
