"""Reads a request's messages: the job's opening, and its tool results so far."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_STAND_IN = "No response requested."
"""The CLI's placeholder for the model's answer when it resumes a session that was cut off in a tool call (measured)."""

_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The result of one tool call.

    Args:
        text: Its text blocks, joined by line feeds.
        is_error: The tool or the CLI marked it as an error.
    """

    text: str
    is_error: bool = False

    @property
    def value(self) -> Any:
        """The text read as JSON, or the text itself where it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A job's conversation up to a request.

    Args:
        opening: The text before the first answer, without the reminders that the CLI adds.
        exchanges: One entry for each answer of the model so far: the results of the tools it called.
    """

    opening: str
    exchanges: tuple[tuple[ToolResult, ...], ...] = ()


def read(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Return the conversation in the `messages` of a Messages API request."""
    opening: list[str] = []
    exchanges: list[list[ToolResult]] = []
    spoken = [message for message in messages if _is_spoken(message)]
    speaker = "user"
    for message in spoken:
        blocks = _blocks(message.get("content"))
        # Two assistant messages in a row are one turn of the model that was stored in parts.
        if message["role"] == "assistant" and speaker != "assistant":
            exchanges.append([])
        elif message["role"] == "user" and exchanges:
            exchanges[-1].extend(_results(blocks))
        elif message["role"] == "user":
            opening.extend(_texts(blocks))
        speaker = message["role"]
    return Conversation(
        opening=_REMINDER.sub("", "\n".join(opening)).strip(), exchanges=tuple(tuple(one) for one in exchanges)
    )


def _is_spoken(message: Mapping[str, Any]) -> bool:
    # The CLI puts messages of the role "system" between the others, and a placeholder for a missing answer. A story
    # that counted them would skip a turn.
    if message.get("role") == "assistant":
        blocks = _blocks(message.get("content"))
        return _texts(blocks) != [_STAND_IN] or len(blocks) > 1
    return message.get("role") == "user"


def _blocks(content: object) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        return [block for block in content if isinstance(block, Mapping)]
    return []


def _texts(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(block.get("text", "")) for block in blocks if block.get("type") == "text"]


def _results(blocks: Sequence[Mapping[str, Any]]) -> list[ToolResult]:
    return [
        ToolResult(text="\n".join(_texts(_blocks(block.get("content")))), is_error=bool(block.get("is_error")))
        for block in blocks
        if block.get("type") == "tool_result"
    ]
