"""Effective settings of an engine: their sources, what the file changes, and how they differ from a client's.

Where an engine takes its settings from:

- Settings of `SettingScope.TREE` come from the client that begins a tree, and the tree keeps them. A job's client
  cannot change them, even by its environment.
- All others are the engine's. An engine that a person's client starts while no job is live takes the variables of that
  client, and keeps them in the state directory. An engine that a job's client starts, or that starts while jobs are
  live, takes the variables that were kept and none of its starter's. Where none are kept, because the engine before was
  of an older version or the file is lost, a person's client counts while jobs are live too: the alternative is defaults
  in place of the person's limits. Every engine reads the file, which ranks below the variables in all of these cases.
  What the engine before had from another person's client, and the starter says nothing about, is told to the starter
  once: a file holds for all clients, a variable for the engines of its client.
- A person's client that comes later with other variables changes nothing in a running engine: it would change the
  limits of all jobs. It is told the difference in one line, with the command that ends the engine, so that its
  own variables count for the next one. A client that gives no value for a setting is told nothing about it.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs import kept_settings
from jobs.errors import JobsError
from jobs.settings import Settings, SettingScope, TreeSettings, is_url, names, scope_of
from jobs.settings_sources import (
    ClientVariables,
    InvalidSetting,
    InvalidSettingsError,
    LoadedSettings,
    SourceKind,
    known_variables,
    load,
    load_usable,
    read_file,
)
from jobs.util.text import redact, strip_terminal_codes

logger = logging.getLogger(__name__)

_MOST_CACHED = 256
"""Clients whose settings for trees are cached; each takes about a kilobyte."""

_MOST_SAID = 4000
"""Characters of the line for a person."""

_OF_ENGINE = names(SettingScope.ENGINE_RELOADED, SettingScope.ENGINE_START)
_TREE_VARIABLES = frozenset(name for name, of in known_variables().items() if scope_of(of) is SettingScope.TREE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDifference:
    """A value that a person gave and that is not in force.

    Args:
        setting: Its name.
        in_force: The engine's value, fit to be shown.
        in_force_source: Where that came from.
        wanted: The other value, fit to be shown.
        wanted_source: Where that came from.
    """

    setting: str
    in_force: str
    in_force_source: str
    wanted: str
    wanted_source: str

    def __str__(self) -> str:
        """Return the difference as part of a sentence."""
        return f"{self.setting} is {self.in_force} ({self.in_force_source}), not {self.wanted} ({self.wanted_source})"


class EffectiveSettings:
    """The settings of a running engine.

    Args:
        loaded: What the engine started with.
        variables: The variables that it was made of.
        file: What the settings file held.
    """

    def __init__(self, loaded: LoadedSettings, variables: ClientVariables, file: Mapping[str, Any]) -> None:
        self._settings = loaded.settings
        self._sources = dict(loaded.sources)
        self._variables = variables
        self._path = loaded.settings.home / "config.toml"
        self._file = file
        self._seen = _signature(self._path)
        self._newest = loaded
        self._of_trees: dict[frozenset[tuple[str, str]], TreeSettings] = {}
        self.dropped: list[SettingDifference] = []
        """Settings that the engine before had from another person's client and this one's starter does not give."""
        self.file_problem: str | None = None
        """Why the file as it is now is not used, or None."""

    @classmethod
    def choose(cls, home: Path, starter: ClientVariables, *, by_person: bool, jobs_live: bool) -> "EffectiveSettings":
        """Return the settings of an engine that starts now, by the rules of this module.

        Args:
            home: The state directory.
            starter: Variables of the client that starts the engine.
            by_person: That client is a person's or a program's, and not a job's.
            jobs_live: Some job is queued or running.

        Raises:
            InvalidSettingsError: A variable of a person's client, or the file, has a value that cannot be used. A value
                that was kept is left out instead.
            BadInputError: The file cannot be used.
        """
        file = read_file(home / "config.toml")
        kept = kept_settings.read(home)
        if by_person and (not jobs_live or kept is None):
            chosen = cls(load(home, starter, file), starter, file)
            chosen._note_dropped(kept)
            _keep(home, starter)
            return chosen
        kept = kept or ClientVariables(values={}, kept=True)
        loaded, problems = load_usable(home, kept, file)
        if of_file := [one for one in problems if one.source.kind is SourceKind.FILE]:
            raise InvalidSettingsError(of_file)
        for problem in problems:
            logger.warning("a setting that an earlier engine kept is left out: %s", problem)
        return cls(loaded, kept, file)

    @property
    def settings(self) -> Settings:
        """The engine's settings: one object, which a change of the file changes."""
        return self._settings

    def outdated(self) -> bool:
        """Tell whether the file has changed since it was last read; costs one `stat`."""
        return _signature(self._path) != self._seen

    def refresh(self) -> bool:
        """Read the file again if it has changed, and tell whether it had; an unusable file changes nothing."""
        signature = _signature(self._path)
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            file = read_file(self._path)
            newest, problems = load_usable(self._settings.home, self._variables, file)
            if of_file := [one for one in problems if one.source.kind is SourceKind.FILE]:
                raise InvalidSettingsError(of_file)
        except JobsError as error:
            self.file_problem = str(error)
            logger.warning("%s has changed and is not used: %s", self._path, error)
            return True
        self.file_problem = None
        self._file, self._newest = file, newest
        # A new dictionary, not the same one emptied: this runs in a thread, and `for_tree` may be about to add to it.
        self._of_trees = {}
        self._settings.reload(newest.settings)
        self._sources |= {name: newest.sources[name] for name in names(SettingScope.ENGINE_RELOADED)}
        logger.info("%s was read again", self._path)
        return True

    def for_tree(self, values: Mapping[str, str] | None) -> TreeSettings:
        """Return what a tree takes from the client that begins it.

        Args:
            values: The client's variables, or None for a client that does not send them: the engine's own count.

        Raises:
            InvalidSettingsError: A variable of the client has a value that its setting cannot take.
        """
        given = self._variables.values if values is None else values
        key = frozenset((name, value) for name, value in given.items() if name in _TREE_VARIABLES)
        # Before the file is looked at: settings of an older file must not get into the memory of a newer one.
        known = self._of_trees
        if key not in known:
            if len(known) >= _MOST_CACHED:
                known.clear()
            read = load_usable if values is None else _load_strictly
            loaded, _ = read(self._settings.home, ClientVariables(values=dict(key)), self._file)
            known[key] = loaded.settings.for_trees
        return known[key]

    def compare(self, values: Mapping[str, str]) -> tuple[list[SettingDifference], list[InvalidSetting]]:
        """Return where a person's variables, or the file, ask for something else than what is in force.

        Args:
            values: Variables of the person's client.

        Returns:
            The differences, and the client's values that cannot be used.
        """
        theirs, problems = load_usable(self._settings.home, ClientVariables(values=values), self._file)
        found = []
        for name in _OF_ENGINE:
            if theirs.sources[name].kind in (SourceKind.ENVIRONMENT, SourceKind.OLDER):
                found.append((name, theirs))
            elif self._newest.sources[name].kind is SourceKind.FILE or self._sources[name].kind is SourceKind.FILE:
                # The file has changed, and this setting is read at a start only.
                found.append((name, self._newest))
        differences = [
            self._difference(name, wanted)
            for name, wanted in found
            if getattr(wanted.settings, name) != getattr(self._settings, name)
        ]
        return differences, [one for one in problems if one.source.kind is not SourceKind.FILE]

    def notice(self, values: Mapping[str, str], *, jobs_live: bool) -> str | None:
        """Return the one line for a person whose settings are not those in force, or None where all of them are.

        Args:
            values: Variables of the person's client.
            jobs_live: Some job is queued or running.
        """
        differences, problems = self.compare(values)
        said = []
        if differences:
            listed = "; ".join(map(str, differences))
            remedy = remedy_for(jobs_live=jobs_live)
            said.append(f"The running engine's settings are not all as you set them: {listed}. {remedy}")
        said += [f"Not used: {problem}." for problem in problems]
        if self.file_problem:
            said.append(f"The settings file has changed and is not used: {self.file_problem}")
        return strip_terminal_codes(" ".join(said).replace("\n", " "))[:_MOST_SAID] or None

    def table(self, values: Mapping[str, str] | None) -> list[dict[str, Any]]:
        """Return every setting with its value in force and where that came from, without secrets.

        Args:
            values: Variables of the client that asks, whose trees the settings of `SettingScope.TREE` are for; None
                takes the engine's own.
        """
        theirs = self._newest
        if values is not None:
            theirs, _ = load_usable(self._settings.home, ClientVariables(values=values), self._file)
        mixed = LoadedSettings(
            settings=self._settings.model_copy(
                update={name: getattr(theirs.settings, name) for name in names(SettingScope.TREE)}
            ),
            sources=self._sources | {name: theirs.sources[name] for name in names(SettingScope.TREE)},
        )
        return rows(mixed)

    def _note_dropped(self, before: ClientVariables | None) -> None:
        if before is None:
            return
        earlier, _ = load_usable(self._settings.home, before, self._file)
        self.dropped = [
            self._difference(name, earlier)
            for name in _OF_ENGINE
            if earlier.sources[name].kept
            and self._sources[name].name not in known_variables()
            and getattr(earlier.settings, name) != getattr(self._settings, name)
        ]

    def take_dropped(self) -> str | None:
        """Return, once, the line for the starter's client about settings that the engine before had, or None."""
        dropped, self.dropped = self.dropped, []
        if not dropped:
            return None
        listed = "; ".join(map(str, dropped))
        return strip_terminal_codes(
            f"This engine starts with your settings, and the one before had others: {listed}. "
            f"Write what is to hold for every client into {self._path}."
        )[:_MOST_SAID]

    def _difference(self, name: str, wanted: LoadedSettings) -> SettingDifference:
        source = wanted.sources[name]
        return SettingDifference(
            setting=name,
            in_force=shown(self._settings, name),
            in_force_source=str(self._sources[name]),
            wanted=shown(wanted.settings, name),
            wanted_source=f"your {source.name}"
            if source.name in known_variables() and not source.kept
            else str(source),
        )


