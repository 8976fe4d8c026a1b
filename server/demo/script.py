"""The story format: named roles, each a list of turns that the scripted model plays in order.

As JSON: `{"default": "poet", "roles": {"poet": [{"text": "A line."}]}}`. The other fields are
described at the classes below. `[role: NAME]` in a job's task says which role it plays.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from server.demo.template import StoryError, expressions, parse

_MARKER = re.compile(r"\[role:\s*([^\]\s]+)\s*\]")

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(_Value):
    """A tool call that the model makes.

    Args:
        name: The tool as Claude Code names it, "mcp__claude-jobs__claude_wait" for example.
        input: Its arguments; strings may hold placeholders.
    """

    name: str = Field(min_length=1)
    input: Mapping[str, JsonValue] = Field(default_factory=dict)


class Failure(_Value):
    """An HTTP error that is sent in place of the turn.

    Args:
        status: HTTP status, 400 to 599.
        message: What the error body says.
        times: How many requests for this turn fail, in each session; None for all.
        headers: Further response headers, those of a rate limit for example.
    """

    status: int = Field(ge=400, le=599)
    message: str = "This error is part of the story."
    times: int | None = Field(default=None, ge=1)
    headers: Mapping[str, str] = Field(default_factory=dict)


class Usage(_Value):
    """The token counts that the reply reports.

    Args:
        input_tokens: Tokens read.
        output_tokens: Tokens written.
    """

    input_tokens: int = Field(default=10, ge=0)
    output_tokens: int = Field(default=20, ge=0)


class Turn(_Value):
    """One answer of the model.

    Args:
        text: Its text; may hold placeholders.
        tool_calls: The tools it calls, all in one message.
        delay: Seconds until the answer or error begins.
        error: Sent first, or always, in place of the turn.
        headers: Further response headers of the answer.
        stop_reason: As the API names it; by default "tool_use" where tools are called, else "end_turn".
        usage: Token counts that the answer reports.
        repeat_while: An expression without braces; the turn is played again as long as its value is true,
            where 0, null and empty values are false.
        retries: How many times the turn is played again because one of its tool calls came back as an error.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    delay: Seconds = 0.0
    error: Failure | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    stop_reason: str | None = None
    usage: Usage = Field(default_factory=Usage)
    repeat_while: str | None = None
    retries: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _expressions_parse(self) -> Self:
        for value in (self.text, *(dict(call.input) for call in self.tool_calls)):
            list(expressions(value))
        if self.repeat_while is not None:
            parse(self.repeat_while)
        return self


class Story(_Value):
    """The turns of a scripted model, by role.

    Args:
        roles: Turns by the role's name. A conversation that outlives its role gets the last turn again, so a role that
            ends with a tool call never ends.
        default: The role of a job whose task names none.
        tasks: Roles by a text: a job whose task holds it and names no role plays this one. The first text counts.
    """

    roles: Mapping[str, tuple[Turn, ...]]
    default: str = "default"
    tasks: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("roles")
    @classmethod
    def _roles_have_turns(cls, roles: Mapping[str, tuple[Turn, ...]]) -> Mapping[str, tuple[Turn, ...]]:
        silent = [name for name, turns in roles.items() if not turns]
        if silent:
            raise ValueError(f"roles without a turn: {', '.join(silent)}. Give each at least one.")
        return roles

    @model_validator(mode="after")
    def _default_is_a_role(self) -> Self:
        if self.default not in self.roles:
            raise ValueError(f"the default role {self.default!r} is not among the roles: {', '.join(self.roles)}.")
        return self

    def slowed(self, seconds: float) -> "Story":
        """Return the story with so many seconds more before each turn."""
        roles = {
            role: tuple(turn.model_copy(update={"delay": turn.delay + seconds}) for turn in turns)
            for role, turns in self.roles.items()
        }
        return self.model_copy(update={"roles": roles})

    def role_of(self, opening: str) -> str:
        """Return the role that a job with this opening plays: the first one it names, else that of its task's text.

        Raises:
            StoryError: The opening names a role that the story does not have.
        """
        marker = _MARKER.search(opening)
        by_text = next((role for text, role in self.tasks.items() if text in opening), self.default)
        name = marker[1] if marker else by_text
        if name not in self.roles:
            raise StoryError(
                f"The story has no role {name!r}", f"Name one of these in the task: {', '.join(self.roles)}."
            )
        return name


def load_story(path: Path) -> Story:
    """Read a story from a JSON file.

    Raises:
        OSError: The file cannot be read.
        pydantic.ValidationError: The file is not JSON, or not a story; it names the field.
    """
    return Story.model_validate_json(path.read_bytes())
