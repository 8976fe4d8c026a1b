"""The text of the last message of a model, as its frames have it: one frame for each block, under one id."""

from collections.abc import Mapping
from typing import Any

from jobs.claude.cli_messages import is_marked
from jobs.claude.shapes import mapping, mappings, text


class LastMessage:
    """Gathers the text of the last message; those of subagents and the CLI's own are not the job's."""

    def __init__(self) -> None:
        self._id = ""
        self._text = ""
        self._gap = False
        self._before = ""

    @property
    def text(self) -> str:
        """The text of the last message that has one."""
        return self._text if self._text.strip() else self._before

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take an assistant frame."""
        message = mapping(frame.get("message"))
        if frame.get("parent_tool_use_id") or is_marked(frame):
            return
        if not self._id or text(message.get("id")) != self._id:
            self._id, self._before, self._text, self._gap = text(message.get("id")), self.text, "", False
        for block in mappings(message.get("content")):
            self._add(block)

    def _add(self, block: Mapping[str, Any]) -> None:
        if block.get("type") != "text":
            self._gap = bool(self._text)
            return
        # Blocks that follow each other are one text; a thought or a search between them parts it.
        self._text += ("\n\n" if self._gap else "") + text(block.get("text"))
        self._gap = False


def words_of(frame: Mapping[str, Any]) -> str:
    """Return the text of one assistant frame."""
    return "".join(text(block.get("text")) for block in mappings(mapping(frame.get("message")).get("content")))
