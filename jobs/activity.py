"""What a running attempt does now, for a person or a model that looks at it: its tool call, or its last words."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from jobs.model import Usage
from jobs.util.json_values import mapping, mappings, number, plain, text
from jobs.util.text import beginning, is_secret_name, redact

DOING_CHARS: Final = 80
"""Most characters of `Activity.doing`: a row of a terminal has room for it next to the id and the status."""

STARTING: Final = "starting"
THINKING: Final = "thinking"

_KEPT_CHARS: Final = 2000
"""Characters of an argument or of a text that are kept: a secret is redacted before the rest is cut."""

_MOST_OPEN: Final = 32
"""Open tool calls that are known at once. A job can write any number of them."""

_MAIN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Bash": "command",
        "Edit": "file_path",
        "MultiEdit": "file_path",
        "Read": "file_path",
        "Write": "file_path",
        "NotebookEdit": "notebook_path",
        "Grep": "pattern",
        "Glob": "pattern",
        "WebFetch": "url",
        "WebSearch": "query",
        "Task": "description",
        "Agent": "description",
        "Skill": "skill",
    }
)
"""Main argument of the tools of Claude Code 2.1.330. Of other tools it is the first short text."""

_MANY_MODELS: Final = frozenset({"default", "best", "inherit", "opusplan"})
"""Aliases that stand for a choice among models."""

_OURS: Final = "mcp__claude-jobs__"
"""What the names of this project's own tools begin with."""

_PATHS: Final = frozenset({"file_path", "notebook_path"})
_SHORT: Final = 200
"""Most characters of what counts as a short text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What a running attempt does, and what it has used so far.

    Args:
        doing: `Bash: pytest -x`, `Edit: src/a.py`, the last words said, or what it waits for; one line of at most
            `DOING_CHARS` characters, without secrets and terminal codes.
        last_output_at: Seconds since the epoch of its last output; of its launch where there is none.
        usage: What this attempt has used so far.
        model: The model that answers, or None before the first answer.
        cli: Path of its `claude`, or None where that is not known.
        cli_version: Version of that, or None.
    """

    doing: str
    last_output_at: float
    usage: Usage
    model: str | None = None
    cli: str | None = None
    cli_version: str | None = None


def names_another_model(asked: str | None, answers: str | None) -> bool:
    """Tell whether another model answers than the one asked for; False where a name does not say which model it is.

    Args:
        asked: As the job's options name it: a model's id, or an alias such as `opus` or `sonnet[1m]`.
        answers: As the API names it.
    """
    if not asked or not answers:
        return False
    name, answer = asked.lower().partition("[")[0], answers.lower()
    if name in _MANY_MODELS or "/" in name:
        return False
    return name not in answer and answer not in name


def described_call(tool: str, arguments: Mapping[str, Any], *directories: str) -> str:
    """Return a tool call as a person reads it: the tool and its main argument, not cut to a line yet.

    Args:
        tool: Its name.
        arguments: Its arguments, of any shape.
        directories: Directories from which paths in them are shown.
    """
    name = tool[:_SHORT]
    if name.startswith(_OURS):
        # Its ids and options say less than its name, and a row has little room.
        return name.removeprefix(_OURS)
    argument = _main_argument(name, arguments, directories)
    if name.startswith("mcp__"):
        name = " ".join(part for part in name.removeprefix("mcp__").split("__") if part) or name
    return f"{name}: {argument}" if argument else name


def shown(said: str, secrets: Collection[str] = ()) -> str:
    """Return a text in one line of at most `DOING_CHARS` characters, without secrets and terminal codes."""
    # Cut last: a part of a secret would not be recognised.
    return plain(redact(plain(beginning(said, _KEPT_CHARS - 1, secrets), _KEPT_CHARS), secrets), DOING_CHARS)


def _main_argument(tool: str, arguments: Mapping[str, Any], directories: Iterable[str]) -> str:
    key = _MAIN.get(tool)
    if key is None or key not in arguments:
        short = (name for name, value in arguments.items() if isinstance(value, str) and 0 < len(value) <= _SHORT)
        return text(arguments.get(next((name for name in short if not is_secret_name(name)), "")))
    argument = text(arguments[key])
    if key in _PATHS:
        return _relative(argument[:_KEPT_CHARS], directories)
    return _first_line(argument, directories) if key == "command" else argument[:_KEPT_CHARS]


