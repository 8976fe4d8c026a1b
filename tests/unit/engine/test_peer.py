"""Which process is at the other end of a connection, and whether it is inside a job."""

import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jobs.claude.command import MARKER
from jobs.processes.process_table import PortableTable, ProcessIdentity, ProcessTable, process_table
from server.engine.peer import (
    SO_PEERPIDFD,
    InsideJobError,
    Peer,
    UnknownPeerError,
    inside_job,
    peer_of,
    refuse_inside_job,
)

NO_SUCH_OPTION = 9999
OPTIONS = [SO_PEERPIDFD, NO_SUCH_OPTION]
"""A kernel that gives the peer's pidfd where this one does, and any earlier one."""

CONNECTS = """
import os, socket, sys
connection = socket.socket(fileno=int(sys.argv[1]))
connection.connect(sys.argv[2])
print("connected", flush=True)
sys.stdin.read()
"""


@contextmanager
def connected_by_a_child(tmp_path: Path, **environ: str) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """Have a child connect a socket that both share; yields the accepted end and the child."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as shared:
        listener.bind(path)
        listener.listen()
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", CONNECTS, str(shared.fileno()), path],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(shared.fileno(),),
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline()
            accepted, _ = listener.accept()
            with accepted:
                yield accepted, child
        finally:
            with suppress(BrokenPipeError):
                child.stdin.close()
            child.stdout.close()
            child.wait()


def end(child: subprocess.Popen[bytes], *, collect: bool) -> None:
    assert child.stdin is not None
    child.stdin.close()
    # Waited for in both cases; what is not collected stays as a zombie, whose id means it still.
    os.waitid(os.P_PID, child.pid, os.WEXITED | (0 if collect else os.WNOWAIT))


@pytest.mark.parametrize("option", OPTIONS)
def test_the_peer_is_the_process_that_connected(tmp_path: Path, option: int):
    with connected_by_a_child(tmp_path) as (accepted, child), peer_of(accepted, option=option) as peer:
        assert peer is not None
        assert peer.identity == process_table().identify(child.pid)
        assert peer.alive(process_table())


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("collect", [True, False])
def test_a_peer_that_ends_after_the_accept_is_refused(tmp_path: Path, option: int, *, collect: bool):
    with connected_by_a_child(tmp_path) as (accepted, child), peer_of(accepted, option=option) as peer:
        end(child, collect=collect)
        with pytest.raises(UnknownPeerError, match="has ended"):
            refuse_inside_job(peer)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("collect", [True, False])
def test_a_peer_that_ended_before_the_accept_is_refused(tmp_path: Path, option: int, *, collect: bool):
    with connected_by_a_child(tmp_path) as (accepted, child):
        end(child, collect=collect)
        with peer_of(accepted, option=option) as peer, pytest.raises(UnknownPeerError):
            refuse_inside_job(peer)


@pytest.mark.parametrize("collect", [True, False])
def test_without_pidfds_the_start_time_tells_that_a_peer_has_ended(tmp_path: Path, *, collect: bool):
    with connected_by_a_child(tmp_path) as (_, child):
        identity = PortableTable().identify(child.pid)
        assert identity is not None
        peer = Peer(identity=identity)
        assert peer.alive(PortableTable())
        end(child, collect=collect)
        assert not peer.alive(PortableTable())


UNUSED = 4_194_305
"""One more than the highest process id that Linux gives: nobody's here."""


class Tree(PortableTable):
    """A process table of the test's making.

    Args:
        parents: Process id to that of its parent.
        marked: Ids of those that have a job's mark.
        dying: Ids of those that end as soon as somebody looks at them, with the parent to which their children fall.
    """

    def __init__(
        self, parents: dict[int, int], marked: Collection[int] = (), dying: Mapping[int, int] | None = None
    ) -> None:
        self._parents = parents
        self._marked = marked
        self._dying = dict(dying or {})

    def identify(self, pid: int) -> ProcessIdentity | None:
        return ProcessIdentity(pid=pid, start=1.0) if pid in self._parents else None

    def parent(self, pid: int) -> int | None:
        return self._parents.get(pid)

    def job_marker(self, pid: int) -> str | None:
        if (heir := self._dying.pop(pid, None)) is not None:
            del self._parents[pid]
            self._parents |= {child: heir for child, parent in self._parents.items() if parent == pid}
        return "0:j0:1" if pid in self._marked else None


def test_a_process_below_a_mark_is_inside_however_far_below():
    # None of them is this process, whose children are inside too.
    deepest = UNUSED + 1000
    deep = {UNUSED: 1} | {pid: pid - 1 for pid in range(UNUSED + 1, deepest + 1)}
    assert inside_job(deepest, Tree(deep, marked={UNUSED}))
    assert not inside_job(deepest, Tree(deep))


def test_what_fell_to_the_engine_is_inside_and_the_engine_itself_is_not():
    own = os.getpid()
    assert inside_job(UNUSED, Tree({UNUSED: own, own: 1}))
    assert not inside_job(own, Tree({own: 1}))


def test_what_a_hook_starts_is_the_persons_unless_it_is_a_jobs():
    own, hook = os.getpid(), UNUSED + 1
    tree = {UNUSED: hook, hook: own, own: 1}
    hooks = {ProcessIdentity(pid=hook, start=1.0)}
    assert not inside_job(UNUSED, Tree(tree), hooks)
    assert not inside_job(hook, Tree(tree), hooks)
    assert inside_job(UNUSED, Tree(tree, marked={UNUSED}), hooks)
    # Another process with its id, and one that it left to the engine.
    assert inside_job(UNUSED, Tree(tree), {ProcessIdentity(pid=hook, start=2.0)})
    assert inside_job(UNUSED, Tree({UNUSED: own, own: 1}), hooks)


def test_an_ancestor_that_ends_during_the_look_hides_nobody_above_it():
    tree = {UNUSED: UNUSED + 1, UNUSED + 1: UNUSED + 2, UNUSED + 2: 1}
    assert inside_job(UNUSED, Tree(tree, marked={UNUSED + 2}, dying={UNUSED + 1: UNUSED + 2}))


def test_a_line_that_cannot_be_read_to_its_end_is_refused():
    with pytest.raises(UnknownPeerError):
        inside_job(UNUSED, Tree({UNUSED: UNUSED + 1}))
    with pytest.raises(UnknownPeerError):
        inside_job(UNUSED, Tree({UNUSED: UNUSED}))
    with pytest.raises(UnknownPeerError):
        inside_job(UNUSED, Tree({}))


def test_a_peer_that_nothing_tells_of_is_refused():
    with pytest.raises(UnknownPeerError, match="container"):
        refuse_inside_job(None)


@pytest.mark.parametrize("table", [process_table(), PortableTable()])
def test_a_marked_process_is_refused_and_this_one_is_not(tmp_path: Path, table: ProcessTable):
    marked = connected_by_a_child(tmp_path, **{MARKER: "0:j0:1"})
    with marked as (accepted, _), peer_of(accepted) as peer, pytest.raises(InsideJobError):
        refuse_inside_job(peer, table)
    assert not inside_job(os.getpid(), table)
