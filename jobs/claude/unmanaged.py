"""Finds a second `claude` that a job started by itself, outside of every limit of its tree."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Protocol

import psutil

from jobs.claude.proctable import Entry, ProcessIdentity, ProcessTable, process_table
from jobs.claude.survivors import Target

BEAT: Final = 0.75
"""Seconds between two looks; a look costs 2 to 3 ms for 80 processes (measured)."""

INNER_TOOLS: Final = frozenset({"rg", "ugrep", "bfs"})
"""The binary is these search tools where it is started by such a name, and `claude` by another (measured)."""

_INTERPRETERS: Final = frozenset({"sh", "bash", "dash", "zsh", "node", "nodejs", "bun"})
_SCRIPTS: Final = ("/claude", "/@anthropic-ai/claude-code/cli.js")
_WHOLE_BINARY: Final = 50 * 1024 * 1024
"""Bytes above which two files of one size are taken for copies; the binary has over 200 million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a process runs.

    Args:
        executable: Path of its file.
        size: Bytes of that file.
        arguments: Its argument vector.
    """

    executable: str
    size: int
    arguments: tuple[str, ...]


class Programs(Protocol):
    """Tells what a process runs."""

    def __call__(self, pid: int) -> Program | None:
        """Return the program of a process, or None where it is gone or not ours."""
        ...


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


class Patrol:
    """Looks at the processes of running jobs; what it saw twice in a row it reports.

    Args:
        table: The process table, or None for this platform's.
        programs: Tells what a process runs.
    """

    def __init__(self, table: ProcessTable | None = None, programs: Programs = program_of) -> None:
        self._table = table or process_table()
        self._programs = programs
        self._seen: frozenset[ProcessIdentity] = frozenset()

    def offenders(self, targets: Iterable[Target]) -> frozenset[str]:
        """Return the marks of the attempts that have run a second `claude` for two looks now.

        Twice, because the CLI copies itself for a moment before each program that it starts. A process without the mark
        counts by its ancestors; one that also left them is not seen.

        Args:
            targets: The attempts that run.
        """
        found = dict(self._second_ones({target.marker: target for target in targets if target.marker}))
        twice = frozenset(marker for identity, marker in found.items() if identity in self._seen)
        self._seen = frozenset(found)
        return twice

    def _second_ones(self, targets: Mapping[str, Target]) -> Iterator[tuple[ProcessIdentity, str]]:
        entries = self._table.entries()
        members: dict[str, list[Entry]] = {}
        for marker, entry in _members(self._table, entries, targets):
            members.setdefault(marker, []).append(entry)
        for marker, own in members.items():
            yield from ((entry.identity, marker) for entry in self._beside_the_first(targets[marker], own))

    def _beside_the_first(self, target: Target, members: Iterable[Entry]) -> Iterator[Entry]:
        others = [entry for entry in members if entry.identity != target.shim]
        # Not by its parent alone: an orphan of the job is a child of the shim too, and a killed shim has no children.
        led = [entry for entry in others if target.shim and entry.session == target.shim.pid]
        first = min(led, key=lambda entry: (entry.identity.start, entry.identity.pid), default=None)
        own = self._programs(first.identity.pid) if first else None
        for entry in others:
            program = None if entry is first else self._programs(entry.identity.pid)
            if program is not None and is_claude(program, own):
                yield entry


def is_claude(program: Program, first: Program | None) -> bool:
    """Tell whether a program is a `claude` of its own.

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
    return path.name == "claude" or "/claude/versions/" in program.executable


def _same(program: Program, first: Program) -> bool:
    if PurePath(first.executable).name in _INTERPRETERS:
        return program.executable == first.executable and program.arguments[1:2] == first.arguments[1:2]
    copied = program.size == first.size and program.size > _WHOLE_BINARY
    return copied or program.executable == first.executable


def _members(
    table: ProcessTable, entries: Mapping[int, Entry], targets: Mapping[str, Target]
) -> Iterator[tuple[str, Entry]]:
    """Yield each process of these targets with its mark: its own, or that of the nearest ancestor that has one."""
    owners: dict[int, str | None] = {}

    def owner(pid: int) -> str | None:
        chain: list[int] = []
        found: str | None = None
        while pid in entries and pid not in owners and pid not in chain:
            chain.append(pid)
            mark = table.mark(pid) if entries[pid].session else None
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