def _relative(path: str, directories: Iterable[str]) -> str:
    for directory in directories:
        if directory and path.startswith(inside := f"{directory.rstrip('/')}/"):
            return path[len(inside) :]
    return path


def _first_line(command: str, directories: Iterable[str]) -> str:
    lines = [line.strip() for line in command[: 4 * _KEPT_CHARS].split("\n") if line.strip()]
    line = next((line for line in lines if not line.startswith("#")), "".join(lines[:1]))
    for directory in directories:
        # What many calls begin with says nothing.
        line = line.removeprefix(f"cd {directory} && ")
    return line[:_KEPT_CHARS]


def _last_line(words: str) -> str:
    return words.rstrip().rpartition("\n")[2].strip()[:_KEPT_CHARS]


@dataclass(frozen=True, slots=True)
class _OpenCall:
    said: str
    above: str
    """Id of the call of the subagent that makes it, or empty."""


class ActivityTracker:
    """Follows what an attempt does from its frames; cheap for each frame, a line is made when somebody asks for it.

    Args:
        cwd: The job's directory, from which paths are shown.
    """

    def __init__(self, cwd: str = "") -> None:
        self._cwd = cwd
        # As the process sees it, without symbolic links.
        self._real_cwd = ""
        self._open: dict[str, _OpenCall] = {}
        self._last_call = ""
        self._words = ""
        self._trouble = ""
        self._begun = False
        self._shown: str | None = None

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take the next frame, of any shape. Parts of messages are passed over: the whole block follows."""
        match frame.get("type"):
            case "assistant":
                self._changed()
                self._take_message(frame)
            case "user":
                self._changed()
                self._take_results(frame)
            case "result":
                self._changed()
                self._open.clear()
            case "system":
                self._take_system(frame)
            case _:
                pass

    def doing(self, secrets: Collection[str] = ()) -> str:
        """Return what the attempt does, as `shown` makes it.

        Args:
            secrets: Values that are not shown.
        """
        if self._shown is None:
            self._shown = shown(self._said(), secrets)
        return self._shown

    def _said(self) -> str:
        if self._trouble:
            return self._trouble
        if self._open:
            return next(reversed(self._open.values())).said
        if self._words:
            return self._words
        if self._last_call:
            return f"{THINKING}, after {self._last_call}"
        return THINKING if self._begun else STARTING

    def _take_message(self, frame: Mapping[str, Any]) -> None:
        for block in mappings(mapping(frame.get("message")).get("content")):
            match block.get("type"):
                case "tool_use":
                    self._take_call(block, text(frame.get("parent_tool_use_id")))
                case "text" if words := _last_line(text(block.get("text"))):
                    self._words = words
                case _:
                    pass

    def _take_call(self, block: Mapping[str, Any], above: str) -> None:
        arguments = mapping(block.get("input"))
        self._last_call = described_call(text(block.get("name")), arguments, self._cwd, self._real_cwd)
        self._words = ""
        self._open[text(block.get("id"))[:_SHORT]] = _OpenCall(self._last_call, above[:_SHORT])
        if len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]

    def _take_results(self, frame: Mapping[str, Any]) -> None:
        for block in mappings(mapping(frame.get("message")).get("content")):
            if block.get("type") == "tool_result":
                over = text(block.get("tool_use_id"))[:_SHORT]
                # A subagent that was ended may have left calls open.
                self._open = {id_: call for id_, call in self._open.items() if over not in {id_, call.above}}

    def _take_system(self, frame: Mapping[str, Any]) -> None:
        match frame.get("subtype"):
            case "init":
                self._changed()
                self._real_cwd = text(frame.get("cwd"))[:_KEPT_CHARS]
            case "api_retry":
                # The CLI waits and tries again by itself, for minutes.
                self._changed()
                tries = f"{number(frame.get('attempt')) or 1:.0f} of {number(frame.get('max_retries')) or 1:.0f}"
                self._trouble = f"API trouble ({text(frame.get('error'))[:_SHORT] or 'unknown'}), retry {tries}"
            case _:
                pass

    def _changed(self) -> None:
        self._begun, self._trouble, self._shown = True, "", None
