"""Detects a nested `claude`, which a job started itself outside the limits of its tree; names what is exempt."""

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

import psutil

from jobs.processes.kill import Target
from jobs.processes.kill_children import names_of
from jobs.processes.process_table import Entry, Exempt, ProcessIdentity, ProcessTable, process_table
from jobs.util.text import strip_terminal_codes

BEAT: Final = 0.75
"""Seconds between two looks; a look costs 2 to 3 ms for 80 processes (measured)."""

INNER_TOOLS: Final = frozenset({"rg", "ugrep", "bfs"})
"""The binary is these search tools where it is started by such a name, and `claude` by another (measured)."""

COMMAND_CHARS: Final = 200
"""Most characters of a command line that is reported."""

_CONFIGURED: Final = "_harness"
"""How the CLI's `AI_AGENT` ends in what a person's configuration has it start; what a tool starts has "_agent"
(measured on 2.1.197, 2.1.261 and 2.1.332)."""

_SESSION_OPTIONS: Final = ("--session-id", "--resume")
"""Options that each attempt is started with and that no other `claude` has."""

_INTERPRETERS: Final = frozenset({"sh", "bash", "dash", "zsh", "node", "nodejs", "bun"})
_SCRIPTS: Final = ("/claude", "/@anthropic-ai/claude-code/cli.js", "/@anthropic-ai/claude-code/cli-wrapper.cjs")
_NAMES: Final = frozenset({"claude", "claude.exe"})
"""File names of the binary; npm's package has the second one on every system."""
_WHOLE_BINARY: Final = 50 * 1024 * 1024
"""Bytes above which two files of one size are taken for copies; the binary has over 200 million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Program that a process runs.

    Args:
        executable: Path of its file.
        size: Bytes of that file.
        arguments: Its argument vector.
    """

    executable: str
    size: int
    arguments: tuple[str, ...]


Programs = Callable[[int], Program | None]
"""Returns the program of the process with an id, or None where it is gone or not ours."""