def remedy_for(*, jobs_live: bool) -> str:
    """Return what a person does so that their own settings take effect."""
    when = "Once its jobs are over, run" if jobs_live else "Run"
    return f"{when} `claude-jobs engine stop`: the next engine takes the settings of the client that starts it."


def rows(loaded: LoadedSettings) -> list[dict[str, Any]]:
    """Return every setting as a row for a person: name, value without secrets, source, scope."""
    return [
        {
            "setting": name,
            "value": _public(loaded.settings, name),
            "source": "the client's CLAUDE_JOBS_HOME, or the platform" if name == "home" else str(loaded.sources[name]),
            "scope": str(scope_of(name)),
        }
        for name in Settings.model_fields
    ]


def shown(settings: Settings, name: str) -> str:
    """Return a setting's value as a person may read it, on one line."""
    return json.dumps(_public(settings, name)) + (" and values that are not shown" if name == "mcp_servers" else "")


def _public(settings: Settings, name: str) -> Any:
    value = settings.model_dump(mode="json", include={name})[name]
    if name in {"on_end", "on_attention"}:
        return None if value is None else public_hook(value)
    if name == "mcp_servers":
        # Neither arguments nor environment of a server: both may hold credentials.
        return {server: {"command": given["command"]} for server, given in value.items()}
    return sorted(value) if name == "enabled_tools" else value


def public_hook(hook: str) -> str:
    """Return the command or URL of a hook as a person may read it: the path of a URL is often all its secret."""
    if not is_url(hook):
        return redact(hook)
    url = urlsplit(hook)
    return f"{url.scheme}://{url.netloc}/" + ("…" if url.path.strip("/") or url.query else "")


def _load_strictly(
    home: Path, variables: ClientVariables, file: Mapping[str, Any]
) -> tuple[LoadedSettings, list[InvalidSetting]]:
    return load(home, variables, file), []


def _keep(home: Path, variables: ClientVariables) -> None:
    try:
        kept_settings.write(home, variables)
    except OSError:
        # A full disk must not keep the engine from starting: it can still end jobs and free space.
        logger.exception("the engine's settings could not be kept for the engines after it")


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
