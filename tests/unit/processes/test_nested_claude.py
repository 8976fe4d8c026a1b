"""Which process of a job is its own `claude`, and which is a second one."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from jobs.processes.kill import Target
from jobs.processes.nested_claude import NestedClaudeDetector, Program
from jobs.processes.process_table import Entry, LinuxTable, ProcessIdentity

MARK = "k:j:1"
SHIM, OWN, SECOND = 5000, 4000, 4100
"""Ids that were given out again from the beginning: the shim has the highest."""
BARE = 4200
"""A process whose arguments cannot be read: it is ending, or has cleared them."""


def entry(pid: int, *, parent: int, session: int, start: float) -> Entry:
    return Entry(identity=ProcessIdentity(pid=pid, start=start), parent=parent, group=session, session=session)


class ShownTable(LinuxTable):
    """A table that shows what it is told to.

    Args:
        shown: The processes.
        marks: Their marks.
    """

    def __init__(self, shown: list[Entry], marks: Mapping[int, str]) -> None:
        self._shown = {one.identity.pid: one for one in shown}
        self._marks = marks

    def entries(self) -> Mapping[int, Entry]:
        return self._shown

    def job_marker(self, pid: int) -> str | None:
        return self._marks.get(pid)


def programs(pid: int) -> Program:
    if pid == BARE:
        return Program(executable="/opt/claude", size=1, arguments=())
    if pid == SHIM:
        return Program(executable="/bin/dash", size=1, arguments=("/bin/sh",))
    return Program(executable="/opt/claude", size=1, arguments=("claude", str(pid)))


def scan(*shown: Entry, marks: tuple[int, ...] = (SHIM, OWN)) -> frozenset[str]:
    detector = NestedClaudeDetector(ShownTable(list(shown), dict.fromkeys(marks, MARK)), programs)
    target = Target(marker=MARK, shim=ProcessIdentity(pid=SHIM, start=1.0))
    detector.scan([target])
    return frozenset(detector.scan([target]))


SHIM_ENTRY = entry(SHIM, parent=1, session=SHIM, start=1.0)
OWN_ENTRY = entry(OWN, parent=SHIM, session=SHIM, start=2.0)


def test_the_first_process_of_the_session_is_the_jobs_own():
    assert scan(SHIM_ENTRY, OWN_ENTRY) == frozenset()


def test_a_process_whose_arguments_cannot_be_read_is_no_fault():
    assert scan(SHIM_ENTRY, entry(BARE, parent=SHIM, session=SHIM, start=2.0), marks=(SHIM, BARE)) == frozenset()


def test_it_is_so_after_the_shim_was_killed():
    assert scan(entry(OWN, parent=1, session=SHIM, start=2.0)) == frozenset()


@pytest.mark.parametrize("session", [SHIM, SECOND])
@pytest.mark.parametrize("parent", [OWN, SHIM])
def test_a_second_one_counts_below_the_first_one_and_as_an_orphan(parent: int, session: int):
    second = entry(SECOND, parent=parent, session=session, start=3.0)
    assert scan(SHIM_ENTRY, OWN_ENTRY, second) == {MARK}


def test_the_reported_command_keeps_its_arguments_however_deep_the_program_lies():
    def deep(pid: int) -> Program:
        found = programs(pid)
        directory = "/home/a user/" + "deep/" * 60
        return replace(found, arguments=(f"{directory}claude", "-p", "hello")) if pid == SECOND else found

    second = entry(SECOND, parent=OWN, session=SHIM, start=3.0)
    table = ShownTable([SHIM_ENTRY, OWN_ENTRY, second], dict.fromkeys((SHIM, OWN), MARK))
    detector = NestedClaudeDetector(table, deep)
    target = Target(marker=MARK, shim=ProcessIdentity(pid=SHIM, start=1.0))
    found = [*detector.scan([target]).values(), *detector.scan([target]).values()]
    assert {one.command for one in found} == {"claude -p hello"}
