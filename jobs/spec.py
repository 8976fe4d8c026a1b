"""What a job is asked to be: the options of a task, the request of a caller, and the complete specification.

An option is a field of `TaskOptions`, which the request and the specification inherit. The field says how its values
are checked, which option of `claude` it becomes, and which other jobs take it over.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Final, get_type_hints

from jobs.errors import BadInputError

TASK_PREVIEW = 2000
"""Characters of a task that a job carries; `Store.task` returns the whole text. 450 jobs that carried a million
characters each took 1.8 GB (measured)."""

_MODEL = re.compile(r"[A-Za-z0-9][\w.:@/\[\]-]{0,199}", re.ASCII)
_ARGUMENT_LIMIT = 100_000


def argument_of(name: str) -> str:
    """Return a field's name as the tools spell it: `max_jobs` is the argument `maxJobs`."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def positive(value: float, argument: str) -> float:
    """Return a number above 0 as it is.

    Raises:
        BadInputError: It is none, or infinite.
    """
    if not (math.isfinite(value) and value > 0):
        raise BadInputError(argument, f"{value} is not a number above 0", "Give a positive number, or leave it out.")
    return value


def one_argument(text: str, argument: str) -> str:
    """Return a text that one argument of a process can hold.

    Raises:
        BadInputError: It is too long, or holds a NUL character or half a surrogate pair.
    """
    # An argument vector holds neither NUL nor lone surrogates, and Linux allows 128 KiB for one argument.
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise BadInputError(argument, "it holds half of a surrogate pair", "Send well-formed Unicode text.") from None
    if b"\0" in encoded:
        raise BadInputError(argument, "it holds a NUL character", "Remove it.")
    if len(encoded) > _ARGUMENT_LIMIT:
        raise BadInputError(
            argument,
            f"it has {len(encoded)} bytes, more than {_ARGUMENT_LIMIT}",
            "Shorten it, or put it into the task.",
        )
    return text


def _any(value: Any, _argument: str) -> str:
    return str(value)


def _model_name(name: str, argument: str) -> str:
    if _MODEL.fullmatch(name):
        return name
    raise BadInputError(argument, f"{name[:80]!r} is not a model name", "Use an alias such as 'sonnet' or a full name.")


def _json_object(text: str, argument: str) -> str:
    if not text:
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadInputError(argument, "it is not a JSON object", "Give a JSON Schema as a JSON object.")
    return one_argument(text, argument)


def _dollars(value: float, argument: str) -> str:
    # At least a ten-thousandth: the CLI would read a rounded 0 as an error.
    return f"{max(positive(value, argument), 0.0001):.4f}"


def _one_of(*known: str) -> Callable[[str, str], str]:
    def check(value: str, argument: str) -> str:
        if value not in known:
            raise BadInputError(argument, f"{value[:40]!r} is unknown", f"Use one of {', '.join(known)}.")
        return value

    return check


def _at_least(least: int, remedy: str) -> Callable[[int, str], str]:
    def check(value: int, argument: str) -> str:
        if value < least:
            raise BadInputError(argument, f"{value} is less than {least}", remedy)
        return str(value)

    return check


_EFFORT = _one_of("low", "medium", "high", "xhigh", "max")
_OUTPUT_FORMAT = _one_of("json", "text", "stream-json")


