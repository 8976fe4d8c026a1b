"""Reads the settings from their sources: variables, `config.toml`, the older server's variables, defaults."""

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError

from jobs.errors import BadInputError, JobsError
from jobs.settings import Settings

PREFIX = "CLAUDE_JOBS_"
"""A setting's variable is this and the name in upper case."""

_OLDER: Mapping[str, str] = {
    "CLAUDE_MAX_RECURSION_DEPTH": "max_depth",
    "CLAUDE_MAX_CONCURRENT_AT_DEPTH": "max_concurrent",
    "CLAUDE_MAX_TOTAL_JOBS": "max_jobs",
    "CLAUDE_TIMEOUT_MULTIPLIER": "timeout_multiplier",
    "CLAUDE_ALLOW_BYPASS_PERMISSIONS": "allow_bypass_permissions",
    "CLAUDE_DEFAULT_PERMISSION_MODE": "permission_mode",
    "CLAUDE_LOG_LEVEL": "log_level",
}
"""Variables of the older server, each with the setting that it sets."""

SECRET = frozenset({"mcp_servers", "on_end", "on_attention"})
"""Settings whose values may hold credentials and are never shown as they are."""

_SHOWN = 40
"""Characters of a wrong value that its error quotes."""


class SourceKind(StrEnum):
    """Kind of source of a setting's value."""

    ENVIRONMENT = "environment"
    FILE = "file"
    OLDER = "older variable"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingSource:
    """Where a value came from.

    Args:
        kind: Which source.
        name: The variable, or the path of the file; empty for a default.
        client: Whose variable it is, for a person to read; empty where no name is needed.
        kept: The variable was kept from an earlier engine, whose client is named.
    """

    kind: SourceKind
    name: str = ""
    client: str = ""
    kept: bool = False

    def __str__(self) -> str:
        """Return where the value came from, for a cell of a table."""
        if self.kind is SourceKind.DEFAULT:
            return "default"
        if self.kind is SourceKind.FILE:
            return self.name
        whose = f"{self.kind} {self.name}" + (f" of {self.client}" if self.client else "")
        return f"{whose}, kept from an earlier engine" if self.kept else whose


