"""The command-line options of a job, by the names of the tools' arguments, for every command that starts jobs."""

import inspect
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import typer

from jobs.spec import argument_of
from server.cli.completion import complete_id

_LIMITS: Final = "Limits"
_RIGHTS: Final = "Rights"

_Command = TypeVar("_Command", bound=Callable[..., None])


def positive(value: float | None) -> float | None:
    """Check and return an option's number.

    Raises:
        BadParameter: It is not a finite number above 0.
    """
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value:g} is not a number above 0.")
    return value


def finite(value: float | None) -> float | None:
    """Check and return a length of time in seconds, which may be 0.

    Raises:
        BadParameter: It is not a finite number, or below 0.
    """
    if value is not None and not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value:g} is not a number of seconds. Leave the option out for no limit.")
    return value


def not_negative(value: int | None) -> int | None:
    """Return a whole number that an option was given, 0 too.

    Raises:
        BadParameter: It is below 0.
    """
    if value is not None and value < 0:
        raise typer.BadParameter(f"{value} is below 0.")
    return value


def _option(*names: str, says: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=says, rich_help_panel=panel, show_default=False, **more)


def _number(*names: str, says: str, metavar: str) -> Any:
    return _option(*names, says=says, panel=_LIMITS, callback=positive, metavar=metavar)


_SHARED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "cwd": Annotated[Path | None, _option("--cwd", says="Directory that the job works in.", metavar="DIR")],
        "model": Annotated[str | None, _option("--model", says="Model name or alias.")],
        "effort": Annotated[str | None, _option("--effort", says="low, medium, high, xhigh or max.")],
        "append_system_prompt": Annotated[
            str | None, _option("--append-system-prompt", says="Text to add to the system prompt.")
        ],
        "json_schema": Annotated[
            str | None,
            _option("--schema", says="JSON Schema that the answer must meet.", metavar="FILE|JSON"),
        ],
        "verbose": Annotated[bool, _option("--verbose", says="Have the JSON result hold every message.")],
        "idempotency_key": Annotated[
            str | None,
            _option("--idempotency-key", says="Where this key was used before, start nothing and use its jobs."),
        ],
        "parent_job_id": Annotated[
            str | None,
            _option(
                "--parent",
                says="A live job to run below, within its limits.",
                metavar="ID",
                autocompletion=complete_id,
            ),
        ],
        "permission_mode": Annotated[
            str | None, _option("--permission-mode", says="Permission mode of Claude Code.", panel=_RIGHTS)
        ],
        "allowed_tools": Annotated[
            list[str] | None,
            _option(
                "--allowed-tools",
                says="Rules of permitted tools; repeat it or use commas.",
                panel=_RIGHTS,
            ),
        ],
        "disallowed_tools": Annotated[
            list[str] | None,
            _option(
                "--disallowed-tools",
                says="Rules of forbidden tools; repeat it or use commas.",
                panel=_RIGHTS,
            ),
        ],
        "directories": Annotated[
            list[Path] | None,
            _option(
                "--directory",
                "--add-dir",
                says="Another directory to work in; repeatable.",
                panel=_RIGHTS,
                metavar="DIR",
            ),
        ],
        "mcp_servers": Annotated[
            list[str] | None,
            _option("--mcp-server", says="MCP server of the settings, by name; repeatable.", panel=_RIGHTS),
        ],
        "max_budget_usd": Annotated[
            float | None,
            _number("--max-budget-usd", says="Most US dollars for a job and all below it.", metavar="USD"),
        ],
        "timeout_seconds": Annotated[
            float | None, _number("--timeout", says="Seconds that one attempt of a job may take.", metavar="SECONDS")
        ],
        "subtree_seconds": Annotated[
            float | None,
            _number("--subtree-timeout", says="Seconds that a job and all below it may take.", metavar="SECONDS"),
        ],
        "max_jobs": Annotated[
            int | None,
            _option(
                "--max-jobs",
                says="Most jobs below each job; 0 for none.",
                panel=_LIMITS,
                callback=not_negative,
                metavar="N",
            ),
        ],
    }
)

RUN: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **_SHARED,
        "strategy": Annotated[
            Literal["direct", "decompose"] | None,
            _option("--strategy", says="decompose lets the job divide its task."),
        ],
    }
)
"""Options of `run`."""

BATCH: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **_SHARED,
        "max_concurrent": Annotated[
            int | None, _number("--max-concurrent", says="Most jobs of the batch that run at once.", metavar="N")
        ],
        "tree_budget_usd": Annotated[
            float | None,
            _number("--tree-budget-usd", says="Most US dollars for all jobs together.", metavar="USD"),
        ],
        "tree_timeout_seconds": Annotated[
            float | None,
            _number("--tree-timeout", says="Seconds that all jobs together may take.", metavar="SECONDS"),
        ],
    }
)
"""Options of `batch`; those that `run` has too apply to each of its tasks."""

SEND: Final[Mapping[str, Any]] = MappingProxyType(
    {name: _SHARED[name] for name in ("max_budget_usd", "timeout_seconds", "json_schema", "idempotency_key")}
)
"""Options of `send`: a follow-up keeps the directory and the permissions of its session."""

# In an annotation typer keeps the first name of an option where its default would be.
FLAGS: Final[Mapping[str, str]] = MappingProxyType(
    {argument_of(name): get_args(option)[1].default for options in (RUN, BATCH) for name, option in options.items()}
)
"""The flag of each option, by the tools' name of the argument."""


def takes(options: Mapping[str, Any]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds options to a command; it gets them as further keyword arguments.

    Args:
        options: Type and option of each, by the name of the tools' argument.
    """

    def with_options(command: _Command) -> _Command:
        signature = inspect.signature(command)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        more = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=False if get_args(annotation)[0] is bool else None,
            )
            for name, annotation in options.items()
        ]
        command.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return command

    return with_options


def arguments_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as a tool's arguments, in its spelling, without those that were not given.

    Raises:
        BadParameter: A text is empty, as from an unset variable; or a schema cannot be read, or is no JSON
            object.
    """
    for name, value in given.items():
        if isinstance(value, str) and not value.strip():
            hint = FLAGS[argument_of(name)]
            raise typer.BadParameter("it is empty. Give a value, or leave the option out.", param_hint=hint)
    said = {name: value for name, value in given.items() if value or (value == 0 and value is not False)}
    return {argument_of(name): _CONVERSIONS.get(name, _same)(value) for name, value in said.items()}


def _same(value: Any) -> Any:
    return value


def _path(value: Path) -> str:
    return str(value.absolute())


def _rules(values: list[str]) -> list[str]:
    # A comma between parentheses belongs to the rule: Bash(git log -n 1, 2).
    return [rule.strip() for value in values for rule in re.split(r",(?![^(]*\))", value) if rule.strip()]


def _schema(value: str) -> Any:
    where = "" if value.lstrip().startswith("{") else f"{value}: "
    try:
        schema = json.loads(value if not where else Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"{value}: {error.strerror}. Name a file, or give the schema itself, which begins with {{."
        raise typer.BadParameter(problem, param_hint="--schema") from error
    except ValueError as error:
        raise typer.BadParameter(f"{where}this is not JSON: {error}.", param_hint="--schema") from error
    if not isinstance(schema, dict):
        raise typer.BadParameter(f"{where}this is not a JSON object.", param_hint="--schema")
    return schema


_CONVERSIONS: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "cwd": _path,
        "directories": lambda values: [_path(value) for value in values],
        "allowed_tools": _rules,
        "disallowed_tools": _rules,
        "json_schema": _schema,
    }
)