@dataclass(frozen=True, slots=True)
class Option:
    """What holds for an option of a task besides its type.

    Args:
        check: Given a value and the name of its argument, returns the text that `claude` takes, or raises
            `BadInputError`.
        flag: The option of `claude` that it becomes, or empty.
        argument: How the tools spell it, where that is not the field's name in camelCase.
        continues: A further message to the job's session takes it from the job.
        subtasks: The subtasks that the job asks for take it from the job.
    """

    check: Callable[[Any, str], str] = _any
    flag: str = ""
    argument: str = ""
    continues: bool = False
    subtasks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Options of a task that go from the caller to the specification of its job as they are.

    Args:
        model: Model name, or None for the CLI's own default.
        effort: The CLI's effort level, or None.
        max_budget_usd: Most US dollars for this job and everything below it, or None.
        append_system_prompt: Text for the end of the system prompt, or None.
        json_schema: JSON Schema, as text, that the answer must meet, or None.
        output_format: "json", "text" or "stream-json": how a caller reads the result; the last is read as the first.
        verbose: Keep the bulk of the CLI's result object in replies.
        max_jobs: Most jobs below this job, or None.
        batch_slots: Most jobs of its batch that may run at once, itself included, or None; a limit below those of the
            tree and the machine.
        can_decompose: The job may answer with subtasks; they are run below it, and it is resumed with their results.
        resume_session: Session to continue with the task, or None for a new one.
        fork_session: Continue a copy of that session instead of the session itself.
    """

    model: Annotated[str | None, Option(_model_name, flag="--model", continues=True, subtasks=True)] = None
    effort: Annotated[str | None, Option(_EFFORT, flag="--effort", continues=True, subtasks=True)] = None
    max_budget_usd: Annotated[float | None, Option(_dollars, flag="--max-budget-usd")] = None
    append_system_prompt: Annotated[str | None, Option(one_argument, flag="--append-system-prompt", continues=True)] = (
        None
    )
    json_schema: Annotated[str | None, Option(_json_object, flag="--json-schema")] = None
    output_format: Annotated[str, Option(_OUTPUT_FORMAT)] = "json"
    verbose: Annotated[bool, Option(continues=True)] = False
    max_jobs: Annotated[int | None, Option(_at_least(0, "Give how many jobs it may have below it, 0 for none."))] = None
    batch_slots: Annotated[
        int | None, Option(_at_least(1, "Give 1 or more, or leave it out."), argument="maxConcurrent")
    ] = None
    can_decompose: bool = False
    resume_session: str | None = None
    fork_session: bool = False


OPTIONS: Final = tuple(one.name for one in fields(TaskOptions))
"""Every option."""

_RULES: Final = {
    name: rule
    for name, hint in get_type_hints(TaskOptions, include_extras=True).items()
    for rule in getattr(hint, "__metadata__", ())
}

_OPTIONAL: Final = frozenset(one.name for one in fields(TaskOptions) if one.default is None)

SESSION_OPTIONS: Final = tuple(name for name, rule in _RULES.items() if rule.continues)
"""Options that a further message to the session of a job takes from the job."""

SUBTASK_OPTIONS: Final = tuple(name for name, rule in _RULES.items() if rule.subtasks)
"""Options that the subtasks of a job take from the job."""

RIGHTS: Final = ("cwd", "permission_mode", "allowed_tools", "disallowed_tools", "directories", "mcp_servers")
"""Fields of a request and of a specification that say what a job may do, and where."""


def values(options: TaskOptions, names: Iterable[str]) -> dict[str, Any]:
    """Return some fields of a request or a specification, by their names."""
    return {name: getattr(options, name) for name in names}


def command_options(options: TaskOptions) -> tuple[str, ...]:
    """Check the options of a task, and return those of `claude` that they become.

    Raises:
        BadInputError: A value that cannot be used, named as the caller spells it.
    """
    words: list[str] = []
    for name, rule in _RULES.items():
        value, argument = getattr(options, name), rule.argument or argument_of(name)
        if value is None and name in _OPTIONAL:
            continue
        if value is None:
            raise BadInputError(argument, "None is no value for it", "Leave it out.")
        text = rule.check(value, argument)
        words += [f"{rule.flag}={text}"] if rule.flag and text else []
    return tuple(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest(TaskOptions):
    """One task as a caller gives it; None asks for the default.

    Args:
        task: The text.
        cwd: Directory to work in; relative paths start at the client's directory, or at the spawning job's.
        permission_mode: The CLI's permission mode.
        timeout_seconds: Seconds that one attempt may run.
        subtree_seconds: Seconds from its admission on, after which neither it nor anything below it may run.
        allowed_tools: Tools that need no permission; None takes the spawning job's.
        disallowed_tools: Tools that are off, besides the spawning job's.
        directories: Directories besides `cwd`; None takes the spawning job's.
        mcp_servers: Names of MCP servers from the settings; None takes the spawning job's.
        key: The caller's name for the task among its siblings.
        depends_on: Siblings that must complete first: their keys, or their positions counted from 0.
    """

    task: str
    cwd: str | None = None
    permission_mode: str | None = None
    timeout_seconds: float | None = None
    subtree_seconds: float | None = None
    allowed_tools: Sequence[str] | None = None
    disallowed_tools: Sequence[str] = ()
    directories: Sequence[str] | None = None
    mcp_servers: Sequence[str] | None = None
    key: str | None = None
    depends_on: Sequence[str | int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec(TaskOptions):
    """Complete specification of a job: defaults are filled in and checked before a spec exists.

    Args:
        task: The task's text, passed to Claude as data. In a job that comes from the store, at most its first
            `TASK_PREVIEW` characters.
        task_chars: Characters of the whole text where `task` is only its beginning, or None.
        cwd: Absolute path of the directory that the job works in.
        permission_mode: The CLI's permission mode.
        deadline: Seconds since the epoch after which nothing of this job's subtree may run, or None.
        subtree_slots: Most jobs of this job's subtree that may run at once, itself included, or None; a limit below
            those of the tree and the machine.
        timeout_seconds: Seconds that one attempt may run.
        allowed_tools: Tools that need no permission, in the CLI's spelling.
        disallowed_tools: Tools that are off, in the CLI's spelling.
        directories: Absolute directories besides `cwd` that the job may work in.
        mcp_servers: Names of MCP servers from the settings that it gets besides ours.
        key: The caller's name for this job among its siblings, or None.
        depends_on: Ids of siblings that must complete first.
    """

    task: str
    task_chars: int | None = None
    cwd: str
    permission_mode: str = "acceptEdits"
    deadline: float | None = None
    subtree_slots: int | None = None
    timeout_seconds: float = 1800.0
    allowed_tools: tuple[str, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    key: str | None = None
    depends_on: tuple[str, ...] = ()

    def with_task_preview(self) -> "JobSpec":
        """Return this spec with at most the first `TASK_PREVIEW` characters of the task."""
        if len(self.task) <= TASK_PREVIEW:
            return self
        return replace(self, task=self.task[:TASK_PREVIEW], task_chars=len(self.task))
