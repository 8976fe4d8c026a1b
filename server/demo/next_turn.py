"""Finds the turn that a request asks for, from its messages alone, so that a retry gets the same turn again."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from server.demo.conversation import Conversation, ToolResult
from server.demo.script import Story, ToolCall, Turn
from server.demo.template import evaluate, fill, parse, render


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTurn:
    """The turn to play now.

    Args:
        role: Whose turn it is.
        step: How many answers the conversation holds already.
        position: Index of the turn in its role.
        turn: The turn with its placeholders still in it.
        results: Every tool result so far.
    """

    role: str
    step: int
    position: int
    turn: Turn
    results: tuple[ToolResult, ...]

    def text(self) -> str:
        """Return the turn's text, placeholders replaced.

        Raises:
            StoryError: A placeholder has no value.
        """
        return render(self.turn.text, self.results)

    def tool_calls(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Return name and arguments of each tool call, placeholders replaced.

        Raises:
            StoryError: A placeholder has no value.
        """
        return tuple((call.name, self._arguments(call)) for call in self.turn.tool_calls)

    def _arguments(self, call: ToolCall) -> dict[str, Any]:
        return dict(fill(call.input, self.results))


def find_next_turn(story: Story, conversation: Conversation) -> NextTurn:
    """Return the turn that comes next in this conversation.

    Raises:
        StoryError: The job names an unknown role, or a condition has no value.
    """
    role = story.role_of(conversation.opening)
    turns = story.roles[role]
    position = _position(turns, conversation.exchanges)
    return NextTurn(
        role=role,
        step=len(conversation.exchanges),
        position=position,
        turn=turns[position],
        results=tuple(chain.from_iterable(conversation.exchanges)),
    )


def _position(turns: Sequence[Turn], exchanges: Sequence[tuple[ToolResult, ...]]) -> int:
    position, retried = 0, 0
    results: list[ToolResult] = []
    for exchange in exchanges:
        results.extend(exchange)
        turn = turns[position]
        failed = any(result.is_error for result in exchange)
        if failed and retried < turn.retries:
            retried += 1
        elif not _repeats(turn, results):
            position, retried = min(position + 1, len(turns) - 1), 0
    return position


def _repeats(turn: Turn, results: Sequence[ToolResult]) -> bool:
    return turn.repeat_while is not None and bool(evaluate(parse(turn.repeat_while), results))
