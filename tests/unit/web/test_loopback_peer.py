"""Which process is at the other end of a connection, and which may not be there."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from jobs.errors import JobsError
from server.web.loopback_peer import Address, LoopbackPeers, look_for, refusal_of, socket_row
from tests.support.waiting import until_now

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which process holds a socket")

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
ROOT = Path(__file__).parents[3]


class InsideError(JobsError):
    """What a judge of these tests raises."""

    def __init__(self) -> None:
        super().__init__("It runs inside a job.")


class Judge:
    """Refuses some processes, and keeps which it was asked about."""

    def __init__(self, *inside: int) -> None:
        self.inside = inside
        self.asked: list[int] = []

    def __call__(self, pid: int) -> None:
        self.asked.append(pid)
        if pid in self.inside:
            raise InsideError


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(20)
        yield listener


@contextmanager
def connected(family: int = socket.AF_INET) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection of this process with itself: the end that connected, and the one that accepted."""
    host = "::ffff:127.0.0.1" if family == socket.AF_INET6 else "127.0.0.1"
    with listening() as listener, socket.socket(family) as client:
        client.connect((host, listener.getsockname()[1]))
        accepted, _ = listener.accept()
        with accepted:
            yield client, accepted


def ends(accepted: socket.socket) -> tuple[Address, Address]:
    return accepted.getpeername(), accepted.getsockname()


CONNECTS = "import os, socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
STAYS = "sys.stdin.read()"


@contextmanager
def connecting(listener: socket.socket, then: str = STAYS, first: str = "") -> Iterator[tuple[int, socket.socket]]:
    """A process that connects: its id, and the end that accepted."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", first + CONNECTS + then, str(listener.getsockname()[1])],
        stdin=subprocess.PIPE,
    )
    with process:
        try:
            accepted, _ = listener.accept()
            with accepted:
                yield process.pid, accepted
        finally:
            process.kill()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_process_that_connected_is_judged_also_with_a_socket_of_ipv6(family: int):
    with connected(family) as (_, accepted):
        judge = Judge()
        assert refusal_of(*ends(accepted), judge) is None
        assert judge.asked == [os.getpid()]
        assert refusal_of(*ends(accepted), Judge(os.getpid())) == "It runs inside a job."


def test_another_process_is_judged_and_not_the_one_that_serves():
    with listening() as listener, connecting(listener) as (pid, accepted):
        judge = Judge()
        assert refusal_of(*ends(accepted), judge) is None
        assert judge.asked == [pid]
        assert refusal_of(*ends(accepted), Judge(pid)) == "It runs inside a job."


def test_of_several_that_share_a_connection_none_may_be_inside_a_job():
    forks = "child = os.fork(); " + STAYS
    with listening() as listener, connecting(listener, forks) as (pid, accepted):
        row = socket_row(*ends(accepted))
        assert row is not None
        until_now(lambda: len(look_for(row.inode)[0]) == 2, 20.0, "the fork")
        [child] = set(look_for(row.inode)[0]) - {pid}
        for one in (pid, child):
            assert refusal_of(*ends(accepted), Judge(one)) == "It runs inside a job."


def test_a_process_that_has_ended_is_refused_however_it_closed():
    reset = "import struct; s.setsockopt(1, 13, struct.pack('ii', 1, 0)); s.close(); "
    for then in ("s.close(); " + STAYS, reset + STAYS, ""):
        with listening() as listener, connecting(listener, then) as (_, accepted):
            there = accepted.getsockname()
            try:
                client = accepted.getpeername()
            except OSError:
                # The reset came before it was accepted: the engine does not get to see such a connection.
                continue

            def is_closed(client: Address = client, there: Address = there) -> bool:
                row = socket_row(client, there)
                return row is None or row.inode == 0

            until_now(is_closed, 20.0, "the close")
            judge = Judge()
            assert "has ended" in (refusal_of(client, there, judge) or "")
            assert judge.asked == []


@AS_ROOT
def test_another_user_is_refused_before_anybody_is_judged():
    becomes = "import encodings.idna, os, socket; os.setuid(65534); "
    with listening() as listener, connecting(listener, first=becomes) as (_, accepted):
        judge = Judge()
        assert "another user" in (refusal_of(*ends(accepted), judge) or "")
        assert judge.asked == []


HIDES = """
import ctypes, encodings.ascii, encodings.idna, os, socket, sys
sys.path.insert(0, sys.argv[1])
from jobs.errors import JobsError
from server.web.loopback_peer import look_for, refusal_of, socket_row

class Inside(JobsError):
    pass

if os.geteuid() == 0:
    os.setuid(65534)
# A change of the user hides a process as well.
ctypes.CDLL(None).prctl(4, 1)
listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(20)
address = listener.getsockname()
child = os.fork()
if not child:
    ctypes.CDLL(None).prctl(4, 0)
    with socket.create_connection(address) as connection:
        connection.recv(1)
    os._exit(0)
accepted, client = listener.accept()
owners, hidden = look_for(socket_row(client, address).inode)
asked = []
print(owners, child in hidden)
print(refusal_of(client, address, asked.append), child in asked)

def refuse(pid):
    if pid == child:
        raise Inside

print("cannot tell" in refusal_of(client, address, refuse))
accepted.close()
os.waitpid(child, 0)
"""


def test_a_process_that_hides_its_files_is_let_in_unless_one_that_hides_is_inside_a_job():
    done = subprocess.run(
        [sys.executable, "-c", HIDES, str(ROOT)], capture_output=True, text=True, timeout=60, check=True, cwd="/"
    )
    assert done.stdout.splitlines() == ["[] True", "None True", "True"]


@pytest.mark.anyio
async def test_a_connection_is_judged_once_and_one_with_the_same_address_anew():
    judge = Judge()
    peers = LoopbackPeers(judge)
    with connected() as (_, accepted):
        client, server = ends(accepted)
        peers.come(client)
        for _ in range(3):
            assert await peers.refusal(client, server) is None
        assert judge.asked == [os.getpid()]
        judge.inside = (os.getpid(),)
        assert await peers.refusal(client, server) is None
        peers.come(client)
        assert await peers.refusal(client, server) == "It runs inside a job."
        peers.go(client)
        judge.inside = ()
        assert await peers.refusal(client, server) is None


@pytest.mark.anyio
async def test_two_requests_of_a_connection_have_it_judged_once():
    judge = Judge()
    peers = LoopbackPeers(judge)
    with connected() as (_, accepted):
        client, server = ends(accepted)
        peers.come(client)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(peers.refusal, client, server)
        assert judge.asked == [os.getpid()]
