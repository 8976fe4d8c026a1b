"""Collects the text of the model's last message from its frames: one frame for each block, under one id.

A message that was cut off, at its most tokens or with its connection, is resumed by the CLI in the next one, and the
result holds that one alone (measured on 2.1.332). Here both are one message.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from jobs.claude.cli_messages import is_marked_as_the_clis_own
from jobs.util.json_values import mapping, mappings, text

_RESUME: Final = re.compile(
    r"(?:Output token limit hit|Your response)\b.{0,100}?\b(?:Resume directly|Continue from where you left off)\b"
)
"""What the CLI tells a model whose message was cut off. It does not match where the model is told to begin again."""


class LastMessage:
    """Collects the text of the last message; messages of subagents and of the CLI itself are left out."""

    def __init__(self) -> None:
        self._id = ""
        self._blocks: list[str] = []
        self._gap = False
        self._before = ""
        self._is_over = self._is_resumed = False
        self._frame_id = ""
        self.resumptions = 0
        self.model = ""
        """The model of the last message that named one."""

    @property
    def text(self) -> str:
        """The text of the last message; empty where it only calls tools, for example."""
        # Blocks that follow each other are one text; a thought or a search between them splits it.
        return "".join(self._blocks)

    @property
    def latest_text(self) -> str:
        """The text of the last message that has one."""
        return self.text if self.text.strip() else self._before

    def begins_or_ends_with(self, said: str) -> bool:
        """Tell whether a text is the whole first or the whole last block of the last message."""
        return bool(self._blocks) and said in {self._blocks[0].strip(), self._blocks[-1].strip()}

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take an assistant frame."""
        message, frame_id = mapping(frame.get("message")), text(frame.get("uuid"))
        if frame.get("parent_tool_use_id") or is_marked_as_the_clis_own(frame):
            return
        if frame_id and frame_id == self._frame_id:
            # The same frame once more.
            return
        self._frame_id = frame_id
        if self._is_over or text(message.get("id")) != self._id:
            self._begin()
        self.model = text(message.get("model")) or self.model
        self._id, self._is_over, self._is_resumed = text(message.get("id")), False, False
        for block in mappings(message.get("content")):
            self._add(block)

    def hear(self, frame: Mapping[str, Any]) -> None:
        """Take any frame: an event may say that the message is cut off.

        2.1.197 and 2.1.261 resume it without a frame that says so, 2.1.325 with one (measured).
        """
        if frame.get("type") == "stream_event" and not frame.get("parent_tool_use_id"):
            delta = mapping(mapping(frame.get("event")).get("delta"))
            self._is_resumed = self._is_resumed or delta.get("stop_reason") == "max_tokens"

    def end(self, frame: Mapping[str, Any]) -> bool:
        """Take a user frame, which ends the message; return whether it asks for the rest of the message."""
        self._is_over = True
        self._is_resumed = frame.get("isSynthetic") is True and bool(_RESUME.match(words_of(frame)))
        return self._is_resumed

    def _begin(self) -> None:
        if self._is_resumed and self.text.strip():
            self.resumptions += 1
        else:
            self._before, self._blocks, self.resumptions = self.latest_text, [], 0
        self._gap = False

    def _add(self, block: Mapping[str, Any]) -> None:
        if block.get("type") != "text":
            self._gap = bool(self._blocks)
        elif words := text(block.get("text")):
            self._blocks.append(("\n\n" if self._gap else "") + words)
            self._gap = False


def words_of(frame: Mapping[str, Any]) -> str:
    """Return the text of one assistant frame."""
    return "".join(text(block.get("text")) for block in mappings(mapping(frame.get("message")).get("content")))