DEFAULT = SettingSource(kind=SourceKind.DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientVariables:
    """The variables of one client that name settings.

    Args:
        values: Variables by their names; others among them are left alone.
        client: Who the client is, for a person to read; empty where no name is needed.
        kept: An earlier engine kept them.
    """

    values: Mapping[str, str]
    client: str = ""
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings, and where each of them came from.

    Args:
        settings: The values.
        sources: A source for each setting.
    """

    settings: Settings
    sources: Mapping[str, SettingSource]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidSetting:
    """A value that its setting cannot take.

    Args:
        setting: Name of the setting.
        source: What gave the value.
        problem: What is wrong with it, as the end of a sentence.
    """

    setting: str
    source: SettingSource
    problem: str

    def __str__(self) -> str:
        """Return where the value is, what is wrong with it, and a value that can be used."""
        if self.source.kind is SourceKind.FILE:
            return f"{self.source.name}, {self.setting}: it {self.problem}. For example: {_toml_example(self.setting)}"
        name = self.source.name
        return f"{name}: it {self.problem}. For example: {name}={_variable_example(name, self.setting)}"


class InvalidSettingsError(JobsError):
    """At least one value that a setting cannot take.

    Args:
        problems: Each of them.
    """

    def __init__(self, problems: Collection[InvalidSetting]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def variable_of(name: str) -> str:
    """Return the variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def known_variables() -> Mapping[str, str]:
    """Return every variable that gives a setting, the older server's too, with the name of that setting."""
    return {variable_of(name): name for name in Settings.model_fields} | dict(_OLDER)


def misspelt(variables: Collection[str]) -> str | None:
    """Say which of a client's variables look like settings and are none; None where each is one.

    Args:
        variables: Names, without those that mark the processes of a job.
    """
    strange = sorted({name for name in variables if name.startswith(PREFIX)} - known_variables().keys())
    if not strange:
        return None
    asked = [name.removeprefix(PREFIX).lower() for name in strange]  # what all begin with makes none alike
    meant = [variable_of(close) for name in asked for close in get_close_matches(name, Settings.model_fields, 1)]
    hint = f" Did you mean {', '.join(meant)}?" if meant else ""
    return f"{', '.join(strange)} {'is no setting' if len(strange) == 1 else 'are no settings'}.{hint}"


def load(home: Path, variables: ClientVariables, file: Mapping[str, Any]) -> LoadedSettings:
    """Return the settings; a variable wins over the file, the file over the older server's variables.

    Args:
        home: The state directory.
        variables: Variables of the client whose settings these are.
        file: What `read_file` returned for the state directory's `config.toml`.

    Raises:
        InvalidSettingsError: A value that a setting cannot take.
    """
    loaded, problems = load_usable(home, variables, file)
    if problems:
        raise InvalidSettingsError(problems)
    return loaded


def load_usable(
    home: Path, variables: ClientVariables, file: Mapping[str, Any]
) -> tuple[LoadedSettings, list[InvalidSetting]]:
    """Return the settings without the values that cannot be used, and those values; arguments as for `load`.

    For a value that cannot be used the next source counts.
    """
    problems: list[InvalidSetting] = []
    # The lowest first. A source that gives a value hides the ones below it as a whole: two dictionaries do not mix.
    ranked = [_older(variables), _of_file(home, file), _newer(variables, problems)]
    while True:
        given = {name: found for source in ranked for name, found in source.items()}
        try:
            settings = Settings(**{name: value for name, (value, _) in given.items()} | {"home": home})
        except ValidationError as error:
            for problem in _problems(error, given):
                problems.append(problem)
                for source in ranked:
                    if problem.setting in source and source[problem.setting][1] is problem.source:
                        del source[problem.setting]
            continue
        sources = {name: given[name][1] if name in given else DEFAULT for name in Settings.model_fields}
        return LoadedSettings(settings=settings, sources=sources), problems


def read_file(path: Path) -> dict[str, Any]:
    """Return what a settings file gives by name; nothing where there is no such file.

    Raises:
        BadInputError: It cannot be read, is no TOML, or has a name that is no setting.
    """
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInputError(str(path), f"it cannot be read as TOML: {error}", "Repair or remove the file.") from error
    if "home" in values:
        raise BadInputError(
            str(path), "home cannot be set in a file inside it", "Remove it, and set CLAUDE_JOBS_HOME instead."
        )
    _refuse_unknown(path, values.keys() - Settings.model_fields.keys())
    return values


def load_here(home: Path, environ: Mapping[str, str]) -> LoadedSettings:
    """Return the settings that an engine would have that is started in this environment.

    Args:
        home: The state directory.
        environ: An environment; variables that name no setting are left alone.

    Raises:
        InvalidSettingsError: A value that a setting cannot take.
        BadInputError: The file cannot be used.
    """
    return load(home, ClientVariables(values=environ), read_file(home / "config.toml"))


_Given = dict[str, tuple[Any, SettingSource]]


def _newer(variables: ClientVariables, problems: list[InvalidSetting]) -> _Given:
    found: _Given = {}
    for name in Settings.model_fields:
        variable = variable_of(name)
        # An empty variable gives no value: that is how one is unset in a client's configuration.
        if name == "home" or not (text := variables.values.get(variable)):
            continue
        source = _of_variable(SourceKind.ENVIRONMENT, variable, variables)
        try:
            found[name] = (json.loads(text) if _is_structured(name) else text, source)
        except (ValueError, RecursionError):
            problems.append(InvalidSetting(setting=name, source=source, problem="is not JSON"))
    return found


def _older(variables: ClientVariables) -> _Given:
    return {
        name: (_translated(name, text), _of_variable(SourceKind.OLDER, variable, variables))
        for variable, name in _OLDER.items()
        if (text := variables.values.get(variable))
    }


def _translated(name: str, text: str) -> Any:
    """Return a value of the older server as ours: its depth counted levels, ours names the deepest one."""
    match name:
        case "max_depth":
            return int(text) - 1 if text.isdecimal() else text
        case "max_concurrent":
            return {0: text}
        case "log_level":
            return text.upper()
        case _:
            return text


def _of_file(home: Path, file: Mapping[str, Any]) -> _Given:
    source = SettingSource(kind=SourceKind.FILE, name=str(home / "config.toml"))
    return {name: (value, source) for name, value in file.items()}


def _of_variable(kind: SourceKind, variable: str, variables: ClientVariables) -> SettingSource:
    return SettingSource(kind=kind, name=variable, client=variables.client, kept=variables.kept)


def _is_structured(name: str) -> bool:
    return get_origin(Settings.model_fields[name].annotation) in (dict, tuple, frozenset)


def _refuse_unknown(path: Path, unknown: Collection[str]) -> None:
    # A limit whose name is misspelt would silently not hold.
    if not unknown:
        return
    named = ", ".join(repr(name) for name in sorted(unknown))
    meant = [close for name in sorted(unknown) for close in get_close_matches(name, Settings.model_fields, 1)]
    hint = f"Did you mean {', '.join(map(repr, meant))}?" if meant else "Correct or remove it."
    raise BadInputError(str(path), f"there is no setting {named}", hint)


def _problems(error: ValidationError, given: _Given) -> list[InvalidSetting]:
    found: dict[str, InvalidSetting] = {}
    for detail in error.errors():
        name, *below = map(str, detail["loc"])
        value, source = given[name]
        where = f" at {'.'.join(below)}" if below else ""
        shown = "" if name in SECRET or where else f" ({_short(value)})"
        problem = f"{_words(detail['type'], detail.get('ctx', {}))}{where}{shown}"
        found.setdefault(name, InvalidSetting(setting=name, source=source, problem=problem))
    return list(found.values())


def _words(kind: str, context: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, for the type that pydantic gives an error."""
    match kind:
        case "greater_than":
            return f"must be more than {context['gt']:g}"
        case "greater_than_equal":
            return f"must be {context['ge']:g} or more"
        case "less_than_equal":
            return f"must be {context['le']:g} or less"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case "value_error":
            return f"cannot be used: {context['error']}"
        case _:
            return next((words for start, words in _WORDS.items() if kind.startswith(start)), "cannot be used")


_WORDS: Mapping[str, str] = {
    "int_": "is not a whole number",
    "float_": "is not a number",
    "finite_number": "must be finite",
    "bool_": "is neither true nor false",
    "dict_type": "must be a table",
    "model_": "must be a table",
    "tuple_type": "must be a list",
    "frozen_set_type": "must be a list",
    "string_type": "must be a text",
    "path_type": "must be a text",
    "string_too_short": "must not be empty",
    "missing": "lacks a value",
    "extra_forbidden": "has a key that is not known",
}
"""Beginning of pydantic's type of an error to what is wrong, in our words."""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _example(name: str) -> Any:
    field = Settings.model_fields[name]
    return field.examples[0] if field.examples else field.default


def _variable_example(variable: str, name: str) -> str:
    example = _example(name)
    if variable in _OLDER:
        # Its concurrency was one number for every level.
        return {"max_depth": "6", "max_concurrent": "10"}.get(name) or _plain(example)
    return f"'{json.dumps(example)}'" if _is_structured(name) else _plain(example)


def _plain(example: Any) -> str:
    return json.dumps(example).strip('"')


def _toml_example(name: str) -> str:
    return f"{name} = {_toml(_example(name))}"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(below)}" for key, below in value.items()) + " }"
    return json.dumps(value)
