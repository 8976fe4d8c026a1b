"""The text of the last message of a model, as its frames have it: one frame for each block, under one id."""

from collections.abc import Mapping
from typing import Any

from jobs.claude.cli_messages import is_marked_as_the_clis_own
from jobs.claude.shapes import mapping, mappings, text


class LastMessage:
    """Gathers the text of the last message; those of subagents and the CLI's own are not the job's."""

    def __init__(self) -> None:
        self._id = ""
        self._blocks: list[str] = []
        self._gap = False
        self._before = ""
        self.model = ""
        """The model of the last message that named one."""

    @property
    def text(self) -> str:
        """The text of the last message; empty where it only calls tools, for example."""
        # Blocks that follow each other are one text; a thought or a search between them parts it.
        return "".join(self._blocks)

    @property
    def latest_text(self) -> str:
        """The text of the last message that has one."""
        return self.text if self.text.strip() else self._before

    def begins_or_ends_with(self, said: str) -> bool:
        """Tell whether a text is the whole first or the whole last block of the last message."""
        return bool(self._blocks) and said in {self._blocks[0].strip(), self._blocks[-1].strip()}

    def take(self, frame: Mapping[str, Any]) -> bool:
        """Take an assistant frame; return whether the text of another message begins with it."""
        message = mapping(frame.get("message"))
        if frame.get("parent_tool_use_id") or is_marked_as_the_clis_own(frame):
            return False
        if not self._id or text(message.get("id")) != self._id:
            self._id, self._before, self._blocks, self._gap = text(message.get("id")), self.latest_text, [], False
        self.model = text(message.get("model")) or self.model
        had_none = not self.text.strip()
        for block in mappings(message.get("content")):
            self._add(block)
        return had_none and bool(self.text.strip())

    def _add(self, block: Mapping[str, Any]) -> None:
        if block.get("type") != "text":
            self._gap = bool(self._blocks)
        elif words := text(block.get("text")):
            self._blocks.append(("\n\n" if self._gap else "") + words)
            self._gap = False


def words_of(frame: Mapping[str, Any]) -> str:
    """Return the text of one assistant frame."""
    return "".join(text(block.get("text")) for block in mappings(mapping(frame.get("message")).get("content")))