def program_of(pid: int) -> Program | None:
    """Return the program of a process as the platform tells it."""
    try:
        process = psutil.Process(pid)
        executable = process.exe()
        return Program(
            executable=executable,
            # By the process and not by the path: a job may have removed or replaced the file since.
            size=_size(pid),
            arguments=tuple(process.cmdline()),
        )
    except (psutil.Error, OSError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedClaude:
    """A second `claude` that a job started.

    Args:
        marker: Job marker of the attempt.
        command: Its command line, without control characters and the program's directory, at most `COMMAND_CHARS`
            characters long.
    """

    marker: str
    command: str


class NestedClaudeDetector:
    """Scans the processes of running jobs, and reports a nested `claude` that it saw twice in a row.

    The job's own `claude` is the first one on the chain of processes below the shim: each wrapper there passes the
    job's options on. What a person's configuration has that `claude` start (hooks, MCP servers) is no escape.
    The CLI tells both apart in the environment of what it starts.

    Args:
        table: The process table, or None for this platform's.
        programs: Tells what a process runs.
    """

    def __init__(self, table: ProcessTable | None = None, programs: Programs = program_of) -> None:
        self._table = table or process_table()
        self._programs = programs
        self._seen: frozenset[ProcessIdentity] = frozenset()

    def scan(self, targets: Iterable[Target]) -> Mapping[str, NestedClaude]:
        """Return by job marker the nested `claude` that each attempt has run for two scans now.

        Twice, because the CLI copies itself for a moment before each program that it starts. A process without a
        marker counts by its ancestors; one that also left them is not seen.

        Args:
            targets: The attempts that run.
        """
        found = dict(self._nested_claudes({target.marker: target for target in targets if target.marker}))
        twice = {nested.marker: nested for identity, nested in found.items() if identity in self._seen}
        self._seen = frozenset(found)
        return twice

    def _nested_claudes(self, targets: Mapping[str, Target]) -> Iterator[tuple[ProcessIdentity, NestedClaude]]:
        entries = self._table.entries()
        members: dict[str, list[Entry]] = {}
        for marker, entry in _members(self._table, entries, targets):
            members.setdefault(marker, []).append(entry)
        for marker, found in members.items():
            processes = _AttemptProcesses(targets[marker].shim, found, self._programs)
            for entry, program in processes.nested_claudes():
                if not self._is_configured(entry, processes):
                    yield entry.identity, NestedClaude(marker=marker, command=_shown(program.arguments))

    def _is_configured(self, entry: Entry, processes: "_AttemptProcesses") -> bool:
        """Tell whether a person's configuration had the job's `claude` start a process, or what that descends from."""
        # What left its ancestors is known by its own environment alone.
        client_context = processes.child_of_own(entry) or entry
        agent = self._table.variable(client_context.identity.pid, "AI_AGENT")
        return agent is not None and agent.startswith("claude-code") and agent.endswith(_CONFIGURED)


class _AttemptProcesses:
    """The processes of one attempt.

    Args:
        shim: The process that leads their session, or None where it is not known.
        members: All of them.
        programs: Tells what a process runs.
    """

    def __init__(self, shim: ProcessIdentity | None, members: Iterable[Entry], programs: Programs) -> None:
        self._others = sorted(
            (entry for entry in members if entry.identity != shim),
            key=lambda entry: (entry.identity.start, entry.identity.pid),
        )
        self._by_pid = {entry.identity.pid: entry for entry in self._others}
        self._programs = {entry.identity.pid: programs(entry.identity.pid) for entry in self._others}
        # By its session where the shim was killed, by its parent where a wrapper began a session of its own. Orphans of
        # the job may be both, and came later.
        led = (entry for entry in self._others if shim and shim.pid in (entry.session, entry.parent))
        self._chain = self._chain_from(next(led, None))

    def nested_claudes(self) -> Iterator[tuple[Entry, Program]]:
        """Yield each `claude` other than the job's own."""
        own = self._programs[self._chain[-1].identity.pid] if self._chain else None
        for entry in self._others:
            program = self._programs[entry.identity.pid]
            if entry not in self._chain and program is not None and is_claude(program, own):
                yield entry, program

    def child_of_own(self, entry: Entry) -> Entry | None:
        """Return the child of the job's own `claude` that a process descends from, or is; None where it left them."""
        passed: set[int] = set()
        while self._chain and entry.parent != self._chain[-1].identity.pid:
            above = self._by_pid.get(entry.parent)
            if above is None or entry.parent in passed:
                return None
            passed.add(entry.parent)
            entry = above
        return entry if self._chain else None

    def _chain_from(self, first: Entry | None) -> tuple[Entry, ...]:
        """Return the wrappers, with what they split off of themselves, and at the end the job's own `claude`."""
        if first is None:
            return ()
        options = self._session_options(first)
        handed = [one for one in self._below(first) if options and options <= self._session_options(one)]
        handed.insert(0, first)
        own = next(filter(self._is_binary, handed), handed[-1])
        theirs = {own, *self._below(own)}
        return (*(one for one in handed if one not in theirs and not self._is_binary(one)), own)

    def _is_binary(self, entry: Entry) -> bool:
        program = self._programs[entry.identity.pid]
        return program is not None and _is_binary(program)

    def _session_options(self, entry: Entry) -> frozenset[tuple[str, str]]:
        program = self._programs[entry.identity.pid]
        return frozenset() if program is None else _session_options(program.arguments)

    def _below(self, top: Entry) -> Iterator[Entry]:
        """Yield the descendants of a process, children before grandchildren."""
        level, passed = {top.identity.pid}, {top.identity.pid}
        while level:
            children = [entry for entry in self._others if entry.parent in level and entry.identity.pid not in passed]
            yield from children
            level = {entry.identity.pid for entry in children}
            passed |= level


def _is_binary(program: Program) -> bool:
    """Tell whether a program is a `claude` itself, and not a script that starts one."""
    return PurePath(program.executable).name not in _INTERPRETERS and _by_name(program)


def _session_options(arguments: Sequence[str]) -> frozenset[tuple[str, str]]:
    # A wrapper may spell "--option=value" as two arguments.
    spelled = (
        (*argument.partition("="), value) for argument, value in zip(arguments, (*arguments, "")[1:], strict=True)
    )
    return frozenset(
        (name, value if sign else following) for name, sign, value, following in spelled if name in _SESSION_OPTIONS
    )


def _shown(arguments: Sequence[str]) -> str:
    # A reply about a job is short: the directories of a program would take the room of what it was asked to do.
    short = [PurePath(word).name if word.startswith("/") else word for word in arguments[:2]]
    words = strip_terminal_codes(shlex.join([*short, *arguments[2:]])).replace("\n", " ")
    return words if len(words) <= COMMAND_CHARS else f"{words[:COMMAND_CHARS]}…"


def is_claude(program: Program, first: Program | None) -> bool:
    """Tell whether a program is a second `claude`.

    Args:
        program: The program.
        first: What the job's own `claude` is, or None where it is not known.
    """
    name = PurePath(program.arguments[0]).name if program.arguments else ""
    if name in INNER_TOOLS or (first is not None and program.arguments == first.arguments):
        return False
    return _by_name(program) or (first is not None and _same(program, first))


def _by_name(program: Program) -> bool:
    path = PurePath(program.executable)
    if path.name in _INTERPRETERS:
        script = program.arguments[1] if len(program.arguments) > 1 else ""
        return script.endswith(_SCRIPTS)
    return path.name in _NAMES or "/claude/versions/" in program.executable


def _same(program: Program, first: Program) -> bool:
    if PurePath(first.executable).name in _INTERPRETERS:
        return program.executable == first.executable and program.arguments[1:2] == first.arguments[1:2]
    copied = program.size == first.size and program.size > _WHOLE_BINARY
    if copied or program.executable != first.executable:
        return copied
    # A wrapper or a stub: a script's interpreter and a program that hands out secrets also do other things.
    return _is_binary(first) or program.arguments[1:2] == first.arguments[1:2]


def _members(
    table: ProcessTable, entries: Mapping[int, Entry], targets: Mapping[str, Target]
) -> Iterator[tuple[str, Entry]]:
    """Yield each process of these targets with its job marker: its own, or that of the nearest ancestor with one."""
    owners: dict[int, str | None] = {}

    def owner(pid: int) -> str | None:
        chain: list[int] = []
        found: str | None = None
        while pid in entries and pid not in owners and pid not in chain:
            chain.append(pid)
            mark = table.job_marker(pid) if entries[pid].session else None
            if mark in targets:
                found = mark
                break
            pid = entries[pid].parent
        else:
            found = owners.get(pid)
        owners.update(dict.fromkeys(chain, found))
        return found

    for pid, entry in entries.items():
        if (marker := owner(pid)) is not None:
            yield marker, entry


def _size(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/exe", "rb") as file:  # noqa: PTH123 - a link of the kernel's that has no path to resolve
            return file.seek(0, 2)
    except OSError:
        return 0


def exempt(shims: Collection[ProcessIdentity], keep: Collection[str], programs: Programs = program_of) -> Exempt:
    """Return a test that exempts the shims of living attempts, and the programs with these names.

    A shim is below a process of another attempt where that process started the engine that launched it.

    Args:
        shims: The shims of the attempts that live.
        keep: Names of programs that a person wants to keep; see `names_of`.
        programs: Tells what a process runs.
    """

    def exempted(identity: ProcessIdentity) -> bool:
        if identity in shims:
            return True
        program = programs(identity.pid) if keep else None
        return program is not None and not names_of(program.executable, program.arguments).isdisjoint(keep)

    return exempted
